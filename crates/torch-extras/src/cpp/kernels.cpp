// See kernels.h. Plain loops that the compiler vectorises; `target_clones` has it do so for AVX-512, AVX2 and the baseline.

#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define INLINE static inline __attribute__((always_inline))

namespace kernels {
namespace {

using Half = c10::BFloat16;

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

INLINE float widen(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

// Round to nearest even; no NaN comes here that did not come in.
INLINE uint16_t narrow(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <typename T> INLINE T exponentials(T *row, int64_t n, T scale, T &inverse) {
  T top = row[0];
#pragma omp simd reduction(max : top)
  for (int64_t j = 0; j < n; j++) top = row[j] > top ? row[j] : top;
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) {
    const T e = exp_of(scale * (row[j] - top));
    row[j] = e;
    sum += e;
  }
  inverse = T(1) / sum;
  return scale * top + std::log(sum);
}

template <typename T> INLINE T inner(const T *a, const T *b, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) sum += a[j] * b[j];
  return sum;
}

template <typename T> INLINE void gradient_row(T *s, T *c, int64_t n, T scale, T lse, T delta) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) {
    const T a = exp_of(scale * s[j] - lse);
    s[j] = a;
    c[j] = scale * a * (c[j] - delta);
  }
}

// Square tiles, so that the transposed side is read in whole cache lines.
constexpr int64_t TILE = 16;

template <typename T> INLINE void add_transpose_of(T *q, int64_t n, int64_t ld) {
  for (int64_t i0 = 0; i0 < n; i0 += TILE) {
    const int64_t i1 = std::min(n, i0 + TILE);
    for (int64_t j0 = 0; j0 <= i0; j0 += TILE) {
      const int64_t j1 = std::min(n, j0 + TILE);
      T turned[TILE * TILE];
      for (int64_t j = j0; j < j1; j++)
        for (int64_t i = i0; i < i1; i++) turned[(i - i0) * TILE + j - j0] = q[j * ld + i];
      for (int64_t i = i0; i < i1; i++) {
        T *row = q + i * ld;
#pragma omp simd
        for (int64_t j = j0; j < j1; j++) turned[(i - i0) * TILE + j - j0] += row[j];
      }
      for (int64_t i = i0; i < i1; i++) std::memcpy(q + i * ld + j0, turned + (i - i0) * TILE, (j1 - j0) * sizeof(T));
      if (i0 == j0) continue;
      for (int64_t j = j0; j < j1; j++)
        for (int64_t i = i0; i < i1; i++) q[j * ld + i] = turned[(i - i0) * TILE + j - j0];
    }
  }
}

} // namespace

CLONES float exp_row(float *row, int64_t n, float scale, float &inverse) { return exponentials(row, n, scale, inverse); }
CLONES double exp_row(double *row, int64_t n, double scale, double &inverse) { return exponentials(row, n, scale, inverse); }

CLONES float exp_row(Half *half, int64_t n, float scale, float &inverse) {
  auto *row = reinterpret_cast<uint16_t *>(half);
  float top = widen(row[0]);
#pragma omp simd reduction(max : top)
  for (int64_t j = 0; j < n; j++) {
    const float x = widen(row[j]);
    top = x > top ? x : top;
  }
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) {
    const float e = exp_of(scale * (widen(row[j]) - top));
    row[j] = narrow(e);
    sum += e;
  }
  inverse = 1.0f / sum;
  return scale * top + std::log(sum);
}

CLONES float dot(const float *a, const float *b, int64_t n) { return inner(a, b, n); }
CLONES double dot(const double *a, const double *b, int64_t n) { return inner(a, b, n); }

CLONES float dot(const Half *a, const Half *b, int64_t n) {
  const auto *x = reinterpret_cast<const uint16_t *>(a), *y = reinterpret_cast<const uint16_t *>(b);
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) sum += widen(x[j]) * widen(y[j]);
  return sum;
}

CLONES void attention_row_gradient(float *s, float *c, int64_t n, float scale, float lse, float delta) {
  gradient_row(s, c, n, scale, lse, delta);
}
CLONES void attention_row_gradient(double *s, double *c, int64_t n, double scale, double lse, double delta) {
  gradient_row(s, c, n, scale, lse, delta);
}
CLONES void attention_row_gradient(Half *s, Half *c, int64_t n, float scale, float lse, float delta) {
  auto *x = reinterpret_cast<uint16_t *>(s), *y = reinterpret_cast<uint16_t *>(c);
#pragma omp simd
  for (int64_t j = 0; j < n; j++) {
    const float a = exp_of(scale * widen(x[j]) - lse);
    const float q = scale * a * (widen(y[j]) - delta);
    x[j] = narrow(q);
    y[j] = narrow(a);
  }
}

CLONES void add_transpose(float *q, int64_t n, int64_t ld) { add_transpose_of(q, n, ld); }
CLONES void add_transpose(double *q, int64_t n, int64_t ld) { add_transpose_of(q, n, ld); }
CLONES void add_transpose(Half *half, int64_t n, int64_t ld) {
  auto *q = reinterpret_cast<uint16_t *>(half);
  for (int64_t i0 = 0; i0 < n; i0 += TILE) {
    const int64_t i1 = std::min(n, i0 + TILE);
    for (int64_t j0 = 0; j0 <= i0; j0 += TILE) {
      const int64_t j1 = std::min(n, j0 + TILE);
      uint16_t turned[TILE * TILE];
      for (int64_t j = j0; j < j1; j++)
        for (int64_t i = i0; i < i1; i++) turned[(i - i0) * TILE + j - j0] = q[j * ld + i];
      for (int64_t i = i0; i < i1; i++) {
        uint16_t *row = q + i * ld, *turn = turned + (i - i0) * TILE - j0;
#pragma omp simd
        for (int64_t j = j0; j < j1; j++) turn[j] = narrow(widen(turn[j]) + widen(row[j]));
      }
      for (int64_t i = i0; i < i1; i++) std::memcpy(q + i * ld + j0, turned + (i - i0) * TILE, (j1 - j0) * sizeof(uint16_t));
      if (i0 == j0) continue;
      for (int64_t j = j0; j < j1; j++)
        for (int64_t i = i0; i < i1; i++) q[j * ld + i] = turned[(i - i0) * TILE + j - j0];
    }
  }
}

template <typename T> INLINE void scaled(T *to, const T *from, int64_t n, T factor) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) to[j] = factor * from[j];
}

CLONES void scaled_copy(float *to, const float *from, int64_t n, float factor) { scaled(to, from, n, factor); }
CLONES void scaled_copy(double *to, const double *from, int64_t n, double factor) { scaled(to, from, n, factor); }
CLONES void scaled_copy(Half *to, const Half *from, int64_t n, float factor) {
  auto *y = reinterpret_cast<uint16_t *>(to);
  const auto *x = reinterpret_cast<const uint16_t *>(from);
#pragma omp simd
  for (int64_t j = 0; j < n; j++) y[j] = narrow(factor * widen(x[j]));
}

} // namespace kernels
