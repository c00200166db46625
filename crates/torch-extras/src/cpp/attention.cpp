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

#include "blas.h"
#include "border.h"
#include "kernels.h"

#include <ATen/ops/empty_like.h>

namespace {

using kernels::Half;
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

// Heads that one thread takes at a time: in bf16 enough to be worth a call, few enough to stay in its cache; else one.
template <typename S> int64_t heads_a_block(const Shape &s) {
  if (!std::is_same_v<S, Half>) return 1;
  constexpr int64_t cache = 1 << 19;
  const int64_t fit = cache / (2 * s.n * s.n), share = (s.items() + at::get_num_threads() - 1) / at::get_num_threads();
  return std::max<int64_t>(1, std::min({fit, share, int64_t(4096)}));
}

// A head's rows [n, p] out of a tensor [batch, n, heads p], and back.
template <typename S> void pack(const Shape &s, int64_t item, const S *from, S *to) {
  from += s.offset(item);
  for (int64_t i = 0; i < s.n; i++) std::memcpy(to + i * s.p, from + i * s.row(), s.p * sizeof(S));
}

template <typename S> void unpack(const Shape &s, int64_t item, const S *from, S *to) {
  to += s.offset(item);
  for (int64_t i = 0; i < s.n; i++) std::memcpy(to + i * s.row(), from + i * s.p, s.p * sizeof(S));
}

template <typename S> void forward(const Shape &s, double scale, const at::Tensor &w, at::Tensor &out, at::Tensor &logarithms) {
  using N = Number<S>;
  const S *pw = w.data_ptr<S>();
  S *po = out.data_ptr<S>();
  N *lse = logarithms.data_ptr<N>();
  const int64_t n = s.n, p = s.p, block = heads_a_block<S>(s);
  over_blocks(s.items(), block, w.options(), block * (2 * n * p + n * n), [&](int64_t first, int64_t last, at::Tensor &memory) {
    const int64_t count = last - first;
    S *packed = memory.data_ptr<S>(), *made = packed + count * n * p, *scores = made + count * n * p;
    for (int64_t k = 0; k < count; k++) pack(s, first + k, pw, packed + k * n * p);
    batch::times_transposed(count, n, n, p, packed, n * p, packed, n * p, scores);
    std::vector<N> inverse(count * n);
    for (int64_t r = 0; r < count * n; r++) lse[first * n + r] = kernels::exp_row(scores + r * n, n, N(scale), inverse[r]);
    batch::times(count, n, p, n, scores, packed, n * p, made);
    for (int64_t k = 0; k < count; k++)
      for (int64_t i = 0; i < n; i++)
        kernels::scale_row(po + s.offset(first + k) + i * s.row(), made + (k * n + i) * p, p, inverse[k * n + i]);
  });
}

template <typename S>
void backward(const Shape &s, double scale, const at::Tensor &grad, const at::Tensor &w, const at::Tensor &out, const at::Tensor &logarithms,
              at::Tensor &gradient) {
  using N = Number<S>;
  const S *pg = grad.data_ptr<S>(), *pw = w.data_ptr<S>(), *po = out.data_ptr<S>();
  const N *lse = logarithms.data_ptr<N>();
  S *pd = gradient.data_ptr<S>();
  const int64_t n = s.n, p = s.p, block = heads_a_block<S>(s);
  over_blocks(s.items(), block, w.options(), block * (3 * n * p + 2 * n * n), [&](int64_t first, int64_t last, at::Tensor &memory) {
    const int64_t count = last - first;
    S *packed = memory.data_ptr<S>(), *made = packed + count * 2 * n * p, *both = made + count * n * p; // [w; G] of each head; dw; [S; C]
    for (int64_t k = 0; k < count; k++) {
      pack(s, first + k, pw, packed + 2 * k * n * p);
      pack(s, first + k, pg, packed + (2 * k + 1) * n * p);
    }
    batch::times_transposed(count, 2 * n, n, p, packed, 2 * n * p, packed, 2 * n * p, both);
    for (int64_t k = 0; k < count; k++) {
      S *scores = both + 2 * k * n * n, *map = scores + n * n;
      const S *g = packed + (2 * k + 1) * n * p, *o = po + s.offset(first + k);
      for (int64_t i = 0; i < n; i++) {
        const N delta = kernels::dot(g + i * p, o + i * s.row(), p);
        kernels::attention_gradient_row(scores + i * n, map + i * n, n, N(scale), lse[(first + k) * n + i], delta);
      }
      kernels::add_transpose(scores, n);
    }
    batch::transposed_times(count, n, p, 2 * n, both, packed, made);
    for (int64_t k = 0; k < count; k++) unpack(s, first + k, made + k * n * p, pd);
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
