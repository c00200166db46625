// See kernels.h. Plain loops that the compiler vectorises; `target_clones` has it do so for AVX-512, AVX2 and the baseline.

#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))

namespace kernels {
namespace {

// e^x for x <= 0 up to rounding: 2^k times a polynomial of the rest, |rest| <= ln(2)/2. Below -87 it is 0 in effect.
INLINE float exp_of(float x) {
  x = x < -87.0f ? -87.0f : x;
  const float k = __builtin_rintf(x * 1.44269504088896341f);
  float r = x - k * 0.693359375f;
  r = r - k * -2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(k) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return y * power;
}

INLINE double exp_of(double x) { return std::exp(x); }

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

template <typename S, typename N> INLINE N exponentials(S *row, int64_t n, N scale, N &inverse) {
  N top = get(row[0]);
#pragma omp simd reduction(max : top)
  for (int64_t j = 0; j < n; j++) top = get(row[j]) > top ? get(row[j]) : top;
  N sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) {
    const N e = exp_of(scale * (get(row[j]) - top));
    set(row[j], e);
    sum += e;
  }
  inverse = N(1) / sum;
  return scale * top + std::log(sum);
}

template <typename S, typename N> INLINE N inner(const S *a, const S *b, int64_t n) {
  N sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) sum += get(a[j]) * get(b[j]);
  return sum;
}

template <typename S, typename N> INLINE void attention_gradient(S *s, S *c, int64_t n, N scale, N lse, N delta) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) {
    const N a = exp_of(scale * get(s[j]) - lse);
    const N q = scale * a * (get(c[j]) - delta);
    set(s[j], q);
    set(c[j], a);
  }
}

// Square tiles, so that the transposed side is read in whole cache lines.
constexpr int64_t TILE = 16;

template <typename S> INLINE void symmetric_sum(S *q, int64_t n) {
  for (int64_t i0 = 0; i0 < n; i0 += TILE) {
    const int64_t i1 = std::min(n, i0 + TILE);
    for (int64_t j0 = 0; j0 <= i0; j0 += TILE) {
      const int64_t j1 = std::min(n, j0 + TILE);
      S turned[TILE * TILE];
      for (int64_t j = j0; j < j1; j++)
        for (int64_t i = i0; i < i1; i++) turned[(i - i0) * TILE + j - j0] = q[j * n + i];
      for (int64_t i = i0; i < i1; i++) {
        S *row = q + i * n + j0, *turn = turned + (i - i0) * TILE;
#pragma omp simd
        for (int64_t j = 0; j < j1 - j0; j++) set(turn[j], get(turn[j]) + get(row[j]));
      }
      for (int64_t i = i0; i < i1; i++) std::memcpy(q + i * n + j0, turned + (i - i0) * TILE, (j1 - j0) * sizeof(S));
      if (i0 == j0) continue;
      for (int64_t j = j0; j < j1; j++)
        for (int64_t i = i0; i < i1; i++) q[j * n + i] = turned[(i - i0) * TILE + j - j0];
    }
  }
}

template <typename S, typename N> INLINE void scaled(S *to, const S *from, int64_t n, N factor) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) set(to[j], factor * get(from[j]));
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

template <typename S, typename N>
INLINE void norm_gradient(S *dx, const S *dy, const S *x, const S *add, int64_t n, const N *scale, N mean, N rstd, N *by_scale, N *by_shift,
                          N *total) {
  N first = 0, second = 0;
#pragma omp simd reduction(+ : first, second)
  for (int64_t j = 0; j < n; j++) {
    const N g = get(dy[j]), hat = (get(x[j]) - mean) * rstd;
    first += g * scale[j];
    second += g * scale[j] * hat;
    by_scale[j] += g * hat;
    by_shift[j] += g;
  }
  first /= N(n), second /= N(n);
#pragma omp simd
  for (int64_t j = 0; j < n; j++) {
    const N hat = (get(x[j]) - mean) * rstd;
    N value = rstd * (get(dy[j]) * scale[j] - first - hat * second);
    if (add != nullptr) value += get(add[j]);
    total[j] += value;
    set(dx[j], value);
  }
}

template <typename S, typename N> INLINE void finish(S *to, const S *from, const N *bias, const S *residual, int64_t n, bool relu) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) {
    N value = get(from[j]);
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

} // namespace

#define KERNELS(S, N)                                                                                                                    \
  CLONES N exp_row(S *row, int64_t n, N scale, N &inverse) { return exponentials(raw(row), n, scale, inverse); }                         \
  CLONES N dot(const S *a, const S *b, int64_t n) { return inner<Stored<S>, N>(raw(a), raw(b), n); }                                     \
  CLONES void attention_gradient_row(S *s, S *c, int64_t n, N scale, N lse, N delta) {                                                   \
    attention_gradient(raw(s), raw(c), n, scale, lse, delta);                                                                            \
  }                                                                                                                                      \
  CLONES void add_transpose(S *q, int64_t n) { symmetric_sum(raw(q), n); }                                                               \
  CLONES void scale_row(S *to, const S *from, int64_t n, N factor) { scaled(raw(to), raw(from), n, factor); }                            \
  CLONES void norm_row(S *y, const S *x, int64_t n, N eps, const N *scale, const N *shift, N &mean, N &rstd) {                           \
    norm(raw(y), raw(x), n, eps, scale, shift, mean, rstd);                                                                              \
  }                                                                                                                                      \
  CLONES void renorm_row(S *y, const S *x, int64_t n, const N *scale, const N *shift, N mean, N rstd) {                                  \
    renorm(raw(y), raw(x), n, scale, shift, mean, rstd);                                                                                 \
  }                                                                                                                                      \
  CLONES void norm_gradient_row(S *dx, const S *dy, const S *x, const S *add, int64_t n, const N *scale, N mean, N rstd, N *by_scale,    \
                                N *by_shift, N *sum) {                                                                                   \
    norm_gradient(raw(dx), raw(dy), raw(x), raw(add), n, scale, mean, rstd, by_scale, by_shift, sum);                                    \
  }                                                                                                                                      \
  CLONES void finish_row(S *to, const S *from, const N *bias, const S *residual, int64_t n, bool relu) {                                 \
    finish(raw(to), raw(from), bias, raw(residual), n, relu);                                                                            \
  }                                                                                                                                      \
  CLONES void mask_row(S *to, const S *g, const S *out, int64_t n) { mask(raw(to), raw(g), raw(out), n); }

KERNELS(float, float)
KERNELS(double, double)
KERNELS(Half, float)

} // namespace kernels
