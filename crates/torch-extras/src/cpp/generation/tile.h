// Products: tiles of the result in registers.

// R rows by V vectors; `b` is a part of a panel.
template <typename How, int R, int V, typename N>
INLINE void tile(Left<typename How::Stored> a, int64_t k, const N *b, N *c, int64_t ldc, bool add) {
  constexpr int64_t width = WIDTH<typename How::Stored>, lanes = LANES<N>;
  Vector<N> sums[R][V];
#pragma GCC unroll 12
  for (int i = 0; i < R; i++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) sums[i][v] = add ? load(c + i * ldc + v * lanes) : Vector<N>{};
  const auto *p = a.a;
  const int64_t whole = k / How::steps;
  for (int64_t q = 0; q < whole; q++, p += a.step, b += width) {
    Vector<N> right[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) right[v] = load(b + v * lanes);
#pragma GCC unroll 12
    for (int i = 0; i < R; i++) {
      const Vector<N> x = How::spread(How::read(p + i * a.row));
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) How::add(sums[i][v], x, right[v]);
    }
  }
  if constexpr (How::steps == 2) {
    if (k % 2 == 1) {
#pragma GCC unroll 12
      for (int i = 0; i < R; i++) {
        const Vector<N> x = How::spread(How::read(p + i * a.row, true));
#pragma GCC unroll 2
        for (int v = 0; v < V; v++) How::add(sums[i][v], x, load(b + v * lanes));
      }
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < R; i++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) store(c + i * ldc + v * lanes, sums[i][v]);
}

template <typename How, int R, typename N>
INLINE void panels_of(Left<typename How::Stored> a, int64_t k, const N *panels, int64_t n, N *c, int64_t ldc, bool add, Meanwhile &meanwhile) {
  constexpr int64_t width = WIDTH<typename How::Stored>, lanes = LANES<N>;
  const int64_t depth = (k + How::steps - 1) / How::steps;
  for (int64_t j = 0; j < n; j += width) {
    const N *b = panels + j * depth;
    // Two vectors at a time, as long as there are columns.
    for (int64_t i = 0; i < std::min(width, n - j); i += 2 * lanes) {
      if (n - j - i > lanes) tile<How, R, 2>(a, k, b + i, c + j + i, ldc, add);
      else tile<How, R, 1>(a, k, b + i, c + j + i, ldc, add);
    }
    meanwhile.some(k / 2);
  }
}

// Rows in tiles of at most ROWS, as even as they come: a rest of few rows would leave registers idle.
template <typename How, int R, typename N>
INLINE void tiles_of(int64_t height, Left<typename How::Stored> a, int64_t k, const N *panels, int64_t n, N *c, int64_t ldc, bool add, Meanwhile &meanwhile) {
  if (height == R) {
    panels_of<How, R>(a, k, panels, n, c, ldc, add, meanwhile);
  } else if constexpr (R > 1) {
    tiles_of<How, R - 1>(height, a, k, panels, n, c, ldc, add, meanwhile);
  }
}

template <typename How, typename N>
void product(Left<typename How::Stored> a, int64_t rows, int64_t k, const N *panels, int64_t n, N *c, int64_t ldc, bool add, Meanwhile &meanwhile) {
  const int64_t count = (rows + ROWS - 1) / ROWS;
  for (int64_t t = 0, first = 0; t < count; t++) {
    const int64_t last = rows * (t + 1) / count;
    tiles_of<How, ROWS>(last - first, {a.a + first * a.row, a.row, a.step}, k, panels, n, c + first * ldc, ldc, add, meanwhile);
    first = last;
  }
}
