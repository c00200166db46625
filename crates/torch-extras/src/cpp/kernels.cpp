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

template <typename S> INLINE void mask(S *to, const S *g, const S *out, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) to[j] = get(out[j]) > 0 ? g[j] : S(0);
}

template <typename S> INLINE void counted_positive(int64_t *counts, const S *x, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) counts[j] += get(x[j]) > 0;
}

// Some thousand at a time, so that counting takes the width of the numbers.
template <typename S> INLINE int64_t counted_nonzero(const S *x, int64_t n) {
  int64_t count = 0;
  for (int64_t first = 0; first < n; first += 4096) {
    int32_t some = 0;
    const int64_t last = std::min(n, first + 4096);
#pragma omp simd reduction(+ : some)
    for (int64_t j = first; j < last; j++) some += get(x[j]) != 0;
    count += some;
  }
  return count;
}

template <typename S> INLINE Stored<S> *raw(S *p) { return reinterpret_cast<Stored<S> *>(p); }
template <typename S> INLINE const Stored<S> *raw(const S *p) { return reinterpret_cast<const Stored<S> *>(p); }

template <typename S, typename T> INLINE void inverted_norm(const S *x, int64_t n, T &inverse) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) sum += T(get(x[j])) * T(get(x[j]));
  // Not max(): what is no number must stay none.
  const T norm = std::sqrt(sum);
  inverse = 1 / (norm < T(NORM_FLOOR) ? T(NORM_FLOOR) : norm);
}

template <typename S, typename T> INLINE T scaled_into(T *to, const S *x, int64_t n, T factor) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) to[j] = factor * T(get(x[j])), sum += std::abs(to[j]);
  return sum;
}

template <typename N> INLINE void added_angle(Angle &sums, const N *a, const N *b, int64_t n) {
  N dot = 0, first = 0, second = 0;
#pragma omp simd reduction(+ : dot, first, second)
  for (int64_t j = 0; j < n; j++) dot += a[j] * b[j], first += a[j] * a[j], second += b[j] * b[j];
  sums.dot += dot, sums.a += first, sums.b += second;
}

template <typename N> INLINE void added_proximal_angle(Angle &sums, const N *h, const N *end, const N *s, int64_t n, N pull, N push) {
  N dot = 0, first = 0, second = 0;
#pragma omp simd reduction(+ : dot, first, second)
  for (int64_t j = 0; j < n; j++) {
    const N reached = h[j] + pull * s[j] - push, step = (reached < 0 ? N(0) : reached) - h[j], taken = end[j] - h[j];
    dot += taken * step, first += taken * taken, second += step * step;
  }
  sums.dot += dot, sums.a += first, sums.b += second;
}

template <typename N>
INLINE void centred(N *to, N *mean, const N *w, int64_t n, int64_t p, int64_t row, bool by_tokens, double *e, double *f) {
  std::fill_n(mean, p, N(0));
  for (int64_t i = 0; i < n; i++) {
#pragma omp simd
    for (int64_t j = 0; j < p; j++) mean[j] += w[i * row + j];
  }
#pragma omp simd
  for (int64_t j = 0; j < p; j++) mean[j] /= N(n);
  double square = 0;
#pragma omp simd reduction(+ : square)
  for (int64_t j = 0; j < p; j++) square += double(mean[j]) * double(mean[j]);
  if (!by_tokens) {
#pragma omp simd
    for (int64_t j = 0; j < p; j++) e[j] = mean[j], f[j] = double(n) / 2 * mean[j];
  }
  for (int64_t i = 0; i < n; i++) {
    N *y = to + i * p;
    double cross = 0;
#pragma omp simd reduction(+ : cross)
    for (int64_t j = 0; j < p; j++) y[j] = w[i * row + j] - mean[j], cross += double(mean[j]) * double(y[j]);
    if (by_tokens) {
      e[i] = 1, f[i] = cross + square / 2;
    } else {
#pragma omp simd
      for (int64_t j = 0; j < p; j++) f[j] += y[j];
    }
  }
}

template <typename N>
INLINE void completed(double *m, int64_t m_row, const N *gram, int64_t row, int64_t side, const double *e, const double *f, double gamma) {
  for (int64_t i = 0; i < side; i++) {
    double *to = m + i * m_row;
#pragma omp simd
    for (int64_t j = 0; j <= i; j++) to[j] = gamma * (gram[i * row + j] + (e[i] * f[j] + f[i] * e[j]));
    to[i] += 1;
  }
}

template <typename N> INLINE void substituted(N *to, N own, const N *made, const N *rows, const N *factors, int64_t step, int64_t count, N pivot) {
  constexpr int64_t width = 128 / sizeof(N);
  N sum[width] = {};
  if (made != nullptr) std::copy_n(made, width, sum);
  for (int64_t q = 0; q < count; q++) {
    const N factor = factors[q * step];
#pragma omp simd
    for (int64_t j = 0; j < width; j++) sum[j] += factor * rows[q * width + j];
  }
#pragma omp simd
  for (int64_t j = 0; j < width; j++) to[j] = own * to[j] - pivot * sum[j];
}

// Takes eight columns' shares, which lie as rows of D L^T, from rows `first` to `last` of what is left of the diagonal. With ROWS rows at a time a column's number
// is read once for all of them; beyond the diagonal numbers come to be that are overwritten before anybody reads them.
template <int ROWS> INLINE void take_shares(double *m, int64_t row, const double *columns, const double *shares, int64_t first, int64_t last, int64_t end) {
  constexpr int COLUMNS = 8;
  for (int64_t i = first; i + ROWS <= last; i += ROWS) {
    double f[ROWS][COLUMNS];
    for (int r = 0; r < ROWS; r++)
      for (int e = 0; e < COLUMNS; e++) f[r][e] = columns[e * row + i + r] * shares[e];
    double *at = m + i * row;
#pragma omp simd
    for (int64_t j = end; j < i + ROWS; j++) {
      double column[COLUMNS], sum[ROWS];
#pragma GCC unroll 8
      for (int e = 0; e < COLUMNS; e++) column[e] = columns[e * row + j];
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; r++) {
        sum[r] = at[r * row + j];
#pragma GCC unroll 8
        for (int e = 0; e < COLUMNS; e++) sum[r] -= f[r][e] * column[e];
      }
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; r++) at[r * row + j] = sum[r];
    }
  }
}

// By elimination, eight columns at a time, so that an entry is read and written once for eight of its updates.
INLINE double eliminated(double *m, int64_t n, int64_t row) {
  constexpr int64_t COLUMNS = 8, ROWS = 4;
  double sum = 0;
  for (int64_t start = 0; start < n; start += COLUMNS) {
    const int64_t end = std::min(start + COLUMNS, n);
    double shares[COLUMNS] = {};
    for (int64_t k = start; k < end; k++) {
      double *column = m + k * row;
      for (int64_t i = k + 1; i < n; i++) column[i] = m[i * row + k];
      // What the ones before it in this group take away.
      for (int64_t e = start; e < k; e++) {
        const double *earlier = m + e * row, factor = earlier[k] * shares[e - start];
#pragma omp simd
        for (int64_t i = k; i < n; i++) column[i] -= factor * earlier[i];
      }
      sum += std::log(column[k]);
      shares[k - start] = 1 / column[k];
    }
    if (end == n) break;
    const int64_t whole = end + (n - end) / ROWS * ROWS;
    take_shares<ROWS>(m, row, m + start * row, shares, end, whole, end);
    take_shares<1>(m, row, m + start * row, shares, whole, n, end);
  }
  return sum;
}

} // namespace

CLONES double log_det(double *m, int64_t n, int64_t row) { return eliminated(m, n, row); }


#define KERNELS(S)                                                                                                                       \
  CLONES void mask_row(S *to, const S *g, const S *out, int64_t n) { mask(raw(to), raw(g), raw(out), n); }                               \
  CLONES void count_positive(int64_t *counts, const S *x, int64_t n) { counted_positive(counts, raw(x), n); }                            \
  CLONES int64_t nonzero(const S *x, int64_t n) { return counted_nonzero(raw(x), n); }

KERNELS(float)
KERNELS(double)
KERNELS(Half)

#define CONVERSIONS(S, T)                                                                                                                \
  CLONES void inverse_norm(const S *x, int64_t n, T &inverse) { inverted_norm(raw(x), n, inverse); }                                     \
  CLONES T scale_into(T *to, const S *x, int64_t n, T factor) { return scaled_into(to, raw(x), n, factor); }

CONVERSIONS(float, float)
CONVERSIONS(float, double)
CONVERSIONS(double, double)
CONVERSIONS(Half, float)
CONVERSIONS(Half, double)

#define STEPS(N)                                                                                                                         \
  CLONES void centre(N *to, N *mean, const N *w, int64_t n, int64_t p, int64_t row, bool by_tokens, double *e, double *f) {              \
    centred(to, mean, w, n, p, row, by_tokens, e, f);                                                                                    \
  }                                                                                                                                      \
  CLONES void complete(double *m, int64_t m_row, const N *gram, int64_t row, int64_t side, const double *e, const double *f, double gamma) { \
    completed(m, m_row, gram, row, side, e, f, gamma);                                                                                   \
  }                                                                                                                                      \
  CLONES void add_angle(Angle &sums, const N *a, const N *b, int64_t n) { added_angle(sums, a, b, n); }                                  \
  CLONES void add_proximal_angle(Angle &sums, const N *h, const N *end, const N *s, int64_t n, N pull, N push) {                         \
    added_proximal_angle(sums, h, end, s, n, pull, push);                                                                                \
  }                                                                                                                                      \
  CLONES void substitute(N *to, N own, const N *made, const N *rows, const N *factors, int64_t step, int64_t count, N pivot) {           \
    substituted(to, own, made, rows, factors, step, count, pivot);                                                                       \
  }

STEPS(float)
STEPS(double)

} // namespace kernels
