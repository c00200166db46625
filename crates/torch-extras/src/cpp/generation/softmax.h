// Softmax of scores, and its gradient.

// 2^x for x <= 0 up to rounding: a power times a polynomial of the rest, |rest| <= 1/2. Below -126 it is 0 in effect.
INLINE Vector<float> exp2_of(Vector<float> x) {
  const Vector<float> least = Vector<float>{} - 126.0f;
  x = x < least ? least : x;
  // Added to this, a number is rounded to an integer, which then stands in the last bits.
  constexpr float round = 12582912.0f;
  const Vector<float> rounded = x + round, r = x - (rounded - round);
  Vector<float> y = Vector<float>{} + 1.5353362e-4f;
  y = y * r + 1.3398874e-3f;
  y = y * r + 9.6184373e-3f;
  y = y * r + 5.5503324e-2f;
  y = y * r + 2.4022648e-1f;
  y = y * r + 6.9314720e-1f;
  y = y * r + 1.0f;
  return (Vector<float>)((Words)y + ((Words)rounded << 23));
}

INLINE Vector<double> exp2_of(Vector<double> x) {
  for (int i = 0; i < LANES<double>; i++) x[i] = std::exp2(x[i]);
  return x;
}

template <typename How, typename S, typename N> N exp_row(S *map, N *scores, int64_t n, N scale, N &inverse) {
  constexpr int64_t lanes = LANES<N>;
  for (int64_t j = n; j < (n + lanes - 1) / lanes * lanes; j++) scores[j] = std::numeric_limits<N>::lowest();
  Vector<N> tops = load(scores);
  for (int64_t j = lanes; j < n; j += lanes) tops = Larger::of(load(scores + j), tops);
  const N top = fold<N, Larger>(tops), binary = scale * N(LOG2_E);
  Vector<N> sums = {};
  for (int64_t j = 0; j < n; j += lanes) {
    const Vector<N> e = exp2_of(binary * (load(scores + j) - top));
    How::put(map + j, e);
    sums += e;
  }
  const N sum = fold<N, Sum>(sums);
  inverse = N(1) / sum;
  return scale * top + std::log(sum);
}

template <typename How, typename S, typename N>
void attention_gradient_row(S *q, S *a, const N *s, const N *c, int64_t n, N scale, N lse, N delta) {
  constexpr int64_t lanes = LANES<N>;
  const N binary = scale * N(LOG2_E), level = lse * N(LOG2_E);
  for (int64_t j = 0; j < n; j += lanes) {
    const Vector<N> map = exp2_of(binary * load(s + j) - level);
    How::put(q + j, scale * map * (load(c + j) - delta));
    How::put(a + j, map);
  }
}
