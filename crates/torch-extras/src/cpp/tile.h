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

// `steps` steps of `count` columns that lie one behind the other, sixteen at most, to rows of a panel.
template <typename How, typename S, typename N>
INLINE void pack_block(const S *b, int64_t column, int64_t k, int64_t steps, int64_t count, N *to) {
  constexpr int64_t width = WIDTH<S>;
  if constexpr (WIDE && std::is_same_v<N, float> && sizeof(S) * How::steps == sizeof(float)) {
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
  for (int64_t j = 0; j < count; j++)
    for (int64_t q = 0; q < steps; q++) to[q * width + j] = unit<How>(b, 1, column, k, q, j);
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
      // Sixteen steps of sixteen columns at a time, so that lines are read and written as a whole.
      for (int64_t q0 = 0; q0 < depth; q0 += block)
        for (int64_t j0 = 0; j0 < count; j0 += block)
          pack_block<How>(from + How::steps * q0 + j0 * column, column, k - How::steps * q0, std::min(block, depth - q0),
                          std::min(block, count - j0), to + q0 * width + j0);
    }
  }
}

// Sixteen numbers to floats, and back, rounded to the nearest, halves to even; what is no number stays none.
typedef uint16_t Shorts __attribute__((vector_size(32)));
typedef uint16_t LooseShorts __attribute__((vector_size(32), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(64)));

INLINE Vector<float> floats(const float *p) { return load(p); }
INLINE Vector<float> floats(const Half *p) {
  const Shorts bits = *reinterpret_cast<const LooseShorts *>(p);
  return (Vector<float>)(__builtin_convertvector(bits, Words) << 16);
}
INLINE void put(float *p, Vector<float> v) { store(p, v); }
INLINE void put(Half *p, Vector<float> v) {
  const Words bits = (Words)v, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16, none = Words{} + 0x7fc0;
  *reinterpret_cast<LooseShorts *>(p) = __builtin_convertvector(v == v ? rounded : none, Shorts);
}

// q + q^T in place: a block and the one that mirrors it at a time.
template <typename S> void add_transpose(S *q, int64_t n, int64_t row) {
  if constexpr (WIDE && std::is_same_v<Number<S>, float>) {
    for (int64_t i = 0; i < n; i += 16)
      for (int64_t j = 0; j <= i; j += 16) {
        S *below = q + i * row + j, *above = q + j * row + i;
        Vector<float> v[16];
#pragma GCC unroll 16
        for (int t = 0; t < 16; t++) v[t] = floats(above + t * row);
        turn(v);
#pragma GCC unroll 16
        for (int t = 0; t < 16; t++) put(below + t * row, v[t] = v[t] + floats(below + t * row));
        if (i == j) continue;
        turn(v);
#pragma GCC unroll 16
        for (int t = 0; t < 16; t++) put(above + t * row, v[t]);
      }
  } else {
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j <= i; j++) q[i * row + j] = q[j * row + i] = q[i * row + j] + q[j * row + i];
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
  return {packing<How, S, Number<S>>, product<How, Number<S>>, add_transpose<S>};
}

} // namespace CPU

#undef CPU
#undef ROWS
#undef WIDE
