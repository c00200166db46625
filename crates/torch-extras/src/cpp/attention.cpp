// Subspace attention on the CPU: softmax(s w w^T) w of every head, where one projection w is query, key and value.
//
// libtorch's attention knows three different inputs. Knowing that they are one saves a product in the backward pass (the gradients by query and
// by key meet in one symmetric matrix) and lets the others be made two at a time. Some heads are packed side by side in a scratch buffer of the
// thread, sized for its cache; their n x n scores live there and are never kept: the backward pass forms them again.
//
//   forward   S = w w^T;  E = exp(s S - max);  o = (E w) / rowsum(E);  lse = s max + log rowsum(E)
//   backward  [S; C] = [w; G] w^T;  A = exp(s S - lse);  Q = s A o (C - rowsum(G o o));  dw = [Q + Q^T; A]^T [w; G]
//
// Sums and exponentials of bf16 are float32.

#include "blocks.h"
#include "border.h"
#include "tiles.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

namespace {

using kernels::Number;

struct Shape {
  int64_t batch, n, heads, p;
  int64_t row() const { return heads * p; }
  int64_t items() const { return batch * heads; }
  // Where head `item % heads` of sample `item / heads` begins in a tensor [batch, n, heads p]; its rows are `row()` apart.
  int64_t offset(int64_t item) const { return (item / heads) * n * row() + (item % heads) * p; }
};

Shape shape_of(const at::Tensor &w, int64_t heads) {
  TORCH_CHECK(w.dim() == 3 && w.is_contiguous() && w.device().is_cpu(), "the projection must be a contiguous CPU tensor [B, n, K p]");
  TORCH_CHECK(heads > 0 && w.size(2) % heads == 0, "a width of ", w.size(2), " cannot be divided among ", heads, " heads");
  return {w.size(0), w.size(1), heads, w.size(2) / heads};
}

void check_like(const at::Tensor &t, const at::Tensor &w, const char *name) {
  TORCH_CHECK(t.sizes() == w.sizes() && t.scalar_type() == w.scalar_type() && t.is_contiguous(), name,
              " must be contiguous and of the shape and kind of the projection");
}

// The rows of every head are used three ways, packed for each: as w^T behind a product, as w behind one, as they lie before one.
template <typename S> struct Head {
  using N = Number<S>;
  const Shape &s;
  int64_t wide = tiles::padded<S>(s.n), narrow = tiles::padded<S>(s.p);
  size_t turned_size = tiles::packed_size<S>(s.p, s.n), plain_size = tiles::packed_size<S>(s.n, s.p);

  // w^T [p, n] of a head's rows w [n, p].
  const N *turned(const S *w, Scratch &memory) const {
    N *panels = memory.take<N>(turned_size);
    tiles::pack(w, 1, s.row(), s.p, s.n, 0, wide / tiles::WIDTH<S>, panels);
    return panels;
  }
  const N *plain(const S *w, Scratch &memory) const {
    N *panels = memory.take<N>(plain_size);
    tiles::pack(w, s.row(), 1, s.n, s.p, 0, narrow / tiles::WIDTH<S>, panels);
    return panels;
  }
  // a w^T for some rows a of a head.
  void scores(const S *a, int64_t rows, const N *turned, N *to, tiles::Meanwhile &meanwhile) const {
    tiles::multiply(tiles::by_rows(a, s.row()), rows, s.p, turned, s.n, to, wide, false, meanwhile);
  }
};

template <typename S> void forward(const Shape &s, double scale, const at::Tensor &w, at::Tensor &out, at::Tensor &logarithms) {
  using N = Number<S>;
  const S *pw = w.data_ptr<S>();
  S *po = out.data_ptr<S>();
  N *lse = logarithms.data_ptr<N>();
  const Head<S> head{s};
  const int64_t height = tiles::height<S>();
  const int64_t map_row = head.wide * static_cast<int64_t>(sizeof(N) / sizeof(S));
  const size_t strips = piece<N>(height * head.wide) + piece<N>(height * head.narrow);
  over_blocks(s.items(), 1, piece<N>(head.turned_size) + piece<N>(head.plain_size) + strips, [&](int64_t item, int64_t, Scratch &memory) {
    const S *rows = pw + s.offset(item);
    const N *turned = head.turned(rows, memory), *plain = head.plain(rows, memory);
    N *scores = memory.take<N>(height * head.wide), *made = memory.take<N>(height * head.narrow);
    // In the place of the scores: less to hold in the first-level cache.
    S *map = reinterpret_cast<S *>(scores);
    tiles::Meanwhile meanwhile;
    const int64_t next = s.offset(likely_next(item, s.items()));
    meanwhile.read(pw + next, s.n, s.p, s.row());
    meanwhile.write(po + next, s.n, s.p, s.row());
    for (int64_t first = 0; first < s.n; first += height) {
      const int64_t count = std::min(height, s.n - first);
      head.scores(rows + first * s.row(), count, turned, scores, meanwhile);
      N sums[tiles::HEIGHT], *found = lse + item * s.n + first;
      for (int64_t i = 0; i < count; i++) found[i] = tiles::exp_row(map + i * map_row, scores + i * head.wide, s.n, N(scale), sums[i]);
      tiles::finish_sums(found, sums, count);
      tiles::multiply(tiles::by_rows(map, map_row), count, s.n, plain, s.p, made, head.narrow, false, meanwhile);
      tiles::scale_rows(po + s.offset(item) + first * s.row(), s.row(), made, head.narrow, count, s.p, sums);
    }
  });
}

template <typename S>
void backward(const Shape &s, double scale, const at::Tensor &grad, const at::Tensor &w, const at::Tensor &out, const at::Tensor &logarithms,
              at::Tensor &gradient) {
  using N = Number<S>;
  const S *pg = grad.data_ptr<S>(), *pw = w.data_ptr<S>(), *po = out.data_ptr<S>();
  const N *lse = logarithms.data_ptr<N>();
  S *pd = gradient.data_ptr<S>();
  const Head<S> head{s};
  const int64_t height = tiles::height<S>();
  const size_t strips = 2 * piece<N>(height * head.wide) + piece<N>(height * head.narrow), square = piece<S>(head.wide * head.wide);
  const size_t bytes = piece<N>(head.turned_size) + 2 * piece<N>(head.plain_size) + strips + 2 * square + piece<S>(tiles::columns_size<S>(s.n, s.n));
  over_blocks(s.items(), 1, bytes, [&](int64_t item, int64_t, Scratch &memory) {
    const S *rows = pw + s.offset(item), *grads = pg + s.offset(item), *outs = po + s.offset(item);
    const N *turned = head.turned(rows, memory), *plain = head.plain(rows, memory), *plain_grads = head.plain(grads, memory);
    N *scores = memory.take<N>(height * head.wide), *by_map = memory.take<N>(height * head.wide), *made = memory.take<N>(height * head.narrow);
    S *q = memory.take<S>(head.wide * head.wide), *map = memory.take<S>(head.wide * head.wide), *pairs = memory.take<S>(tiles::columns_size<S>(s.n, s.n));
    tiles::Meanwhile meanwhile;
    const int64_t next = s.offset(likely_next(item, s.items()));
    for (const S *wanted : {pw + next, pg + next, po + next}) meanwhile.read(wanted, s.n, s.p, s.row());
    meanwhile.write(pd + next, s.n, s.p, s.row());
    for (int64_t first = 0; first < s.n; first += height) {
      const int64_t count = std::min(height, s.n - first);
      head.scores(rows + first * s.row(), count, turned, scores, meanwhile);
      head.scores(grads + first * s.row(), count, turned, by_map, meanwhile);
      N deltas[tiles::HEIGHT];
      for (int64_t i = 0; i < count; i++) deltas[i] = tiles::dot(grads + (first + i) * s.row(), outs + (first + i) * s.row(), s.p);
      for (int64_t i = 0; i < count; i++) {
        const int64_t at = first + i;
        tiles::attention_gradient_row(q + at * head.wide, map + at * head.wide, scores + i * head.wide, by_map + i * head.wide, s.n, N(scale),
                                      lse[item * s.n + at], deltas[i]);
      }
    }
    tiles::add_transpose(q, s.n, head.wide);
    const auto turned_map = tiles::by_columns(map, head.wide, s.n, s.n, pairs);
    for (int64_t first = 0; first < s.n; first += height) {
      const int64_t count = std::min(height, s.n - first);
      tiles::multiply(tiles::by_rows(q + first * head.wide, head.wide), count, s.n, plain, s.p, made, head.narrow, false, meanwhile);
      tiles::multiply(tiles::Left<S>{turned_map.a + first * turned_map.row, turned_map.row, turned_map.step}, count, s.n, plain_grads, s.p, made,
                      head.narrow, true, meanwhile);
      tiles::scale_rows(pd + s.offset(item) + first * s.row(), s.row(), made, head.narrow, count, s.p, nullptr);
    }
  });
}

} // namespace

extern "C" {

char *te_subspace_attention(const at::Tensor *w, int64_t heads, double scale, at::Tensor **out, at::Tensor **log_sum_exp) {
  return guarded([&] {
    const auto s = shape_of(*w, heads);
    const auto kind = w->scalar_type();
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    auto o = at::empty_like(*w);
    auto lse = at::empty({s.batch, s.heads, s.n}, w->options().dtype(kind == at::kDouble ? at::kDouble : at::kFloat));
    by_kind(kind, "attention", [&](auto number) { forward<decltype(number)>(s, scale, *w, o, lse); });
    *out = new at::Tensor(std::move(o));
    *log_sum_exp = new at::Tensor(std::move(lse));
  });
}

char *te_subspace_attention_backward(const at::Tensor *g, const at::Tensor *w, const at::Tensor *o, const at::Tensor *lse, int64_t heads,
                                     double scale, at::Tensor **gradient) {
  return guarded([&] {
    const auto s = shape_of(*w, heads);
    const auto kind = w->scalar_type();
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    check_like(*g, *w, "the gradient");
    check_like(*o, *w, "the output");
    TORCH_CHECK(lse->numel() == s.items() * s.n && lse->is_contiguous() &&
                    lse->scalar_type() == (kind == at::kDouble ? at::kDouble : at::kFloat),
                "the logarithms must be those of the forward pass");
    auto dw = at::empty_like(*w);
    by_kind(kind, "attention", [&](auto number) { backward<decltype(number)>(s, scale, *g, *w, *o, *lse, dw); });
    *gradient = new at::Tensor(std::move(dw));
  });
}

} // extern "C"
