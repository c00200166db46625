// Products of float on AMX. A float is the sum of three bf16 numbers to its last bit,
//
//   a = a1 + a2 + a3, b = b1 + b2 + b3      a b = a1 b1 + (a1 b2 + a2 b1) + (a2 b2 + a1 b3 + a3 b1)
//
// where what is left out, a2 b3 + a3 b2 and less, is at most 2^-22 of a product and some 2^-26 in the mean, of either sign. Sums are taken in float as elsewhere, and
// are off by half of what sums of float products, one after the other, are off by; six products of bf16 take half the time of one of float. (Henry, Tang,
// Heinecke: Leveraging the bfloat16 artificial intelligence datatype for higher-precision computations, 2019.)
//
// Where 16 bits of a float suffice (kernels::Coarse) two parts do, and three products: a1 b1 + a1 b2 + a2 b1 leaves out at most 3 x 2^-17 of a product, of either sign.
//
// Where it differs: a number that is not finite makes what it touches no number, and the last bits of numbers, and of products, below some 2^-103 are lost.

namespace amx {

INLINE const float *as_floats(const float *p) { return p; }
INLINE const float *as_floats(const Coarse *p) { return &p->x; }

// Sixteen pairs of bf16 of each part: x in the lower half of a word, y in the upper one.
template <typename S> struct Split {
  avx512::Words part[PARTS<S>];
};

// Of three parts the first is cut off; of two it is rounded, or what is left out would have the sign of the product. The others are rounded.
template <typename S> INLINE Split<S> split(avx512::Vector<float> x, avx512::Vector<float> y) {
  using avx512::Words;
  constexpr uint32_t UPPER = 0xffff0000, HALF = 0x8000, FIRST = PARTS<S> == 2 ? HALF : 0;
  Split<S> found;
#pragma GCC unroll 3
  for (int t = 0; t < PARTS<S>; t++) {
    const uint32_t up = t == 0 ? FIRST : HALF;
    const Words xt = ((Words)x + up) & UPPER, yt = ((Words)y + up) & UPPER;
    found.part[t] = xt >> 16 | yt;
    x -= (avx512::Vector<float>)xt, y -= (avx512::Vector<float>)yt;
  }
  return found;
}

// Up to sixteen numbers, zero behind them.
INLINE avx512::Vector<float> up_to(const float *p, int64_t count) {
  if (count >= SIDE) return avx512::load(p);
  avx512::Vector<float> v = {};
  if (count <= 0) return v;
  const uint16_t mask = (1u << count) - 1;
  asm("vmovups (%1), %0%{%2%}%{z%}" : "=v"(v) : "r"(p), "Yk"(mask) : "memory");
  return v;
}

// Up to sixteen vectors of up to sixteen numbers, zero beyond them: number t of vector s is from[s * major + t * minor], one of these 1.
struct Block {
  const float *from;
  int64_t majors, minors;
};

// All vectors where `major` is 1.
INLINE void turned_vectors(avx512::Vector<float> v[SIDE], Block x, int64_t minor) {
#pragma GCC unroll 16
  for (int64_t t = 0; t < SIDE; t++) v[t] = up_to(x.from + t * minor, t < x.minors ? x.majors : 0);
  avx512::turn(v);
}

// The parts of two blocks' vectors, paired: vector s of a part goes to `to` + part * `part` + s * `row`.
template <typename S> INLINE void split_block(Block x, Block y, int64_t major, int64_t minor, float *to, int64_t row, int64_t part) {
  const auto put = [&](int64_t s, avx512::Vector<float> lower, avx512::Vector<float> upper) __attribute__((always_inline)) {
    const Split<S> made = split<S>(lower, upper);
#pragma GCC unroll 3
    for (int t = 0; t < PARTS<S>; t++) avx512::store(to + t * part + s * row, (avx512::Vector<float>)made.part[t]);
  };
  if (minor == 1) {
    for (int64_t s = 0; s < SIDE; s++)
      put(s, up_to(x.from + s * major, s < x.majors ? x.minors : 0), up_to(y.from + s * major, s < y.majors ? y.minors : 0));
    return;
  }
  alignas(LINE) float lower[SIDE * SIDE];
  avx512::Vector<float> v[SIDE];
  turned_vectors(v, x, minor);
#pragma GCC unroll 16
  for (int64_t s = 0; s < SIDE; s++) avx512::store(lower + s * SIDE, v[s]);
  turned_vectors(v, y, minor);
#pragma GCC unroll 16
  for (int64_t s = 0; s < SIDE; s++) put(s, avx512::load(lower + s * SIDE), v[s]);
}

// Words of a part of a step of a panel, and of one of up to 32 rows. Pair q of a step is made of its numbers q and q + 16, in either factor.
constexpr int64_t BLOCK = PAIRS * WIDTH<float>;

// A panel holds, step by step, its parts one behind the other.
template <typename S> void pack_split(const S *b, int64_t row, int64_t column, int64_t k, int64_t n, int64_t first, int64_t last, float *panels) {
  constexpr int64_t width = WIDTH<float>;
  for (int64_t p = first; p < last; p++)
    for (int64_t s = 0; s < steps(k); s++)
      for (int64_t j = p * width; j < (p + 1) * width; j += SIDE) {
        const int64_t rest = k - s * STEP, count = n - j;
        const float *from = as_floats(b) + s * STEP * row + j * column;
        split_block<S>({from, rest, count}, {from + PAIRS * row, rest - PAIRS, count}, row, column,
                    panels + (p * steps(k) + s) * PARTS<S> * BLOCK + j % width, width, BLOCK);
      }
}

// A step of up to sixteen rows of A.
template <typename S> INLINE void split_rows(Left<S> a, int64_t rows, int64_t k, float *to) {
  const float *from = as_floats(a.a);
  split_block<S>({from, rows, k}, {from + PAIRS * a.step, rows, k - PAIRS}, a.row, a.step, to, SIDE, BLOCK);
}

// Steps of k at a time: few, so that a group's parts stay in the first-level cache; more where several groups meet panels that come from behind the second-level
// one, for sums are stored and loaded again between them.
constexpr int64_t CHUNK = 4, LONG_CHUNK = 18;
template <typename S> struct alignas(LINE) Parts {
  float words[GROUPS][LONG_CHUNK * PARTS<S> * BLOCK];

  // Too large for where thread-local variables lie.
  static Parts &of_thread() {
    static thread_local const std::unique_ptr<Parts> own(new Parts);
    return *own;
  }
};

// A tile of `H` by `V` registers, of which products of the same parts come to lie together.
template <typename S, int H, int V> INLINE void tile_split(const float *a, int64_t steps, const float *b, float *c, int64_t ldc, bool add, Meanwhile &meanwhile) {
  constexpr int64_t across = WIDTH<float> * sizeof(float);
  begin_sums<H, V>(c, ldc, add);
  const auto rows = [&](int part) __attribute__((always_inline)) {
    load<4>(a + part * BLOCK, LINE);
    if constexpr (H == 2) load<5>(a + part * BLOCK + SIDE * SIDE, LINE);
  };
  const auto columns = [&](int part) __attribute__((always_inline)) {
    load<6>(b + part * BLOCK, across);
    if constexpr (V == 2) load<7>(b + part * BLOCK + SIDE, across);
  };
  const auto multiply = [&]() __attribute__((always_inline)) {
    add_product<0, 4, 6>();
    if constexpr (V == 2) add_product<1, 4, 7>();
    if constexpr (H == 2) add_product<2, 5, 6>();
    if constexpr (H == 2 && V == 2) add_product<3, 5, 7>();
  };
  for (int64_t s = 0; s < steps; s++, a += PARTS<S> * BLOCK, b += PARTS<S> * BLOCK) {
    rows(0);
    if constexpr (PARTS<S> == 3) columns(2), multiply();
    columns(1), multiply();
    rows(1);
    if constexpr (PARTS<S> == 3) multiply();
    columns(0), multiply();
    if constexpr (PARTS<S> == 3) rows(2), multiply();
    rows(0), multiply();
    meanwhile.step(LINES_A_STEP);
  }
  store_sums<H, V>(c, ldc);
}

template <typename S, int H>
INLINE void panel_split(const float *a, int64_t steps, const float *b, int64_t columns, float *c, int64_t ldc, bool add, Meanwhile &meanwhile) {
  if (columns > SIDE) tile_split<S, H, 2>(a, steps, b, c, ldc, add, meanwhile);
  else tile_split<S, H, 1>(a, steps, b, c, ldc, add, meanwhile);
}

template <typename S> void product_split(Left<S> a, int64_t rows, int64_t k, const float *panels, int64_t n, float *c, int64_t ldc, bool add, Meanwhile &meanwhile) {
  Parts<S> &parts = Parts<S>::of_thread();
  constexpr int64_t width = WIDTH<float>;
  meanwhile.begin((rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE * ((n + width - 1) / width) * steps(k));
  over_groups(rows, [&](int64_t first, int64_t groups, int64_t high) __attribute__((always_inline)) {
    const int64_t chunk = groups > 1 ? LONG_CHUNK : CHUNK;
    for (int64_t s = 0; s < steps(k); s += chunk) {
      const int64_t some = std::min(chunk, steps(k) - s);
      for (int64_t g = 0; g < groups; g++)
        for (int64_t t = 0; t < some; t++)
          for (int64_t i = 0; i < high; i += SIDE)
            split_rows<S>({a.a + (first + g * ROWS_AT_ONCE + i) * a.row + (s + t) * STEP * a.step, a.row, a.step}, high - i, k - (s + t) * STEP,
                       parts.words[g] + t * PARTS<S> * BLOCK + i * SIDE);
      for (int64_t j = 0; j < n; j += width) {
        const float *b = panels + (j / width * steps(k) + s) * PARTS<S> * BLOCK;
        for (int64_t g = 0; g < groups; g++) {
          float *to = c + (first + g * ROWS_AT_ONCE) * ldc + j;
          if (high > SIDE) panel_split<S, 2>(parts.words[g], some, b, n - j, to, ldc, add || s > 0, meanwhile);
          else panel_split<S, 1>(parts.words[g], some, b, n - j, to, ldc, add || s > 0, meanwhile);
        }
      }
    }
  });
}

} // namespace amx
