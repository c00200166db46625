// Linear maps of rows together with what stands before and behind them, on the CPU.
//
// A matrix product over a whole batch reads and writes tensors that are larger than a core's cache, and LayerNorm, bias, residual and ReLU read and
// write them again, with all threads meeting after each. Here a thread takes some hundred rows through the whole of it while they are in its
// cache:
//
//   forward    y = act(LN(x) W^T + bias + residual)            LN, bias, residual and act = ReLU each where asked for
//   backward   g = dy o [out > 0];  h = LN(x);  dx = LN'(g W) + add;  and the sums over rows that LN's scale and shift and a bias ask for
//
// The weight's own gradient, g^T h, is one large product that libtorch does best: g and h are handed out for it.

#include "blas.h"
#include "border.h"
#include "kernels.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

namespace {

using kernels::Half;
using kernels::Number;

// Bytes of input and output rows that a thread works on at a time.
constexpr int64_t CACHE = 800 << 10;

// Rows of a block: what fits, in equal shares for all threads.
int64_t rows_a_block(int64_t rows, int64_t width, int64_t bytes) {
  const int64_t fit = std::clamp<int64_t>(CACHE / (width * bytes), 32, 1024), threads = at::get_num_threads();
  const int64_t rounds = (rows + fit * threads - 1) / (fit * threads);
  return std::max<int64_t>(1, (rows + rounds * threads - 1) / (rounds * threads));
}

template <typename S> void product(const S *a, const at::Tensor &weight, bool transposed, S *c, int64_t rows, int64_t k, int64_t n) {
  if constexpr (std::is_same_v<S, Half>) {
    const auto options = weight.options();
    auto from = at::from_blob(const_cast<S *>(a), {rows, k}, options), to = at::from_blob(c, {rows, n}, options);
    at::mm_out(to, from, transposed ? weight : weight.t());
  } else if (transposed) {
    blas::times(rows, n, k, a, k, weight.data_ptr<S>(), n, S(0), c, n);
  } else {
    blas::times_transposed(rows, n, k, a, k, weight.data_ptr<S>(), k, c, n);
  }
}

template <typename T> T *data(const at::Tensor *t) { return t == nullptr ? nullptr : t->data_ptr<T>(); }

at::ScalarType number_kind(const at::Tensor &t) { return t.scalar_type() == at::kBFloat16 ? at::kFloat : t.scalar_type(); }

void check(const at::Tensor *t, const char *name, at::IntArrayRef sizes, at::ScalarType kind) {
  if (t == nullptr) return;
  TORCH_CHECK(t->is_contiguous() && t->device().is_cpu() && t->sizes() == sizes && t->scalar_type() == kind, name, " must be a contiguous ",
              kind, " tensor ", sizes, " on the CPU, found ", t->scalar_type(), " ", t->sizes());
}

// libtorch's tensors in, checked; rows counted.
struct Rows {
  int64_t count, k, n;
  std::vector<int64_t> out;
};

Rows rows_of(const at::Tensor &x, const at::Tensor &weight, bool transposed) {
  TORCH_CHECK(x.dim() >= 1 && x.is_contiguous() && x.device().is_cpu(), "rows must be a contiguous CPU tensor");
  TORCH_CHECK(weight.dim() == 2 && weight.is_contiguous() && weight.scalar_type() == x.scalar_type(),
              "the weight must be a contiguous matrix of the rows' kind");
  const int64_t k = x.size(-1), in = weight.size(transposed ? 0 : 1), n = weight.size(transposed ? 1 : 0);
  TORCH_CHECK(k == in && k > 0 && n > 0, "rows of ", k, " numbers do not fit a weight ", weight.sizes());
  std::vector<int64_t> out = x.sizes().vec();
  out.back() = n;
  return {x.numel() / k, k, n, std::move(out)};
}

template <typename S>
void forward(const Rows &r, const at::Tensor &x, bool normalise, const at::Tensor *scale, const at::Tensor *shift, double eps,
             const at::Tensor &weight, bool transposed, const at::Tensor *bias, const at::Tensor *residual, bool relu, at::Tensor &y,
             at::Tensor &mean, at::Tensor &rstd) {
  using N = Number<S>;
  const S *px = x.data_ptr<S>(), *pr = data<S>(residual);
  const N *ps = data<N>(scale), *pt = data<N>(shift), *pb = data<N>(bias);
  S *py = y.data_ptr<S>();
  N *pm = normalise ? mean.data_ptr<N>() : nullptr, *pd = normalise ? rstd.data_ptr<N>() : nullptr;
  const int64_t block = rows_a_block(r.count, r.k + r.n, sizeof(S));
  // The product is made in the cache too and moved out by the last pass, which writes each line once and in order.
  over_blocks(r.count, block, x.options(), block * (r.k + r.n), [&](int64_t first, int64_t last, at::Tensor &memory) {
    S *h = memory.data_ptr<S>(), *made = h + block * r.k;
    const S *from = px + first * r.k;
    if (normalise) {
      for (int64_t i = first; i < last; i++)
        kernels::norm_row(h + (i - first) * r.k, px + i * r.k, r.k, N(eps), ps, pt, pm[i], pd[i]);
      from = h;
    }
    product(from, weight, transposed, made, last - first, r.k, r.n);
    for (int64_t i = first; i < last; i++)
      kernels::finish_row(py + i * r.n, made + (i - first) * r.n, pb, pr ? pr + i * r.n : nullptr, r.n, relu);
  });
}

struct Gradients {
  at::Tensor g, h, x, scale, shift, sum;
};

// r: rows of dy (k numbers) to rows of x (n numbers).
template <typename S>
void backward(const Rows &r, const at::Tensor &dy, const at::Tensor *out, const at::Tensor &weight, const at::Tensor &x, const at::Tensor &mean,
              const at::Tensor &rstd, const at::Tensor &scale, const at::Tensor &shift, const at::Tensor *add, Gradients &found) {
  using N = Number<S>;
  const S *pdy = dy.data_ptr<S>(), *po = data<S>(out), *px = x.data_ptr<S>(), *pa = data<S>(add);
  const N *ps = scale.data_ptr<N>(), *pt = shift.data_ptr<N>(), *pm = mean.data_ptr<N>(), *pd = rstd.data_ptr<N>();
  S *pg = out ? found.g.data_ptr<S>() : nullptr, *ph = found.h.data_ptr<S>(), *pdx = found.x.data_ptr<S>();
  const int64_t block = rows_a_block(r.count, 2 * r.k + r.n, sizeof(S));
  // Sums over rows: each block's own, added in the blocks' order.
  auto sums = at::zeros({(r.count + block - 1) / block, 3, r.n}, scale.options());
  N *psums = sums.data_ptr<N>();
  over_blocks(r.count, block, x.options(), block * r.n, [&](int64_t first, int64_t last, at::Tensor &memory) {
    S *dh = memory.data_ptr<S>();
    N *own = psums + first / block * 3 * r.n;
    const S *from = pdy + first * r.k;
    if (out) {
      kernels::mask_row(pg + first * r.k, from, po + first * r.k, (last - first) * r.k);
      from = pg + first * r.k;
    }
    product(from, weight, true, dh, last - first, r.k, r.n);
    for (int64_t i = first; i < last; i++) {
      const int64_t at = i * r.n;
      kernels::renorm_row(ph + at, px + at, r.n, ps, pt, pm[i], pd[i]);
      kernels::norm_gradient_row(pdx + at, dh + (i - first) * r.n, px + at, pa ? pa + at : nullptr, r.n, ps, pm[i], pd[i], own, own + r.n,
                                 own + 2 * r.n);
    }
  });
  auto total = sums.sum(0);
  found.scale = total.select(0, 0), found.shift = total.select(0, 1), found.sum = total.select(0, 2);
}

at::Tensor *given(at::Tensor &&t) { return new at::Tensor(std::move(t)); }

} // namespace

extern "C" {

// mean and rstd come back null without `normalise`. Null pointers for what is not asked for.
char *te_rows_forward(const at::Tensor *x, bool normalise, const at::Tensor *scale, const at::Tensor *shift, double eps,
                      const at::Tensor *weight, bool transposed, const at::Tensor *bias, const at::Tensor *residual, bool relu,
                      at::Tensor **out, at::Tensor **mean, at::Tensor **rstd) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    const auto r = rows_of(*x, *weight, transposed);
    const auto kind = number_kind(*x);
    TORCH_CHECK((scale == nullptr) == (shift == nullptr), "a scale goes with a shift");
    check(scale, "the scale", {r.k}, kind);
    check(shift, "the shift", {r.k}, kind);
    check(bias, "the bias", {r.n}, kind);
    check(residual, "the residual", r.out, x->scalar_type());
    auto y = at::empty(r.out, x->options());
    at::Tensor m, d;
    if (normalise) m = at::empty({r.count}, x->options().dtype(kind)), d = at::empty_like(m);
    by_kind(x->scalar_type(), "rows", [&](auto s) {
      forward<decltype(s)>(r, *x, normalise, scale, shift, eps, *weight, transposed, bias, residual, relu, y, m, d);
    });
    *out = given(std::move(y));
    if (normalise) *mean = given(std::move(m)), *rstd = given(std::move(d));
  });
}

// found: g (null without `out`), h, dx, dscale, dshift, sum of dx.
char *te_rows_backward(const at::Tensor *dy, const at::Tensor *out, const at::Tensor *weight, const at::Tensor *x, const at::Tensor *mean,
                       const at::Tensor *rstd, const at::Tensor *scale, const at::Tensor *shift, const at::Tensor *add, at::Tensor **found) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    const auto r = rows_of(*dy, *weight, true);
    const auto kind = number_kind(*dy);
    check(out, "the output", dy->sizes(), dy->scalar_type());
    check(x, "the input", r.out, dy->scalar_type());
    check(add, "what is added", r.out, dy->scalar_type());
    check(mean, "the mean", {r.count}, kind);
    check(rstd, "the inverse deviation", {r.count}, kind);
    check(scale, "the scale", {r.n}, kind);
    check(shift, "the shift", {r.n}, kind);
    Gradients g;
    if (out) g.g = at::empty_like(*dy);
    g.h = at::empty_like(*x), g.x = at::empty_like(*x);
    by_kind(dy->scalar_type(), "rows", [&](auto s) { backward<decltype(s)>(r, *dy, out, *weight, *x, *mean, *rstd, *scale, *shift, add, g); });
    if (out) found[0] = given(std::move(g.g));
    found[1] = given(std::move(g.h)), found[2] = given(std::move(g.x));
    found[3] = given(std::move(g.scale)), found[4] = given(std::move(g.shift)), found[5] = given(std::move(g.sum));
  });
}

} // extern "C"
