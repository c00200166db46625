// The loops of tiles.cpp, compiled for one generation of CPUs: included once for each, with CPU its namespace, ROWS the rows of a tile and WIDE whether
// a tile is two vectors wide. Not one template for all, because the compiler takes vectors apart before it looks at who calls.

namespace CPU {

template <typename N> struct Lanes;
template <> struct Lanes<float> {
  typedef float type __attribute__((vector_size(64)));
  typedef float loose __attribute__((vector_size(64), aligned(4), may_alias));
};
template <> struct Lanes<double> {
  typedef double type __attribute__((vector_size(64)));
  typedef double loose __attribute__((vector_size(64), aligned(8), may_alias));
};
template <typename N> using Vector = typename Lanes<N>::type;

template <typename N> INLINE Vector<N> load(const N *p) { return *reinterpret_cast<const typename Lanes<N>::loose *>(p); }
template <typename N> INLINE void store(N *p, Vector<N> v) { *reinterpret_cast<typename Lanes<N>::loose *>(p) = v; }

INLINE float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// How a kind of number S is multiplied: what a step of the loop takes of the left factor, and how many k it advances.
template <typename S> struct Single {
  using Stored = S;
  static constexpr int64_t steps = 1;
  INLINE S read(const S *a) { return *a; }
  INLINE Vector<S> spread(S x) { return x - Vector<S>{}; }
  INLINE void add(Vector<S> &sum, Vector<S> x, Vector<S> b) { sum += x * b; }
};
using Floats = Single<float>;
using Doubles = Single<double>;

// bf16 on a CPU without products of it: widened to float.
struct Wide : Floats {
  using Stored = Half;
  INLINE float read(const Half *a) { return from_bits(static_cast<uint32_t>(a->x) << 16); }
};

// bf16 two by two: an instruction adds two products to each of sixteen sums.
struct Pairs : Floats {
  using Stored = Half;
  static constexpr int64_t steps = 2;
  INLINE float pair(const Half *first, const Half *second) { return from_bits(first->x | static_cast<uint32_t>(second->x) << 16); }
  INLINE float read(const Half *a) {
    float both;
    std::memcpy(&both, a, 4);
    return both;
  }
  // The last of an odd number, with zero beside it.
  INLINE float read(const Half *a, bool) { return from_bits(a->x); }
  // Two numbers in the place of one are only moved: arithmetic would change what looks like no number.
  INLINE Vector<float> spread(float x) { return Vector<float>{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
  INLINE void add(Vector<float> &sum, Vector<float> x, Vector<float> b) {
    // Written as the instruction: an intrinsic asks for a function compiled for CPUs that all have it.
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(b));
  }
};

// R rows by V vectors.
template <typename How, int R, int V, typename N>
INLINE void tile(Left<typename How::Stored> a, int64_t k, const N *b, N *c, int64_t ldc, bool add) {
  constexpr int64_t width = WIDTH<typename How::Stored>, lanes = width / 2;
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
INLINE void panels_of(Left<typename How::Stored> a, int64_t k, const N *panels, int64_t n, N *c, int64_t ldc, bool add, Ahead &ahead) {
  constexpr int64_t width = WIDTH<typename How::Stored>, lanes = width / 2;
  const int64_t depth = (k + How::steps - 1) / How::steps;
  for (int64_t j = 0; j < n; j += width) {
    const N *b = panels + j * depth;
    if (WIDE && n - j > lanes) {
      tile<How, R, 2>(a, k, b, c + j, ldc, add);
    } else {
      tile<How, R, 1>(a, k, b, c + j, ldc, add);
      if (n - j > lanes) tile<How, R, 1>(a, k, b + lanes, c + j + lanes, ldc, add);
    }
    ahead.some(k / 2);
  }
}

// Rows in tiles of at most ROWS, as even as they come: a rest of few rows would leave registers idle.
template <typename How, int R, typename N>
INLINE void tiles_of(int64_t height, Left<typename How::Stored> a, int64_t k, const N *panels, int64_t n, N *c, int64_t ldc, bool add, Ahead &ahead) {
  if (height == R) {
    panels_of<How, R>(a, k, panels, n, c, ldc, add, ahead);
  } else if constexpr (R > 1) {
    tiles_of<How, R - 1>(height, a, k, panels, n, c, ldc, add, ahead);
  }
}

template <typename How, typename N>
void product(Left<typename How::Stored> a, int64_t rows, int64_t k, const N *panels, int64_t n, N *c, int64_t ldc, bool add, Ahead &ahead) {
  const int64_t count = (rows + ROWS - 1) / ROWS;
  for (int64_t t = 0, first = 0; t < count; t++) {
    const int64_t last = rows * (t + 1) / count;
    tiles_of<How, ROWS>(last - first, {a.a + first * a.row, a.row, a.step}, k, panels, n, c + first * ldc, ldc, add, ahead);
    first = last;
  }
}

// What `multiply` finds at step q of column j: a number, or two of bf16.
template <typename How, typename S> INLINE auto unit(const S *b, int64_t row, int64_t column, int64_t k, int64_t q, int64_t j) {
  const S *at = b + How::steps * q * row + j * column;
  if constexpr (How::steps == 1) return How::read(at);
  else return 2 * q + 1 < k ? How::pair(at, at + row) : How::read(at, true);
}

template <typename How, typename S, typename N>
void packing(const S *b, int64_t row, int64_t column, int64_t k, int64_t n, int64_t first, int64_t last, N *panels) {
  constexpr int64_t width = WIDTH<S>, block = 16;
  const int64_t depth = (k + How::steps - 1) / How::steps;
  for (int64_t p = first; p < last; p++) {
    const int64_t count = std::min(width, n - p * width);
    const S *from = b + p * width * column;
    N *to = panels + p * width * depth;
    if (count < width) std::memset(to, 0, depth * width * sizeof(N));
    if (column == 1) {
      for (int64_t q = 0; q < depth; q++) {
        // Rows that lie far apart are not foreseen by the CPU.
        const S *soon = from + std::min(k - 1, How::steps * (q + 12)) * row;
        __builtin_prefetch(soon), __builtin_prefetch(soon + count - 1);
        for (int64_t j = 0; j < count; j++) to[q * width + j] = unit<How>(from, row, 1, k, q, j);
      }
    } else {
      // Some steps of every column at a time, so that lines are read and written as a whole.
      for (int64_t q0 = 0; q0 < depth; q0 += block)
        for (int64_t j = 0; j < count; j++)
          for (int64_t q = q0; q < std::min(depth, q0 + block); q++) to[q * width + j] = unit<How>(from, 1, column, k, q, j);
    }
  }
}

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

template <typename S, typename How = std::conditional_t<std::is_same_v<S, Half>, Wide, Single<S>>> constexpr Functions<S> functions() {
  return {packing<How, S, Number<S>>, product<How, Number<S>>};
}

} // namespace CPU

#undef CPU
#undef ROWS
#undef WIDE
