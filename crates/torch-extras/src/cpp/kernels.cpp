// See kernels.h. Plain loops that the compiler vectorises; `target_clones` has it do so for AVX-512, AVX2 and the baseline.

#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#if defined(__x86_64__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))

namespace kernels {
namespace {

// bf16 is handled as its 16 bits. Half may alias them: it is a struct of that one number.
using Bits = uint16_t;
template <typename S> using Stored = std::conditional_t<std::is_same_v<S, Half>, Bits, S>;

INLINE float get(float x) { return x; }
INLINE double get(double x) { return x; }
INLINE float get(Bits bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

// Rounds to the nearest, halves to even; what is no number stays none.
INLINE void set(float &to, float x) { to = x; }
INLINE void set(double &to, double x) { to = x; }
INLINE void set(Bits &to, float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to = static_cast<Bits>(x != x ? 0x7fc0 : rounded);
}

template <typename S, typename N> INLINE N inner(const S *a, const S *b, int64_t n) {
  N sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) sum += get(a[j]) * get(b[j]);
  return sum;
}

template <typename S, typename N> INLINE void scaled(S *to, const N *from, int64_t n, N factor) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) set(to[j], factor * from[j]);
}

template <typename S, typename N> INLINE void renorm(S *y, const S *x, int64_t n, const N *scale, const N *shift, N mean, N rstd) {
  if (scale == nullptr) {
#pragma omp simd
    for (int64_t j = 0; j < n; j++) set(y[j], (get(x[j]) - mean) * rstd);
  } else {
#pragma omp simd
    for (int64_t j = 0; j < n; j++) set(y[j], (get(x[j]) - mean) * rstd * scale[j] + shift[j]);
  }
}

template <typename S, typename N>
INLINE void norm(S *y, const S *x, int64_t n, N eps, const N *scale, const N *shift, N &mean, N &rstd) {
  N sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) sum += get(x[j]);
  const N m = sum / N(n);
#pragma omp simd reduction(+ : squares)
  for (int64_t j = 0; j < n; j++) squares += (get(x[j]) - m) * (get(x[j]) - m);
  mean = m;
  rstd = N(1) / std::sqrt(squares / N(n) + eps);
  renorm(y, x, n, scale, shift, mean, rstd);
}

template <typename S, typename N> INLINE void finish(S *to, const N *from, const N *bias, const S *residual, int64_t n, bool relu) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) {
    N value = from[j];
    if (bias != nullptr) value += bias[j];
    if (residual != nullptr) value += get(residual[j]);
    // Written so that what is no number stays none.
    set(to[j], relu && value < N(0) ? N(0) : value);
  }
}

template <typename S> INLINE void mask(S *to, const S *g, const S *out, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) to[j] = get(out[j]) > 0 ? g[j] : S(0);
}

template <typename S> INLINE Stored<S> *raw(S *p) { return reinterpret_cast<Stored<S> *>(p); }
template <typename S> INLINE const Stored<S> *raw(const S *p) { return reinterpret_cast<const Stored<S> *>(p); }

// By elimination, four columns at a time, so that an entry is read and written once for four of its updates.
INLINE double eliminated(double *m, int64_t n, int64_t row, double *columns) {
  double sum = 0;
  for (int64_t start = 0; start < n; start += 4) {
    const int64_t end = std::min(start + 4, n);
    double shares[4] = {};
    for (int64_t k = start; k < end; k++) {
      double *column = columns + (k - start) * n;
      for (int64_t i = k; i < n; i++) column[i] = m[i * row + k];
      // What the ones before it in this group take away.
      for (int64_t e = start; e < k; e++) {
        const double *earlier = columns + (e - start) * n, factor = earlier[k] * shares[e - start];
#pragma omp simd
        for (int64_t i = k; i < n; i++) column[i] -= factor * earlier[i];
      }
      sum += std::log(column[k]);
      shares[k - start] = 1 / column[k];
    }
    if (end - start < 4) break;
    const double *a = columns, *b = a + n, *c = b + n, *d = c + n;
    for (int64_t i = end; i < n; i++) {
      const double fa = a[i] * shares[0], fb = b[i] * shares[1], fc = c[i] * shares[2], fd = d[i] * shares[3];
      double *at = m + i * row;
#pragma omp simd
      for (int64_t j = end; j <= i; j++) at[j] -= (fa * a[j] + fb * b[j]) + (fc * c[j] + fd * d[j]);
    }
  }
  return sum;
}

} // namespace

CLONES double log_det(double *m, int64_t n, int64_t row, double *columns) { return eliminated(m, n, row, columns); }

#define KERNELS(S, N)                                                                                                                    \
  CLONES N dot(const S *a, const S *b, int64_t n) { return inner<Stored<S>, N>(raw(a), raw(b), n); }                                     \
  CLONES void scale_row(S *to, const N *from, int64_t n, N factor) { scaled(raw(to), from, n, factor); }                                 \
  CLONES void norm_row(S *y, const S *x, int64_t n, N eps, const N *scale, const N *shift, N &mean, N &rstd) {                           \
    norm(raw(y), raw(x), n, eps, scale, shift, mean, rstd);                                                                              \
  }                                                                                                                                      \
  CLONES void finish_row(S *to, const N *from, const N *bias, const S *residual, int64_t n, bool relu) {                                 \
    finish(raw(to), from, bias, raw(residual), n, relu);                                                                                 \
  }                                                                                                                                      \
  CLONES void mask_row(S *to, const S *g, const S *out, int64_t n) { mask(raw(to), raw(g), raw(out), n); }

KERNELS(float, float)
KERNELS(double, double)
KERNELS(Half, float)

} // namespace kernels
