// Vectors of rows, and what stands behind a product.

// A whole vector is at hand, not only some numbers of one.
struct Whole {};

template <typename How, typename S> INLINE auto some(const S *p, Whole) { return How::get(p); }
template <typename How, typename S, typename V> INLINE void put_some(S *p, V v, Whole) { How::put(p, v); }

// Less than a vector of numbers, zero behind them.
template <typename How, typename S> INLINE auto some(const S *p, int64_t count) {
  S numbers[LANES<Number<S>>] = {};
  for (int64_t i = 0; i < count; i++) numbers[i] = p[i];
  return How::get(numbers);
}
template <typename How, typename S, typename V> INLINE void put_some(S *p, V v, int64_t count) {
  S numbers[LANES<Number<S>>];
  How::put(numbers, v);
  for (int64_t i = 0; i < count; i++) p[i] = numbers[i];
}

// Zero beyond the first `count` numbers.
template <typename V> INLINE V up_to(V v, Whole) { return v; }
template <typename V> INLINE V up_to(V v, int64_t count) {
  for (int64_t i = count; i < int64_t(sizeof(V) / sizeof(v[0])); i++) v[i] = 0;
  return v;
}

// Calls `work` with the beginning of every vector of n numbers and how many there are of it.
template <typename N, typename Work> INLINE void over_vectors(int64_t n, Work &&work) {
  int64_t j = 0;
  for (; j + LANES<N> <= n; j += LANES<N>) work(j, Whole{});
  if (j < n) work(j, n - j);
}

template <typename How, typename S, typename N> N dot(const S *a, const S *b, int64_t n) {
  Vector<N> sum = {};
#if BYTES == 64
  // Two by two, where there is an instruction for that.
  if constexpr (How::steps == 2)
    for (; n >= 2 * LANES<N>; n -= 2 * LANES<N>, a += 2 * LANES<N>, b += 2 * LANES<N>)
      How::add(sum, load(reinterpret_cast<const N *>(a)), load(reinterpret_cast<const N *>(b)));
#endif
  over_vectors<N>(n, [&](int64_t j, auto count) __attribute__((always_inline)) { sum += some<How>(a + j, count) * some<How>(b + j, count); });
  return fold<N, Sum>(sum);
}

template <typename How, typename S, typename N> void scale_rows(S *to, int64_t to_row, const N *from, int64_t from_row, int64_t rows, int64_t n, const N *factors) {
  for (int64_t i = 0; i < rows; i++, to += to_row, from += from_row) {
    const N factor = factors == nullptr ? N(1) : factors[i];
    over_vectors<N>(n, [&](int64_t j, auto count) __attribute__((always_inline)) { put_some<How>(to + j, factor * some<Single<N>>(from + j, count), count); });
  }
}

template <typename How, typename S, typename N> void finish_row(S *to, const N *from, const N *bias, const S *residual, int64_t n, bool relu) {
  const N least = relu ? N(0) : -std::numeric_limits<N>::infinity();
  over_vectors<N>(n, [&](int64_t j, auto count) __attribute__((always_inline)) {
    Vector<N> value = some<Single<N>>(from + j, count);
    if (bias != nullptr) value += some<Single<N>>(bias + j, count);
    if (residual != nullptr) value += some<How>(residual + j, count);
    // Written so that what is no number stays none.
    put_some<How>(to + j, value < least ? Vector<N>{} : value, count);
  });
}
