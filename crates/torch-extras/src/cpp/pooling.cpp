// Attention of a few queries to all tokens of a sample, on the CPU: what a layer needs whose first token alone is read.
//
//   forward   h = LN(x);  S = q h^T;  A = softmax(s S);  o = A h
//   backward  C = G h^T;  Q = s A o (C - rowsum(G o o));  dq = Q h;  dh = Q^T q + A^T G;  dx = LN'(dh)
//
// A thread takes a sample through all of it: its tokens are read once, normalised in the cache, and multiplied as they are there. Only queries and results
// leave it, K rows a sample. Those are in the numbers that sums are taken in; products take them in the tokens' kind.

#include "blocks.h"
#include "border.h"
#include "tiles.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

namespace {

using kernels::Number;

struct Shape {
  int64_t batch, n, d, queries;
};

Shape shape_of(const at::Tensor &x, const at::Tensor &queries, const at::Tensor *scale, const at::Tensor *shift) {
  TORCH_CHECK(x.dim() == 3 && x.is_contiguous() && x.device().is_cpu() && x.numel() > 0, "tokens must be a contiguous CPU tensor [B, n, d], found ",
              x.sizes());
  const auto kind = number_kind(x.scalar_type());
  TORCH_CHECK(queries.dim() == 3 && queries.size(1) > 0, "queries [B, K, d] are expected, found ", queries.sizes());
  check(&queries, "the queries", {x.size(0), queries.size(1), x.size(2)}, kind);
  TORCH_CHECK((scale == nullptr) == (shift == nullptr), "a scale goes with a shift");
  check(scale, "the scale", {x.size(2)}, kind);
  check(shift, "the shift", {x.size(2)}, kind);
  return {x.size(0), x.size(1), x.size(2), queries.size(1)};
}

// A sample in the cache of a thread: its normalised tokens, packed as h^T and as h.
template <typename S> struct Sample {
  using N = Number<S>;
  const Shape s;
  tiles::NormedRows<S> norm;
  int64_t wide, broad;
  N *turned, *plain;

  Sample(const Shape &s, const at::Tensor &x, const at::Tensor *scale, const at::Tensor *shift, double eps, int64_t b, Scratch &memory)
      : s(s), wide(tiles::padded<S>(s.n)), broad(tiles::padded<S>(s.d)) {
    norm = {s.d, N(eps), x.data_ptr<S>() + b * s.n * s.d, scale ? scale->data_ptr<N>() : nullptr, shift ? shift->data_ptr<N>() : nullptr,
            memory.take<S>(s.n * s.d), memory.take<N>(s.n), memory.take<N>(s.n)};
    tiles::norm_rows(norm, s.n);
    turned = memory.take<N>(tiles::packed_size<S>(s.d, s.n)), plain = memory.take<N>(tiles::packed_size<S>(s.n, s.d));
    tiles::pack(norm.to, 1, s.d, s.d, s.n, 0, wide / tiles::WIDTH<S>, turned);
    tiles::pack(norm.to, s.d, 1, s.n, s.d, 0, broad / tiles::WIDTH<S>, plain);
  }
  static size_t bytes(const Shape &s) {
    return piece<S>(s.n * s.d) + 2 * piece<N>(s.n) + piece<N>(tiles::packed_size<S>(s.d, s.n)) + piece<N>(tiles::packed_size<S>(s.n, s.d));
  }

  // Rows as products take them.
  const S *rows(const N *from, Scratch &memory) const {
    if constexpr (std::is_same_v<S, N>) return from;
    S *to = memory.take<S>(s.queries * s.d);
    tiles::scale_rows(to, s.d, from, s.d, s.queries, s.d, nullptr);
    return to;
  }
  // rows h^T.
  N *met(const S *rows, Scratch &memory) const {
    N *to = memory.take<N>(s.queries * wide);
    tiles::Meanwhile nothing;
    tiles::multiply(tiles::by_rows(rows, s.d), s.queries, s.d, turned, s.n, to, wide, false, nothing);
    return to;
  }
  // map h, rows `broad` apart.
  N *gathered(const S *map, Scratch &memory) const {
    N *to = memory.take<N>(s.queries * broad);
    tiles::Meanwhile nothing;
    tiles::multiply(tiles::by_rows(map, wide), s.queries, s.n, plain, s.d, to, broad, false, nothing);
    return to;
  }
};

// What a sample's K rows take: three times as wide as tokens are many, twice as wide as they are broad, and two as products take them.
template <typename S> size_t room_of_rows(const Shape &s) {
  using N = Number<S>;
  return 4 * piece<N>(s.queries * tiles::padded<S>(s.n)) + 2 * piece<N>(s.queries * tiles::padded<S>(s.d)) + 2 * piece<S>(s.queries * s.d);
}

template <typename S>
void forward(const Shape &s, const at::Tensor &x, const at::Tensor &queries, const at::Tensor *scale, const at::Tensor *shift, double eps, double factor,
             at::Tensor &out, at::Tensor &logarithms) {
  using N = Number<S>;
  over_blocks(s.batch, 1, Sample<S>::bytes(s) + room_of_rows<S>(s), [&](int64_t b, int64_t, Scratch &memory) {
    const Sample<S> sample(s, x, scale, shift, eps, b, memory);
    N *scores = sample.met(sample.rows(queries.data_ptr<N>() + b * s.queries * s.d, memory), memory);
    S *map = memory.take<S>(s.queries * sample.wide);
    N *sums = memory.take<N>(s.queries), *lse = logarithms.data_ptr<N>() + b * s.queries, *to = out.data_ptr<N>() + b * s.queries * s.d;
    for (int64_t k = 0; k < s.queries; k++) lse[k] = tiles::exp_row(map + k * sample.wide, scores + k * sample.wide, s.n, N(factor), sums[k]);
    tiles::finish_sums(lse, sums, s.queries);
    const N *made = sample.gathered(map, memory);
    tiles::scale_rows(to, s.d, made, sample.broad, s.queries, s.d, sums);
  });
}

struct Gradients {
  at::Tensor x, queries, scale, shift;
};

template <typename S>
void backward(const Shape &s, const at::Tensor &grad, const at::Tensor &x, const at::Tensor &queries, const at::Tensor &scale, const at::Tensor &shift,
              double eps, double factor, const at::Tensor &out, const at::Tensor &logarithms, Gradients &found) {
  using N = Number<S>;
  const int64_t height = tiles::height<S>(), rows = s.queries * s.d;
  const size_t packed = piece<N>(tiles::packed_size<S>(s.queries, s.d)), strip = piece<N>(height * tiles::padded<S>(s.d));
  const size_t columns = piece<S>(tiles::columns_size<S>(s.queries, s.n));
  // By scale and by shift, and a sum that nobody wants, of every sample.
  BlockSums<N> sums(s.batch, s.d);
  over_blocks(s.batch, 1, Sample<S>::bytes(s) + room_of_rows<S>(s) + 2 * (packed + columns) + strip, [&](int64_t b, int64_t, Scratch &memory) {
    const Sample<S> sample(s, x, &scale, &shift, eps, b, memory);
    const N *g = grad.data_ptr<N>() + b * rows, *o = out.data_ptr<N>() + b * rows, *lse = logarithms.data_ptr<N>() + b * s.queries;
    const S *asked = sample.rows(queries.data_ptr<N>() + b * rows, memory), *grads = sample.rows(g, memory);
    const N *scores = sample.met(asked, memory), *by_map = sample.met(grads, memory);
    S *q = memory.take<S>(s.queries * sample.wide), *map = memory.take<S>(s.queries * sample.wide);
    for (int64_t k = 0; k < s.queries; k++) {
      const int64_t at = k * sample.wide;
      tiles::attention_gradient_row(q + at, map + at, scores + at, by_map + at, s.n, N(factor), lse[k], tiles::dot(g + k * s.d, o + k * s.d, s.d));
    }
    const N *by_queries = sample.gathered(q, memory);
    tiles::scale_rows(found.queries.data_ptr<N>() + b * rows, s.d, by_queries, sample.broad, s.queries, s.d, nullptr);

    const int64_t panels = sample.broad / tiles::WIDTH<S>;
    N *packed_queries = memory.take<N>(tiles::packed_size<S>(s.queries, s.d)), *packed_grads = memory.take<N>(tiles::packed_size<S>(s.queries, s.d));
    tiles::pack(asked, s.d, 1, s.queries, s.d, 0, panels, packed_queries);
    tiles::pack(grads, s.d, 1, s.queries, s.d, 0, panels, packed_grads);
    const auto turned = [&](const S *m) {
      return tiles::by_columns(m, sample.wide, s.queries, s.n, memory.take<S>(tiles::columns_size<S>(s.queries, s.n)));
    };
    const auto by_score = turned(q), by_share = turned(map);
    N *made = memory.take<N>(height * sample.broad), *sum = sums.begin(b);
    // The normalised rows are formed again in their own place.
    const tiles::NormRows<S> norm{s.d, nullptr, 0, sample.norm.x, nullptr, sample.norm.scale, sample.norm.shift, sample.norm.mean, sample.norm.rstd, sample.norm.to,
                                  found.x.data_ptr<S>() + b * s.n * s.d, sum, sum + s.d, sum + 2 * s.d};
    for (int64_t first = 0; first < s.n; first += height) {
      const int64_t count = std::min(height, s.n - first);
      const auto from = [&](const tiles::Left<S> &left) { return tiles::Left<S>{left.a + first * left.row, left.row, left.step}; };
      tiles::Meanwhile nothing;
      tiles::multiply(from(by_score), count, s.queries, packed_queries, s.d, made, sample.broad, false, nothing);
      tiles::multiply(from(by_share), count, s.queries, packed_grads, s.d, made, sample.broad, true, nothing);
      auto some = norm.from(first);
      some.dy = made, some.dy_row = sample.broad;
      tiles::norm_gradient(some, count);
    }
    sums.done(b);
  });
  const auto total = sums.total();
  found.scale = total.select(0, 0), found.shift = total.select(0, 1);
}

} // namespace

extern "C" {

char *te_pooled_attention(const at::Tensor *x, const at::Tensor *queries, const at::Tensor *scale, const at::Tensor *shift, double eps, double factor,
                          at::Tensor **out, at::Tensor **log_sum_exp) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    const auto s = shape_of(*x, *queries, scale, shift);
    auto o = at::empty_like(*queries), lse = at::empty({s.batch, s.queries}, queries->options());
    by_kind(x->scalar_type(), "attention", [&](auto number) { forward<decltype(number)>(s, *x, *queries, scale, shift, eps, factor, o, lse); });
    *out = new at::Tensor(std::move(o)), *log_sum_exp = new at::Tensor(std::move(lse));
  });
}

// found: by the tokens, the queries, scale and shift.
char *te_pooled_attention_backward(const at::Tensor *grad, const at::Tensor *x, const at::Tensor *queries, const at::Tensor *scale, const at::Tensor *shift,
                                   double eps, double factor, const at::Tensor *out, const at::Tensor *log_sum_exp, at::Tensor **found) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    const auto s = shape_of(*x, *queries, scale, shift);
    check(grad, "the gradient", queries->sizes(), queries->scalar_type());
    check(out, "the output", queries->sizes(), queries->scalar_type());
    check(log_sum_exp, "the logarithms", {s.batch, s.queries}, queries->scalar_type());
    Gradients g;
    g.x = at::empty_like(*x), g.queries = at::empty_like(*queries);
    by_kind(x->scalar_type(), "attention", [&](auto number) {
      backward<decltype(number)>(s, *grad, *x, *queries, *scale, *shift, eps, factor, *out, *log_sum_exp, g);
    });
    at::Tensor *all[] = {&g.x, &g.queries, &g.scale, &g.shift};
    for (int i = 0; i < 4; i++) found[i] = new at::Tensor(std::move(*all[i]));
  });
}

} // extern "C"
