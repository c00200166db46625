// The gradient of a layer norm, for some rows at once: sums over rows stay in registers.

// Up to a vector of numbers, zero behind them.
template <typename How, typename S> INLINE auto some(const S *p, int64_t count) {
  constexpr int64_t lanes = LANES<Number<S>>;
  if (count >= lanes) return How::get(p);
  S numbers[lanes] = {};
  for (int64_t i = 0; i < count; i++) numbers[i] = p[i];
  return How::get(numbers);
}

template <typename How, typename S, typename V> INLINE void put_some(S *p, V v, int64_t count) {
  constexpr int64_t lanes = LANES<Number<S>>;
  if (count >= lanes) return How::put(p, v);
  S numbers[lanes];
  How::put(numbers, v);
  for (int64_t i = 0; i < count; i++) p[i] = numbers[i];
}

template <typename How, typename S, typename N> void norm_gradient(const NormRows<S> &r, int64_t rows) {
  constexpr int64_t lanes = LANES<N>;
  using Plain = Single<N>;
  const int64_t n = r.n;
  N first[HEIGHT], second[HEIGHT];
  for (int64_t i = 0; i < rows; i++) {
    Vector<N> f = {}, s = {};
    for (int64_t j = 0; j < n; j += lanes) {
      const Vector<N> g = some<Plain>(r.dy + i * r.dy_row + j, n - j) * some<Plain>(r.scale + j, n - j);
      f += g;
      s += g * ((some<How>(r.x + i * n + j, n - j) - r.mean[i]) * r.rstd[i]);
    }
    first[i] = fold<N, Sum>(f) / N(n), second[i] = fold<N, Sum>(s) / N(n);
  }
  for (int64_t j = 0; j < n; j += lanes) {
    const int64_t left = n - j;
    const Vector<N> scale = some<Plain>(r.scale + j, left), shift = some<Plain>(r.shift + j, left);
    Vector<N> by_scale = some<Plain>(r.by_scale + j, left), by_shift = some<Plain>(r.by_shift + j, left), sum = some<Plain>(r.sum + j, left);
    for (int64_t i = 0; i < rows; i++) {
      const Vector<N> g = some<Plain>(r.dy + i * r.dy_row + j, left), hat = (some<How>(r.x + i * n + j, left) - r.mean[i]) * r.rstd[i];
      Vector<N> dx = r.rstd[i] * (g * scale - first[i] - hat * second[i]);
      if (r.add != nullptr) dx += some<How>(r.add + i * n + j, left);
      by_scale += g * hat, by_shift += g, sum += dx;
      put_some<How>(r.h + i * n + j, hat * scale + shift, left);
      put_some<How>(r.dx + i * n + j, dx, left);
    }
    put_some<Plain>(r.by_scale + j, by_scale, left), put_some<Plain>(r.by_shift + j, by_shift, left), put_some<Plain>(r.sum + j, sum, left);
  }
}
