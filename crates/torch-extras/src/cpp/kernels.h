// Loops over rows, compiled for three generations of x86 and chosen when the program starts.
//
// Every loop exists for three kinds of stored numbers S: float, double, and bf16, which is computed in float. `Number<S>` is what S is computed in.
#pragma once

#include <c10/util/BFloat16.h>
#include <cstdint>

namespace kernels {

using Half = c10::BFloat16;

template <typename S> struct NumberOf { using type = S; };
template <> struct NumberOf<Half> { using type = float; };
template <typename S> using Number = typename NumberOf<S>::type;

// Results of a product come as Number<S>.
#define WHITEBOX_KERNELS(S, N)                                                                                                           \
  N dot(const S *a, const S *b, int64_t n);                                                                                              \
  /* to = factor from. */                                                                                                                \
  void scale_row(S *to, const N *from, int64_t n, N factor);                                                                             \
  /* y = (x - mean) / deviation scale + shift; scale and shift may be null together. */                                                  \
  void norm_row(S *y, const S *x, int64_t n, N eps, const N *scale, const N *shift, N &mean, N &rstd);                                   \
  /* to = from + bias + residual, negative numbers to zero where `relu`; bias and residual may be null. */                               \
  void finish_row(S *to, const N *from, const N *bias, const S *residual, int64_t n, bool relu);                                         \
  /* g where out > 0, otherwise 0. */                                                                                                    \
  void mask_row(S *to, const S *g, const S *out, int64_t n);

// The log-determinant of a positive definite n x n matrix, rows `row` apart, from its lower triangle, which is overwritten. `columns` has room for 4 n.
double log_det(double *m, int64_t n, int64_t row, double *columns);

WHITEBOX_KERNELS(float, float)
WHITEBOX_KERNELS(double, double)
WHITEBOX_KERNELS(Half, float)

#undef WHITEBOX_KERNELS

} // namespace kernels
