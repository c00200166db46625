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

// 2^x for x <= 0, for results that are stored as S: a power times a polynomial of the rest. Up to rounding; for bf16, which rounds by up to 2e-3, up to 8e-5.
#if BYTES == 64
template <typename S> INLINE Vector<float> exp2_of(Vector<float> x) {
  // The rest is what is above the next lower integer, and the power is that of the latter.
  Vector<float> r, y;
  asm("vreduceps $1, %1, %0" : "=v"(r) : "v"(x));
  if constexpr (std::is_same_v<S, Half>) y = polynomial(r, {7.80245227e-2f, 2.26067155e-1f, 6.95833541e-1f, 9.99925219e-1f});
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

// Calls `work(j, chain)` for every whole vector of `whole` numbers, the chains of sums in turn: an addition waits for the last one of its chain.
template <typename N, typename Work> INLINE void over_two(int64_t whole, Work &&work) {
  constexpr int64_t lanes = LANES<N>;
  int64_t j = 0;
  for (; j + 2 * lanes <= whole; j += 2 * lanes) work(j, 0), work(j + lanes, 1);
  if (j < whole) work(j, 0);
}

template <typename How, typename S, typename N> N exp_row(S *map, N *scores, int64_t n, N scale, N &sum) {
  constexpr int64_t lanes = LANES<N>;
  // Of the last vector some numbers mean nothing.
  const int64_t whole = (n - 1) / lanes * lanes;
  const Vector<N> last = at_most(load(scores + whole), n - whole);
  Vector<N> tops[2] = {last, last};
  over_two<N>(whole, [&](int64_t j, int chain) __attribute__((always_inline)) { tops[chain] = Larger::of(load(scores + j), tops[chain]); });
  const N top = fold<N, Larger>(Larger::of(tops[0], tops[1])), binary = scale * N(LOG2_E), level = binary * top;
  const auto power = [&](int64_t j, Vector<N> x) __attribute__((always_inline)) {
    const Vector<N> e = exp2_of<S>(binary * x - level);
    How::put(map + j, e);
    return e;
  };
  Vector<N> sums[2] = {};
  over_two<N>(whole, [&](int64_t j, int chain) __attribute__((always_inline)) { sums[chain] += power(j, load(scores + j)); });
  sums[0] += power(whole, last);
  sum = fold<N, Sum>(sums[0] + sums[1]);
  return scale * top;
}

// The natural logarithm of normal numbers above zero, up to rounding: x = 2^e (1 + r), where r is between sqrt(1/2) - 1 and sqrt(2) - 1.
INLINE Vector<float> log_of(Vector<float> x) {
  typedef int32_t Bits __attribute__((vector_size(BYTES)));
  constexpr int32_t least = 0x3f3504f3, fraction = 23;
  const Bits power = ((Bits)x - least) >> fraction;
  const Vector<float> r = (Vector<float>)((Bits)x - (power << fraction)) - 1.0f, e = __builtin_convertvector(power, Vector<float>);
  const Vector<float> rest = polynomial(r, {8.65427512e-2f, -1.42544762e-1f, 1.49258829e-1f, -1.65798135e-1f, 1.99621322e-1f, -2.50012445e-1f, 3.33339373e-1f});
  // ln 2 in two parts, of which e takes the first exactly.
  const Vector<float> log = (r + (r * r * (r * rest - 0.5f) + e * -2.12194440e-4f)) + e * 0.693359375f;
  // What is infinite or no number stays so.
  return x < std::numeric_limits<float>::infinity() ? log : x;
}
INLINE Vector<double> log_of(Vector<double> x) {
  for (int i = 0; i < LANES<double>; i++) x[i] = std::log(x[i]);
  return x;
}

template <typename N> void finish_sums(N *logarithms, N *sums, int64_t n) {
  using How = Single<N>;
  over_vectors<N>(n, [&](int64_t j, auto count) __attribute__((always_inline)) {
    const Vector<N> sum = some<How>(sums + j, count);
    put_some<How>(logarithms + j, some<How>(logarithms + j, count) + log_of(sum), count);
    put_some<How>(sums + j, N(1) / sum, count);
  });
}

template <typename How, typename S, typename N>
void attention_gradient_row(S *q, S *a, const N *s, const N *c, int64_t n, N scale, N lse, N delta) {
  constexpr int64_t lanes = LANES<N>;
  const N binary = scale * N(LOG2_E), level = lse * N(LOG2_E), pull = scale * delta;
  for (int64_t j = 0; j < n; j += lanes) {
    const Vector<N> map = exp2_of<S>(binary * load(s + j) - level);
    How::put(q + j, map * (scale * load(c + j) - pull));
    How::put(a + j, map);
  }
}
