// Loops over rows, compiled for three generations of x86 and chosen when the program starts.
//
// Every loop exists for three kinds of stored numbers S: float, double, and bf16, which is computed in float. `Number<S>` is what S is computed in.
#pragma once

#include <c10/util/BFloat16.h>
#include <cstdint>

namespace kernels {

using Half = c10::BFloat16;

// A float, of which products may take 16 bits where that is faster.
struct Coarse {
  float x;
};
inline const Coarse *coarse(const float *p) { return reinterpret_cast<const Coarse *>(p); }
inline const double *coarse(const double *p) { return p; }

template <typename S> struct NumberOf { using type = S; };
template <> struct NumberOf<Coarse> { using type = float; };
template <> struct NumberOf<Half> { using type = float; };
template <typename S> using Number = typename NumberOf<S>::type;

#define WHITEBOX_KERNELS(S)                                                                                                           \
  /* g where out > 0, otherwise 0. */                                                                                                    \
  void mask_row(S *to, const S *g, const S *out, int64_t n);                                                                             \
  /* Adds one to the counts of the numbers above zero. */                                                                                \
  void count_positive(int64_t *counts, const S *x, int64_t n);                                                                           \
  /* How many are not zero; what is no number is not. */                                                                                 \
  int64_t nonzero(const S *x, int64_t n);

// The log-determinant of a positive definite n x n matrix L D L^T, rows `row` apart, from its lower triangle, which is overwritten. The upper one becomes D L^T.
double log_det(double *m, int64_t n, int64_t row);

// Numbers as T. Loops that take what is stored to where it is computed with.
#define WHITEBOX_CONVERSIONS(S, T)                                                                                                       \
  /* One over the norm, which is at least NORM_FLOOR. */                                                                                 \
  void inverse_norm(const S *x, int64_t n, T &inverse);                                                                                  \
  /* to = factor x; returns the sum of magnitudes. */                                                                                    \
  T scale_into(T *to, const S *x, int64_t n, T factor);

// A token whose norm is below this counts as zero.
constexpr double NORM_FLOOR = 1e-12;

WHITEBOX_CONVERSIONS(float, float)
WHITEBOX_CONVERSIONS(float, double)
WHITEBOX_CONVERSIONS(double, double)
WHITEBOX_CONVERSIONS(Half, float)
WHITEBOX_CONVERSIONS(Half, double)

#undef WHITEBOX_CONVERSIONS

// The sums of which a cosine is made.
struct Angle {
  double dot = 0, a = 0, b = 0;
};

#define WHITEBOX_STEPS(N)                                                                                                                \
  /* Rows of p numbers less their mean, one behind the other. What products of the former are more than those of the latter is e f^T + f e^T, with a     \
     number for every token, where rows are multiplied with rows, or for every column. */                                               \
  void centre(N *to, N *mean, const N *w, int64_t n, int64_t p, int64_t row, bool by_tokens, double *e, double *f);                      \
  /* The lower triangle of m = I + gamma (gram + e f^T + f e^T), side x side. */                                                         \
  void complete(double *m, int64_t m_row, const N *gram, int64_t row, int64_t side, const double *e, const double *f, double gamma);     \
  /* Adds two rows' share. */                                                                                                            \
  void add_angle(Angle &sums, const N *a, const N *b, int64_t n);                                                                        \
  /* The share of a step's row, end - h, and the proximal one's, max(h + pull s - push, 0) - h. */                                       \
  void add_proximal_angle(Angle &sums, const N *h, const N *end, const N *s, int64_t n, N pull, N push);                                 \
  /* to = own to - pivot (made + sum_q factors[q step] rows_q), each a row as wide as a panel; `made` may be null. */                    \
  void substitute(N *to, N own, const N *made, const N *rows, const N *factors, int64_t step, int64_t count, N pivot);

WHITEBOX_STEPS(float)
WHITEBOX_STEPS(double)

#undef WHITEBOX_STEPS

WHITEBOX_KERNELS(float)
WHITEBOX_KERNELS(double)
WHITEBOX_KERNELS(Half)

#undef WHITEBOX_KERNELS

} // namespace kernels
