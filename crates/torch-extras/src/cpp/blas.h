// Products of row-major matrices by the BLAS that libtorch_cpu exports; in bf16 by libtorch's own product (oneDNN), on one thread of a parallel
// region each.
#pragma once

#ifndef _OPENMP
#error "without -fopenmp at::parallel_for runs on one thread"
#endif

#include "kernels.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>
#include <atomic>

extern "C" void sgemm_(const char *, const char *, const int *, const int *, const int *, const float *, const float *, const int *,
                       const float *, const int *, const float *, float *, const int *);
extern "C" void dgemm_(const char *, const char *, const int *, const int *, const int *, const double *, const double *, const int *,
                       const double *, const int *, const double *, double *, const int *);

namespace blas {

inline void gemm(const char *ta, const char *tb, int m, int n, int k, const float *a, int lda, const float *b, int ldb, float beta, float *c,
                 int ldc) {
  const float one = 1;
  sgemm_(ta, tb, &m, &n, &k, &one, a, &lda, b, &ldb, &beta, c, &ldc);
}

inline void gemm(const char *ta, const char *tb, int m, int n, int k, const double *a, int lda, const double *b, int ldb, double beta,
                 double *c, int ldc) {
  const double one = 1;
  dgemm_(ta, tb, &m, &n, &k, &one, a, &lda, b, &ldb, &beta, c, &ldc);
}

// BLAS counts by columns, so the factors change places.
// c [m, n] = a [m, k] b [n, k]^T
template <typename T> void times_transposed(int m, int n, int k, const T *a, int lda, const T *b, int ldb, T *c, int ldc) {
  gemm("T", "N", n, m, k, b, ldb, a, lda, T(0), c, ldc);
}

// c [m, n] = a [m, k] b [k, n] + beta c
template <typename T> void times(int m, int n, int k, const T *a, int lda, const T *b, int ldb, T beta, T *c, int ldc) {
  gemm("N", "N", n, m, k, b, ldb, a, lda, beta, c, ldc);
}

// c [m, n] = a [k, m]^T b [k, n]
template <typename T> void transposed_times(int m, int n, int k, const T *a, int lda, const T *b, int ldb, T *c, int ldc) {
  gemm("N", "T", n, m, k, b, ldb, a, lda, T(0), c, ldc);
}

} // namespace blas

// The same for `count` dense matrices at a time; `a` and `b` give the distance from one of theirs to the next where it is not their size.
namespace batch {

using kernels::Half;

inline at::Tensor view(const Half *data, int64_t count, int64_t rows, int64_t columns, int64_t stride) {
  const auto options = at::TensorOptions(at::kBFloat16);
  return at::from_blob(const_cast<Half *>(data), {count, rows, columns}, {stride, columns, 1}, options);
}

// c [m, n] = a [m, k] b [n, k]^T
template <typename S>
void times_transposed(int64_t count, int64_t m, int64_t n, int64_t k, const S *a, int64_t stride_a, const S *b, int64_t stride_b, S *c) {
  if constexpr (std::is_same_v<S, Half>) {
    auto to = view(c, count, m, n, m * n);
    at::bmm_out(to, view(a, count, m, k, stride_a), view(b, count, n, k, stride_b).transpose(1, 2));
  } else {
    for (int64_t i = 0; i < count; i++) blas::times_transposed(m, n, k, a + i * stride_a, k, b + i * stride_b, k, c + i * m * n, n);
  }
}

// c [m, n] = a [m, k] b [k, n]
template <typename S> void times(int64_t count, int64_t m, int64_t n, int64_t k, const S *a, const S *b, int64_t stride_b, S *c) {
  if constexpr (std::is_same_v<S, Half>) {
    auto to = view(c, count, m, n, m * n);
    at::bmm_out(to, view(a, count, m, k, m * k), view(b, count, k, n, stride_b));
  } else {
    for (int64_t i = 0; i < count; i++) blas::times(m, n, k, a + i * m * k, k, b + i * stride_b, n, S(0), c + i * m * n, n);
  }
}

// c [m, n] = a [k, m]^T b [k, n]
template <typename S> void transposed_times(int64_t count, int64_t m, int64_t n, int64_t k, const S *a, const S *b, S *c) {
  if constexpr (std::is_same_v<S, Half>) {
    auto to = view(c, count, m, n, m * n);
    at::bmm_out(to, view(a, count, k, m, k * m).transpose(1, 2), view(b, count, k, n, k * n));
  } else {
    for (int64_t i = 0; i < count; i++) blas::transposed_times(m, n, k, a + i * k * m, m, b + i * k * n, n, c + i * m * n, n);
  }
}

} // namespace batch

// Calls `f` with a number of the kind.
template <typename F> void by_kind(at::ScalarType kind, const char *what, F &&f) {
  switch (kind) {
  case at::kFloat: return f(float());
  case at::kDouble: return f(double());
  case at::kBFloat16: return f(kernels::Half());
  default: TORCH_CHECK(false, what, " in ", kind, ": expected Float, Double or BFloat16");
  }
}

// For a thread of a parallel region that calls operations of libtorch: neither autograd nor autocast has anything to do there.
struct Bare {
  c10::impl::ExcludeDispatchKeyGuard no_autocast{c10::autocast_dispatch_keyset};
  at::AutoDispatchBelowADInplaceOrView no_autograd;
};

// Runs `work(first, last, scratch)` over blocks of `block` of `items` items, each thread with a scratch of `scratch` numbers of its own. A thread that is
// done takes the next block: cores of a shared machine are not equally fast. So nothing may depend on which thread takes which block.
template <typename Work>
void over_blocks(int64_t items, int64_t block, const at::TensorOptions &options, int64_t scratch, Work &&work) {
  const int64_t blocks = (items + block - 1) / block;
  std::atomic<int64_t> next{0};
  at::parallel_for(0, std::min<int64_t>(blocks, at::get_num_threads()), 1, [&](int64_t, int64_t) {
    Bare bare;
    auto memory = at::empty({scratch}, options);
    for (int64_t b = next++; b < blocks; b = next++) work(b * block, std::min(items, (b + 1) * block), memory);
  });
}
