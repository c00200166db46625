// Subspace attention on the CPU: softmax(s w w^T) w of every head, where one projection w is query, key and value.
//
// libtorch's attention knows three different inputs. Knowing that they are one saves a product in the backward pass (the gradients by query and
// by key meet in one symmetric matrix), and reading the heads where the projection has left them saves all copies. A head's n x n scores live
// in a scratch buffer of the thread, sized for its cache, and are never kept: the backward pass forms them again.
//
//   forward   S = w w^T;  E = exp(s S - max);  o = (E w) / rowsum(E);  lse = s max + log rowsum(E)
//   backward  A = exp(s S - lse);  C = G w^T;  Q = s A o (C - rowsum(G o o));  dw = A^T G + (Q + Q^T) w
//
// In float32 and float64 each head makes its products by BLAS, straight from the strided layout. In bf16 several heads are packed side by side
// and multiplied by libtorch's batched product (oneDNN), which alone is fast in that format; sums and exponentials are float32.

#include "blas.h"
#include "border.h"
#include "kernels.h"

#include <ATen/ops/bmm.h>
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

template <typename T> void forward_item(const Shape &s, int64_t item, T scale, const T *w, T *o, T *lse, T *scores, T *inverse) {
  const int n = s.n, p = s.p, row = s.row();
  w += s.offset(item), o += s.offset(item), lse += item * n;
  blas::times_transposed(n, n, p, w, row, w, row, scores, n);
  for (int i = 0; i < n; i++) lse[i] = kernels::exp_row(scores + int64_t(i) * n, n, scale, inverse[i]);
  blas::times(n, p, n, scores, n, w, row, T(0), o, row);
  for (int i = 0; i < n; i++, o += row) kernels::scale_row(o, o, p, inverse[i]);
}

template <typename T>
void backward_item(const Shape &s, int64_t item, T scale, const T *g, const T *w, const T *o, const T *lse, T *dw, T *scores) {
  const int n = s.n, p = s.p, row = s.row();
  const int64_t at = s.offset(item), map = s.n * s.n;
  g += at, w += at, o += at, dw += at, lse += item * n;
  T *q = scores, *a = scores + map; // scores become q, gradients by the map become a
  blas::times_transposed(n, n, p, w, row, w, row, q, n);
  blas::times_transposed(n, n, p, g, row, w, row, a, n);
  for (int i = 0; i < n; i++) {
    const T delta = kernels::dot(g + int64_t(i) * row, o + int64_t(i) * row, p);
    kernels::attention_gradient_row(q + int64_t(i) * n, a + int64_t(i) * n, n, scale, lse[i], delta);
  }
  kernels::add_transpose(q, n);
  blas::transposed_times(n, p, n, a, n, g, row, dw, row);
  blas::times(n, p, n, q, n, w, row, T(1), dw, row);
}

// Heads that one thread takes at a time in bf16: enough to be worth a call, few enough to stay in its cache.
int64_t heads_a_block(const Shape &s) {
  constexpr int64_t cache = 1 << 19;
  const int64_t fit = std::max<int64_t>(1, cache / (2 * s.n * s.n));
  const int64_t share = (s.items() + at::get_num_threads() - 1) / at::get_num_threads();
  return std::max<int64_t>(1, std::min({fit, share, int64_t(4096)}));
}

void forward_bf16(const Shape &s, float scale, const Half *w, Half *o, float *lse, const at::TensorOptions &options) {
  const int64_t n = s.n, p = s.p, row = s.row(), block = heads_a_block(s);
  over_blocks(s.items(), block, options, block * n * p, [&](int64_t first, int64_t last, at::Tensor &memory) {
    const int64_t count = last - first;
    auto packed = memory.narrow(0, 0, count * n * p).view({count, n, p});
    Half *pack = packed.data_ptr<Half>();
    for (int64_t item = first; item < last; item++)
      for (int64_t i = 0; i < n; i++) std::memcpy(pack + ((item - first) * n + i) * p, w + s.offset(item) + i * row, p * sizeof(Half));
    auto scores = at::bmm(packed, packed.transpose(1, 2));
    Half *e = scores.data_ptr<Half>();
    std::vector<float> inverse(count * n);
    for (int64_t r = 0; r < count * n; r++) lse[first * n + r] = kernels::exp_row(e + r * n, n, scale, inverse[r]);
    auto out = at::bmm(scores, packed);
    const Half *from = out.data_ptr<Half>();
    for (int64_t item = first; item < last; item++)
      for (int64_t i = 0; i < n; i++) {
        const int64_t r = (item - first) * n + i;
        kernels::scale_row(o + s.offset(item) + i * row, from + r * p, p, inverse[r]);
      }
  });
}

void backward_bf16(const Shape &s, float scale, const Half *g, const Half *w, const Half *o, const float *lse, Half *dw,
                   const at::TensorOptions &options) {
  const int64_t n = s.n, p = s.p, row = s.row(), block = heads_a_block(s);
  over_blocks(s.items(), block, options, block * 2 * n * p, [&](int64_t first, int64_t last, at::Tensor &memory) {
    const int64_t count = last - first;
    auto packed = memory.narrow(0, 0, count * 2 * n * p).view({count, 2 * n, p}); // [w; g] of each head
    Half *pack = packed.data_ptr<Half>();
    std::vector<float> delta(count * n);
    for (int64_t item = first; item < last; item++)
      for (int64_t i = 0; i < n; i++) {
        const int64_t from = s.offset(item) + i * row, to = ((item - first) * 2 * n + i) * p;
        std::memcpy(pack + to, w + from, p * sizeof(Half));
        std::memcpy(pack + to + n * p, g + from, p * sizeof(Half));
        delta[(item - first) * n + i] = kernels::dot(g + from, o + from, p);
      }
    auto both = at::bmm(packed, packed.narrow(1, 0, n).transpose(1, 2)); // [S; C]
    Half *b = both.data_ptr<Half>();
    for (int64_t k = 0; k < count; k++) {
      Half *upper = b + k * 2 * n * n, *lower = upper + n * n;
      for (int64_t i = 0; i < n; i++)
        kernels::attention_gradient_row(upper + i * n, lower + i * n, n, scale, lse[(first + k) * n + i], delta[k * n + i]);
      kernels::add_transpose(upper, n); // [Q + Q^T; A]
    }
    auto out = at::bmm(both.transpose(1, 2), packed);
    const Half *from = out.data_ptr<Half>();
    for (int64_t item = first; item < last; item++)
      for (int64_t i = 0; i < n; i++)
        std::memcpy(dw + s.offset(item) + i * row, from + ((item - first) * n + i) * p, p * sizeof(Half));
  });
}

template <typename T> void forward_blas(const Shape &s, T scale, const at::Tensor &w, at::Tensor &o, at::Tensor &lse) {
  const T *pw = w.data_ptr<T>();
  T *po = o.data_ptr<T>(), *pl = lse.data_ptr<T>();
  over_blocks(s.items(), 1, w.options(), s.n * s.n + s.n, [&](int64_t item, int64_t, at::Tensor &memory) {
    T *scores = memory.data_ptr<T>();
    forward_item(s, item, scale, pw, po, pl, scores, scores + s.n * s.n);
  });
}

template <typename T>
void backward_blas(const Shape &s, T scale, const at::Tensor &g, const at::Tensor &w, const at::Tensor &o, const at::Tensor &lse,
                   at::Tensor &dw) {
  const T *pg = g.data_ptr<T>(), *pw = w.data_ptr<T>(), *po = o.data_ptr<T>(), *pl = lse.data_ptr<T>();
  T *pd = dw.data_ptr<T>();
  over_blocks(s.items(), 1, w.options(), 2 * s.n * s.n, [&](int64_t item, int64_t, at::Tensor &memory) {
    backward_item(s, item, scale, pg, pw, po, pl, pd, memory.data_ptr<T>());
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
    switch (kind) {
    case at::kFloat: forward_blas<float>(s, scale, *w, o, lse); break;
    case at::kDouble: forward_blas<double>(s, scale, *w, o, lse); break;
    case at::kBFloat16:
      forward_bf16(s, scale, w->data_ptr<Half>(), o.data_ptr<Half>(), lse.data_ptr<float>(), w->options());
      break;
    default: TORCH_CHECK(false, "attention in ", kind, ": expected Float, Double or BFloat16");
    }
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
    switch (kind) {
    case at::kFloat: backward_blas<float>(s, scale, *g, *w, *o, *lse, dw); break;
    case at::kDouble: backward_blas<double>(s, scale, *g, *w, *o, *lse, dw); break;
    case at::kBFloat16:
      backward_bf16(s, scale, g->data_ptr<Half>(), w->data_ptr<Half>(), o->data_ptr<Half>(), lse->data_ptr<float>(), dw.data_ptr<Half>(),
                    w->options());
      break;
    default: TORCH_CHECK(false, "attention in ", kind, ": expected Float, Double or BFloat16");
    }
    *gradient = new at::Tensor(std::move(dw));
  });
}

} // extern "C"
