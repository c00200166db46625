// Products of row-major matrices by the BLAS that libtorch_cpu exports; in bf16 by libtorch's own product (oneDNN), on one thread of a parallel
// region each.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

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

// For a thread of a parallel region that calls operations of libtorch: neither autograd nor autocast has anything to do there.
struct Bare {
  c10::impl::ExcludeDispatchKeyGuard no_autocast{c10::autocast_dispatch_keyset};
  at::AutoDispatchBelowADInplaceOrView no_autograd;
};

// Runs `work(first, last, scratch)` over blocks of `block` of `items` items, each thread with a scratch of `scratch` numbers of its own. Which thread
// takes which block depends on their numbers alone.
template <typename Work>
void over_blocks(int64_t items, int64_t block, const at::TensorOptions &options, int64_t scratch, Work &&work) {
  const int64_t blocks = (items + block - 1) / block;
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    Bare bare;
    auto memory = at::empty({scratch}, options);
    for (int64_t b = begin; b < end; b++) work(b * block, std::min(items, (b + 1) * block), memory);
  });
}
