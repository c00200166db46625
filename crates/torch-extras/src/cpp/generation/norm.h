// Layer norms of rows and their gradient. Some rows at once: their sums are independent of each other, and all that is read and written stays in the
// first-level cache.

template <typename How, int R, typename S, typename N> INLINE void norm_of_rows(const NormedRows<S> r, int64_t row) {
  const int64_t n = r.n;
  const S *x = r.x + row * n;
  S *to = r.to + row * n;
  Vector<N> sums[R] = {}, squares[R] = {};
  N mean[R], rstd[R];
  over_vectors<N>(n, [&](int64_t j, auto count) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) sums[i] += some<How>(x + i * n + j, count);
  });
#pragma GCC unroll 4
  for (int i = 0; i < R; i++) mean[i] = fold<N, Sum>(sums[i]) / N(n);
  over_vectors<N>(n, [&](int64_t j, auto count) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) {
      const Vector<N> from_mean = up_to(some<How>(x + i * n + j, count) - mean[i], count);
      squares[i] += from_mean * from_mean;
    }
  });
#pragma GCC unroll 4
  for (int i = 0; i < R; i++) rstd[i] = N(1) / std::sqrt(fold<N, Sum>(squares[i]) / N(n) + r.eps);
  over_vectors<N>(n, [&](int64_t j, auto count) __attribute__((always_inline)) {
    Vector<N> scale, shift;
    if (r.scale != nullptr) scale = some<Single<N>>(r.scale + j, count), shift = some<Single<N>>(r.shift + j, count);
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) {
      Vector<N> hat = (some<How>(x + i * n + j, count) - mean[i]) * rstd[i];
      if (r.scale != nullptr) hat = hat * scale + shift;
      put_some<How>(to + i * n + j, hat, count);
    }
  });
#pragma GCC unroll 4
  for (int i = 0; i < R; i++) r.mean[row + i] = mean[i], r.rstd[row + i] = rstd[i];
}

// Asks for the line of each of `R` rows that begins at p or holds it; for number j of a row only where a line is new.
template <int R, bool WRITTEN, typename S> INLINE void ask_for_rows(const S *p, int64_t n, int64_t j) {
  if (p == nullptr || j % (64 / int64_t(sizeof(S))) != 0) return;
#pragma GCC unroll 4
  for (int i = 0; i < R; i++) __builtin_prefetch(p + i * n + j, WRITTEN);
}

// Reads and writes four rows where one is multiplied, so that it also asks for the R rows behind these: between the steps of a product is no room for so many lines.
template <typename How, int R, typename S, typename N> INLINE void gradient_of_rows(const NormRows<S> r, int64_t row) {
  using Plain = Single<N>;
  const int64_t n = r.n;
  const N *dy = r.dy + row * r.dy_row, *mean = r.mean + row, *rstd = r.rstd + row;
  const S *x = r.x + row * n, *add = r.add == nullptr ? nullptr : r.add + row * n;
  const S *next_add = add == nullptr ? nullptr : add + R * n;
  S *h = r.h + row * n, *to = r.dx + row * n;
  Vector<N> f[R] = {}, s[R] = {};
  over_vectors<N>(n, [&](int64_t j, auto count) __attribute__((always_inline)) {
    const Vector<N> scale = some<Plain>(r.scale + j, count);
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) {
      const Vector<N> g = some<Plain>(dy + i * r.dy_row + j, count) * scale;
      f[i] += g;
      s[i] += g * ((some<How>(x + i * n + j, count) - mean[i]) * rstd[i]);
    }
    ask_for_rows<R, false>(x + R * n, n, j), ask_for_rows<R, false>(next_add, n, j);
  });
  N first[R], second[R];
#pragma GCC unroll 4
  for (int i = 0; i < R; i++) first[i] = fold<N, Sum>(f[i]) / N(n), second[i] = fold<N, Sum>(s[i]) / N(n);
  over_vectors<N>(n, [&](int64_t j, auto count) __attribute__((always_inline)) {
    const Vector<N> scale = some<Plain>(r.scale + j, count), shift = some<Plain>(r.shift + j, count);
    Vector<N> by_scale = some<Plain>(r.by_scale + j, count), by_shift = some<Plain>(r.by_shift + j, count), sum = some<Plain>(r.sum + j, count);
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) {
      const Vector<N> g = some<Plain>(dy + i * r.dy_row + j, count), hat = (some<How>(x + i * n + j, count) - mean[i]) * rstd[i];
      Vector<N> dx = rstd[i] * (g * scale - first[i] - hat * second[i]);
      if (add != nullptr) dx += some<How>(add + i * n + j, count);
      by_scale += g * hat, by_shift += g, sum += dx;
      put_some<How>(h + i * n + j, hat * scale + shift, count);
      put_some<How>(to + i * n + j, dx, count);
    }
    ask_for_rows<R, true>(h + R * n, n, j), ask_for_rows<R, true>(to + R * n, n, j);
    put_some<Plain>(r.by_scale + j, by_scale, count), put_some<Plain>(r.by_shift + j, by_shift, count), put_some<Plain>(r.sum + j, sum, count);
  });
}

template <typename How, typename S, typename N> void norm_rows(const NormedRows<S> &r, int64_t rows) {
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) norm_of_rows<How, 4, S, N>(r, i);
  for (; i < rows; i++) norm_of_rows<How, 1, S, N>(r, i);
}

template <typename How, typename S, typename N> void norm_gradient(const NormRows<S> &r, int64_t rows) {
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) gradient_of_rows<How, 4, S, N>(r, i);
  for (; i < rows; i++) gradient_of_rows<How, 1, S, N>(r, i);
}
