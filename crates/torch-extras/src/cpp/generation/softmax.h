// Softmax of scores, and its gradient.

// The least number beyond the first `count`.
template <typename V> INLINE V at_most(V v, int64_t count) {
  using N = std::decay_t<decltype(v[0])>;
  typename Lanes<N>::index number;
#pragma GCC unroll 16
  for (int i = 0; i < LANES<N>; i++) number[i] = i;
  return number < typename Lanes<N>::index{} + static_cast<std::decay_t<decltype(number[0])>>(count) ? v : V{} + std::numeric_limits<N>::lowest();
}

// Its coefficients begin with that of the highest power.
template <size_t COUNT> INLINE Vector<float> polynomial(Vector<float> r, const float (&coefficients)[COUNT]) {
  Vector<float> y = Vector<float>{} + coefficients[0];
#pragma GCC unroll 8
  for (size_t i = 1; i < COUNT; i++) y = y * r + coefficients[i];
  return y;
}

// 2^x for x <= 0, for results that are stored as S: a power times a polynomial of the rest. Up to rounding; in bf16, which keeps 8 bits, up to 3e-6.
#if BYTES == 64
template <typename S> INLINE Vector<float> exp2_of(Vector<float> x) {
  // The rest is what is above the next lower integer, and the power is that of the latter.
  Vector<float> r, y;
  asm("vreduceps $1, %1, %0" : "=v"(r) : "v"(x));
  if constexpr (std::is_same_v<S, Half>) y = polynomial(r, {1.34266857e-2f, 5.22424728e-2f, 2.41280213e-1f, 6.93044841e-1f, 1.0f});
  else y = polynomial(r, {2.16129163e-4f, 1.24678458e-3f, 9.67545155e-3f, 5.54852821e-2f, 2.40229309e-1f, 6.93147063e-1f, 1.0f});
  asm("vscalefps %1, %0, %0" : "+v"(y) : "v"(x));
  return y;
}
#else
template <typename S> INLINE Vector<float> exp2_of(Vector<float> x) {
  // |rest| <= 1/2. Below -126 it is 0 in effect.
  const Vector<float> least = Vector<float>{} - 126.0f;
  x = x < least ? least : x;
  // Added to this, a number is rounded to an integer, which then stands in the last bits.
  constexpr float round = 12582912.0f;
  const Vector<float> rounded = x + round, r = x - (rounded - round);
  const Vector<float> y = polynomial(r, {1.5353362e-4f, 1.3398874e-3f, 9.6184373e-3f, 5.5503324e-2f, 2.4022648e-1f, 6.9314720e-1f, 1.0f});
  return (Vector<float>)((Words)y + ((Words)rounded << 23));
}
#endif

template <typename S> INLINE Vector<double> exp2_of(Vector<double> x) {
  for (int i = 0; i < LANES<double>; i++) x[i] = std::exp2(x[i]);
  return x;
}

template <typename How, typename S, typename N> N exp_row(S *map, N *scores, int64_t n, N scale, N &inverse) {
  constexpr int64_t lanes = LANES<N>;
  // Of the last vector some numbers mean nothing.
  const int64_t whole = (n - 1) / lanes * lanes;
  const Vector<N> last = at_most(load(scores + whole), n - whole);
  Vector<N> tops = last;
  for (int64_t j = 0; j < whole; j += lanes) tops = Larger::of(load(scores + j), tops);
  const N top = fold<N, Larger>(tops), binary = scale * N(LOG2_E);
  const auto power = [&](int64_t j, Vector<N> x) __attribute__((always_inline)) {
    const Vector<N> e = exp2_of<S>(binary * (x - top));
    How::put(map + j, e);
    return e;
  };
  Vector<N> sums = {};
  for (int64_t j = 0; j < whole; j += lanes) sums += power(j, load(scores + j));
  sums += power(whole, last);
  const N sum = fold<N, Sum>(sums);
  inverse = N(1) / sum;
  return scale * top + std::log(sum);
}

template <typename How, typename S, typename N>
void attention_gradient_row(S *q, S *a, const N *s, const N *c, int64_t n, N scale, N lse, N delta) {
  constexpr int64_t lanes = LANES<N>;
  const N binary = scale * N(LOG2_E), level = lse * N(LOG2_E);
  for (int64_t j = 0; j < n; j += lanes) {
    const Vector<N> map = exp2_of<S>(binary * load(s + j) - level);
    How::put(q + j, scale * map * (load(c + j) - delta));
    How::put(a + j, map);
  }
}
