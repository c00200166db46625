// Factors in the order in which products read them, and transposes.

#if BYTES == 64
// Rows of sixteen columns each become columns.
INLINE void turn(Vector<float> v[16]) {
  typedef int Index __attribute__((vector_size(64)));
  // Blocks of one, two, four and eight numbers beside the diagonal change places.
  constexpr Index low[] = {{0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30},
                           {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29},
                           {0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27},
                           {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23}};
#pragma GCC unroll 4
  for (int stage = 0; stage < 4; stage++) {
    const int size = 1 << stage;
    const Index upper = low[stage], lower = upper + size;
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
      if (i & size) continue;
      const Vector<float> a = v[i], b = v[i + size];
      v[i] = __builtin_shuffle(a, b, upper);
      v[i + size] = __builtin_shuffle(a, b, lower);
    }
  }
}
#endif

// What `multiply` finds at step q of column j: a number, or two of bf16.
template <typename How, typename S> INLINE auto unit(const S *b, int64_t row, int64_t column, int64_t k, int64_t q, int64_t j) {
  const S *at = b + How::steps * q * row + j * column;
  if constexpr (How::steps == 1) return How::read(at);
  else return 2 * q + 1 < k ? How::pair(at, at + row) : How::read(at, true);
}

// `steps` steps of `count` columns that lie one behind the other, sixteen at most, to rows of a panel.
template <typename How, typename S, typename N>
INLINE void pack_block(const S *b, int64_t column, int64_t k, int64_t steps, int64_t count, N *to) {
  constexpr int64_t width = WIDTH<S>;
#if BYTES == 64
  if constexpr (std::is_same_v<N, float> && sizeof(S) * How::steps == sizeof(float)) {
    if (count == 16 && How::steps * 16 <= k) {
      Vector<float> v[16];
#pragma GCC unroll 16
      for (int j = 0; j < 16; j++) v[j] = load(reinterpret_cast<const float *>(b + j * column));
      turn(v);
#pragma GCC unroll 16
      for (int q = 0; q < 16; q++) store(to + q * width, v[q]);
      return;
    }
  }
#endif
  for (int64_t j = 0; j < count; j++)
    for (int64_t q = 0; q < steps; q++) to[q * width + j] = unit<How>(b, 1, column, k, q, j);
}

// What it finds there for a vector of columns that begins at `at`, with the next row where k goes on.
template <typename How, typename S> INLINE auto units(const S *at, int64_t row, bool next) {
  if constexpr (How::steps == 1) return How::get(at);
  else return next ? How::pairs(at, at + row) : How::last(at);
}

// Panels of columns that lie side by side: rows are read as a whole, once.
template <typename How, typename S, typename N>
INLINE void pack_rows(const S *b, int64_t row, int64_t k, int64_t n, int64_t first, int64_t last, int64_t size, N *panels) {
  constexpr int64_t width = WIDTH<S>, ahead = 12;
  const int64_t depth = (k + How::steps - 1) / How::steps;
  for (int64_t q = 0; q < depth; q++) {
    // Rows that lie far apart are not foreseen by the CPU.
    const S *at = b + How::steps * q * row, *soon = b + std::max<int64_t>(0, std::min(k - How::steps, How::steps * (q + ahead))) * row;
    const bool next = How::steps * q + 1 < k;
    for (int64_t p = first; p < last; p++) {
      const int64_t begin = p * width, count = std::min(width, n - begin);
      N *to = panels + p * size + q * width;
      for (int64_t j = 0; j < count; j += 64 / int64_t(sizeof(S))) {
        __builtin_prefetch(soon + begin + j);
        if (How::steps == 2) __builtin_prefetch(soon + row + begin + j);
      }
      if (count == width) {
#pragma GCC unroll 4
        for (int64_t j = 0; j < width; j += LANES<N>) store(to + j, units<How>(at + begin + j, row, next));
        continue;
      }
      for (int64_t j = 0; j < count; j++) to[j] = unit<How>(b + begin, row, 1, k, q, j);
      std::fill(to + count, to + width, N(0));
    }
  }
}

// Panels that begin `size` numbers after each other.
template <typename How, typename S, typename N>
INLINE void pack_panels(const S *b, int64_t row, int64_t column, int64_t k, int64_t n, int64_t first, int64_t last, int64_t size, N *panels) {
  constexpr int64_t width = WIDTH<S>, block = 16;
  const int64_t depth = (k + How::steps - 1) / How::steps;
  if (column == 1) return pack_rows<How>(b, row, k, n, first, last, size, panels);
  for (int64_t p = first; p < last; p++) {
    const int64_t count = std::min(width, n - p * width);
    const S *from = b + p * width * column;
    N *to = panels + p * size;
    if (count < width) std::memset(to, 0, depth * width * sizeof(N));
    // Sixteen steps of sixteen columns at a time, so that lines are read and written as a whole.
    for (int64_t q0 = 0; q0 < depth; q0 += block)
      for (int64_t j0 = 0; j0 < count; j0 += block)
        pack_block<How>(from + How::steps * q0 + j0 * column, column, k - How::steps * q0, std::min(block, depth - q0),
                        std::min(block, count - j0), to + q0 * width + j0);
  }
}

template <typename How, typename S, typename N>
void packing(const S *b, int64_t row, int64_t column, int64_t k, int64_t n, int64_t first, int64_t last, N *panels) {
  pack_panels<How>(b, row, column, k, n, first, last, (k + How::steps - 1) / How::steps * WIDTH<S>, panels);
}

#if BYTES == 64
// Rows 2q and 2q + 1 of a [k, rows] become one of pairs; an odd last one is read alone.
inline void interleave(const Half *a, int64_t row, int64_t k, int64_t rows, Half *to) {
  for (int64_t q = 0; q < k; q += 2, to += 2 * rows) {
    const Half *x = a + q * row, *y = q + 1 < k ? x + row : x, *soon = a + std::min(k - 1, q + 16) * row;
    for (int64_t i = 0; i < 2 * rows; i += 32) __builtin_prefetch(soon + i), __builtin_prefetch(soon + row + i);
    for (int64_t i = 0; i < rows; i++) {
      const float both = Pairs::pair(x + i, y + i);
      std::memcpy(to + 2 * i, &both, 4);
    }
  }
}
#endif

#if BYTES == 64
// A block of pairs of rows of a [k, ...], `pairs` by `count`, sixteen each at most: column i becomes row i of pairs, `depth` pairs apart.
inline void turn_pairs(const Half *a, int64_t row, int64_t k, int64_t pairs, int64_t count, float *to, int64_t depth) {
  if (pairs < 16 || count < 16 || k < 32) {
    for (int64_t i = 0; i < count; i++)
      for (int64_t q = 0; q < pairs; q++) to[i * depth + q] = unit<Pairs>(a, row, 1, k, q, i);
    return;
  }
  Vector<float> v[16];
#pragma GCC unroll 16
  for (int q = 0; q < 16; q++) v[q] = Pairs::pairs(a + 2 * q * row, a + (2 * q + 1) * row);
  turn(v);
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) store(to + i * depth, v[i]);
}
#endif

// q + q^T in place: a block and the one that mirrors it at a time.
template <typename How, typename S> void add_transpose(S *q, int64_t n, int64_t row) {
#if BYTES == 64
  if constexpr (std::is_same_v<Number<S>, float>) {
    for (int64_t i = 0; i < n; i += 16)
      for (int64_t j = 0; j <= i; j += 16) {
        S *below = q + i * row + j, *above = q + j * row + i;
        Vector<float> v[16];
#pragma GCC unroll 16
        for (int t = 0; t < 16; t++) v[t] = How::get(above + t * row);
        turn(v);
#pragma GCC unroll 16
        for (int t = 0; t < 16; t++) v[t] += How::get(below + t * row), How::put(below + t * row, v[t]);
        if (i == j) continue;
        turn(v);
#pragma GCC unroll 16
        for (int t = 0; t < 16; t++) How::put(above + t * row, v[t]);
      }
    return;
  }
#endif
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j <= i; j++) q[i * row + j] = q[j * row + i] = q[i * row + j] + q[j * row + i];
}

// to = alpha a + beta b^T, square by square; a may be null.
template <typename N> void combine(N *to, const N *a, N alpha, const N *b, N beta, int64_t rows, int64_t columns, int64_t row) {
  constexpr int64_t SIDE = 16;
  for (int64_t i = 0; i < rows; i += SIDE)
    for (int64_t j = 0; j < columns; j += SIDE) {
      const int64_t height = std::min(SIDE, rows - i), width = std::min(SIDE, columns - j), at = i * row + j;
      const N *from = b + j * row + i;
#if BYTES == 64
      if constexpr (std::is_same_v<N, float>) {
        if (height == SIDE && width == SIDE) {
          Vector<float> v[SIDE];
#pragma GCC unroll 16
          for (int t = 0; t < SIDE; t++) v[t] = load(from + t * row);
          turn(v);
#pragma GCC unroll 16
          for (int t = 0; t < SIDE; t++) store(to + at + t * row, a == nullptr ? beta * v[t] : alpha * load(a + at + t * row) + beta * v[t]);
          continue;
        }
      }
#endif
      for (int64_t t = 0; t < height; t++)
        for (int64_t u = 0; u < width; u++) to[at + t * row + u] = (a == nullptr ? N(0) : alpha * a[at + t * row + u]) + beta * from[u * row + t];
    }
}
