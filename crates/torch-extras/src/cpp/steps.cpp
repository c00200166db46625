// What the two halves of a layer are measured by, sample by sample: of tokens scaled to unit norm R, |Z|_1 and R^c against bases U; and of the steps between
// places, how they are aligned with
//
//   -grad R^c = -gamma sum_k U_k W_k (I + gamma W_k^T W_k)^-1      max(h + alpha/L h (I + alpha h^T h)^-1 - lambda/L, 0) - h
//
// A sample's tokens and all that is made of them stay in a core's cache; with libtorch's operations every one of some forty moves them through memory.
// Products of float tokens keep a float's digits (with bases 16 bits of them), of tokens less their mean (volume.h), which moves a rate by less than float
// activations have moved it already; elimination is in float64.

#include "border.h"
#include "volume.h"

#include <ATen/ops/full.h>

#include <cmath>
#include <limits>
#include <memory>

namespace {

using kernels::Angle;
using kernels::coarse;
using kernels::Number;

// As products with bases take numbers.
template <typename N> using Rough = std::conditional_t<std::is_same_v<N, float>, kernels::Coarse, N>;

// A batch of tokens [B, n, d].
template <typename S> struct Batch {
  using N = Number<S>;
  int64_t samples, n, d;
  double eps_squared;
  Batch(const at::Tensor &z, double eps_squared) : samples(z.size(0)), n(z.size(1)), d(z.size(2)), eps_squared(eps_squared) {}

  // alpha of d dimensions, gamma of p.
  double over(int64_t size) const { return size / (n * eps_squared); }

  // A sample's tokens scaled to unit norm; returns the sum of magnitudes.
  double unit(const S *z, N *to) const {
    double size = 0;
    for (int64_t i = 0; i < n; i++) {
      N factor;
      kernels::inverse_norm(z + i * d, d, factor);
      size += kernels::scale_into(to + i * d, z + i * d, d, factor);
    }
    return size;
  }
};

// found: R, |Z|_1, and R^c against each of some bases, of each sample.
template <typename S>
void places(const at::Tensor &z, const std::vector<at::Tensor> &bases, const int64_t *heads, double eps_squared, double *found) {
  using N = Number<S>;
  const Batch<S> batch(z, eps_squared);
  const int64_t n = batch.n, d = batch.d, count = 2 + bases.size();
  const S *pz = z.data_ptr<S>();
  struct Subspaces {
    at::Tensor factor;
    int64_t heads, p, wide;
    Volume<N> head;
  };
  std::vector<Subspaces> subspaces;
  const Volume<N> whole(n, d);
  size_t bytes = whole.bytes();
  for (size_t i = 0; i < bases.size(); i++) {
    const int64_t width = bases[i].size(0), p = width / heads[i];
    subspaces.push_back({packed<Rough<N>>(bases[i], 1, d, d, width), heads[i], p, tiles::padded<N>(width), Volume<N>(n, p)});
    const Subspaces &s = subspaces[i];
    bytes = std::max(bytes, piece<N>(n * s.wide) + s.head.bytes());
  }
  bytes += piece<N>(n * d);
  over_blocks(z.size(0), 1, bytes, [&](int64_t b, int64_t, Scratch &memory) {
    N *tokens = memory.take<N>(n * d);
    double *numbers = found + b * count;
    numbers[1] = batch.unit(pz + b * n * d, tokens);
    tiles::Meanwhile meanwhile;
    meanwhile.read(pz + likely_next(b, batch.samples) * n * d, n, d, d);
    const size_t used = memory.used();
    numbers[0] = whole.in(memory).rate(tokens, d, batch.over(d));
    for (size_t i = 0; i < subspaces.size(); i++) {
      const Subspaces &s = subspaces[i];
      memory.give_back(used);
      N *w = memory.take<N>(n * s.wide);
      tiles::multiply(tiles::by_rows(coarse(tokens), d), n, d, s.factor.template data_ptr<N>(), s.heads * s.p, w, s.wide, false, meanwhile);
      auto head = s.head.in(memory);
      numbers[2 + i] = 0;
      for (int64_t k = 0; k < s.heads; k++) numbers[2 + i] += head.rate(w + k * s.p, s.wide, batch.over(s.p));
    }
  });
}

double cosine(const Angle &sums) { return sums.dot / std::max(std::sqrt(sums.a) * std::sqrt(sums.b), std::numeric_limits<double>::min()); }

// Of what the attention adds to tokens and -grad R^c at what it reads; uz are the bases applied to that.
template <typename S>
void attention(const at::Tensor &input, const at::Tensor &uz, const at::Tensor &added, const at::Tensor &u, int64_t heads, double eps_squared,
               double *found) {
  using N = Number<S>;
  const Batch<S> batch(input, eps_squared);
  const int64_t n = batch.n, d = batch.d, width = u.size(0), p = width / heads, room = tiles::padded<N>(d);
  const S *pz = input.data_ptr<S>(), *pw = uz.data_ptr<S>(), *pa = added.data_ptr<S>();
  const auto back = packed<Rough<N>>(u, d, 1, width, d);
  const Volume<N> head(n, p);
  const size_t bytes = 2 * piece<N>(n * width) + piece<N>(n * room) + piece<N>(d) + head.bytes();
  over_blocks(input.size(0), 1, bytes, [&](int64_t b, int64_t, Scratch &memory) {
    N *w = memory.take<N>(n * width), *solved = memory.take<N>(n * width), *made = memory.take<N>(n * room), *step = memory.take<N>(d);
    for (int64_t i = b * n; i < (b + 1) * n; i++) {
      N factor;
      kernels::inverse_norm(pz + i * d, d, factor);
      kernels::scale_into(w + (i - b * n) * width, pw + i * width, width, factor);
    }
    auto own = head.in(memory);
    own.meanwhile.read(pa + b * n * d, n, d, d);
    for (int64_t k = 0; k < heads; k++) {
      own.rate(w + k * p, width, batch.over(p));
      own.resolve(w + k * p, width, solved + k * p, width);
    }
    tiles::Meanwhile meanwhile;
    const int64_t next = likely_next(b, batch.samples) * n;
    meanwhile.read(pz + next * d, n, d, d);
    meanwhile.read(pw + next * width, n, width, width);
    tiles::multiply(tiles::by_rows(coarse(solved), width), n, width, back.template data_ptr<N>(), d, made, room, false, meanwhile);
    Angle sums;
    for (int64_t i = 0; i < n; i++) {
      kernels::scale_into(step, pa + (b * n + i) * d, d, N(1));
      kernels::add_angle(sums, step, made + i * room, d);
    }
    sums.dot = -sums.dot;
    found[b] = cosine(sums);
  });
}

// R and |Z|_1 of the tokens h that the sparsifying step reads, and the cosine of that step, to `end`, with the proximal one on lambda |Z|_1 - R(Z).
template <typename S> void sparsity(const at::Tensor &h, const at::Tensor &end, double lambda, double eps_squared, double *found) {
  using N = Number<S>;
  const Batch<S> batch(h, eps_squared);
  const int64_t n = batch.n, d = batch.d;
  const double alpha = batch.over(d), lipschitz = 9 * alpha / 4;
  const Volume<N> whole(n, d);
  over_blocks(h.size(0), 1, 2 * piece<N>(n * d) + piece<N>(d) + whole.bytes(), [&](int64_t b, int64_t, Scratch &memory) {
    N *tokens = memory.take<N>(n * d), *solved = memory.take<N>(n * d), *reached = memory.take<N>(d);
    found[3 * b + 1] = batch.unit(h.data_ptr<S>() + b * n * d, tokens);
    auto own = whole.in(memory);
    own.meanwhile.read(end.data_ptr<S>() + b * n * d, n, d, d);
    own.meanwhile.read(h.data_ptr<S>() + likely_next(b, batch.samples) * n * d, n, d, d);
    found[3 * b] = own.rate(tokens, d, alpha);
    own.resolve(tokens, d, solved, d);
    Angle sums;
    for (int64_t i = 0; i < n; i++) {
      const S *to = end.data_ptr<S>() + (b * n + i) * d;
      N factor;
      kernels::inverse_norm(to, d, factor);
      kernels::scale_into(reached, to, d, factor);
      kernels::add_proximal_angle(sums, tokens + i * d, reached, solved + i * d, d, N(alpha / lipschitz), N(lambda / lipschitz));
    }
    found[3 * b + 2] = cosine(sums);
  });
}

void check_tokens(const at::Tensor &z, const char *name) {
  TORCH_CHECK(z.dim() == 3 && z.is_contiguous() && z.device().is_cpu() && z.size(1) > 0 && z.size(2) > 0, name,
              " must be a contiguous CPU tensor [B, n, d] with tokens, found ", z.sizes());
}

void check_like(const at::Tensor &t, const at::Tensor &z, int64_t width, const char *name) {
  check_tokens(t, name);
  TORCH_CHECK(t.size(0) == z.size(0) && t.size(1) == z.size(1) && t.size(2) == width && t.scalar_type() == z.scalar_type(), name, " must be ",
              z.scalar_type(), " [", z.size(0), ", ", z.size(1), ", ", width, "], found ", t.scalar_type(), " ", t.sizes());
}

void check_bases(const at::Tensor &u, const at::Tensor &z, int64_t heads) {
  const auto kind = z.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK(u.dim() == 2 && u.is_contiguous() && u.device().is_cpu() && u.scalar_type() == kind && u.size(1) == z.size(2) && u.size(0) > 0,
              "the bases must be a contiguous ", kind, " matrix [K p, ", z.size(2), "] on the CPU, found ", u.scalar_type(), " ", u.sizes());
  TORCH_CHECK(heads > 0 && u.size(0) % heads == 0, u.size(0), " basis vectors cannot be divided among ", heads, " heads");
}

at::Tensor *result(const at::Tensor &z, at::IntArrayRef sizes) { return new at::Tensor(at::full(sizes, NAN, z.options().dtype(at::kDouble))); }

} // namespace

extern "C" {

// found: [B, 2 + count], R, |Z|_1, and R^c against each of the bases.
char *te_place(const at::Tensor *z, size_t count, List bases, const int64_t *heads, double eps_squared, at::Tensor **found) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    check_tokens(*z, "the tokens");
    const auto u = borrow(bases, count);
    for (size_t i = 0; i < count; i++) check_bases(u[i], *z, heads[i]);
    std::unique_ptr<at::Tensor> made(result(*z, {z->size(0), static_cast<int64_t>(2 + count)}));
    by_kind(z->scalar_type(), "tokens",
            [&](auto number) { places<decltype(number)>(*z, u, heads, eps_squared, made->data_ptr<double>()); });
    *found = made.release();
  });
}

// found: [B], the cosine.
char *te_attention_alignment(const at::Tensor *input, const at::Tensor *uz, const at::Tensor *added, const at::Tensor *u, int64_t heads,
                             double eps_squared, at::Tensor **found) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    check_tokens(*input, "what the attention reads");
    check_bases(*u, *input, heads);
    check_like(*uz, *input, u->size(0), "the projection");
    check_like(*added, *input, input->size(2), "what the attention adds");
    std::unique_ptr<at::Tensor> made(result(*input, {input->size(0)}));
    by_kind(input->scalar_type(), "tokens", [&](auto number) {
      attention<decltype(number)>(*input, *uz, *added, *u, heads, eps_squared, made->data_ptr<double>());
    });
    *found = made.release();
  });
}

// found: [B, 3], R and |Z|_1 of h, and the cosine.
char *te_sparsity_alignment(const at::Tensor *h, const at::Tensor *end, double lambda, double eps_squared, at::Tensor **found) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    check_tokens(*h, "what the step reads");
    check_like(*end, *h, h->size(2), "what the step gives");
    std::unique_ptr<at::Tensor> made(result(*h, {h->size(0), 3}));
    by_kind(h->scalar_type(), "tokens",
            [&](auto number) { sparsity<decltype(number)>(*h, *end, lambda, eps_squared, made->data_ptr<double>()); });
    *found = made.release();
  });
}

} // extern "C"
