// bf16 products on AMX, which x86-64 servers have since 2023: a register holds 16 rows of 64 bytes, and one instruction multiplies 16 x 32 numbers by
// 32 x 16 ones. What a register would hold of panels of pairs is what lies there, so that these are read as they are.
//
// Instructions are written as such, as in vectors.h.

namespace amx {

// Rows and bytes a row of a register.
constexpr int64_t SIDE = 16, LINE = 64;
// Of k, in numbers and in pairs, that one instruction multiplies.
constexpr int64_t STEP = 32, PAIRS = STEP / 2;
// Rows of the result that are computed together: two registers high, so that a part of the panels is read once for both.
constexpr int64_t ROWS_AT_ONCE = 2 * SIDE;

template <int T> INLINE void load(const void *from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
}
template <int T> INLINE void store(void *to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(T) : "memory");
}
template <int T> INLINE void clear() { asm volatile("tilezero %%tmm%c0" ::"i"(T)); }
template <int SUM, int A, int B> INLINE void add_product() { asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUM), "i"(A), "i"(B)); }

// Sums stand in registers 0 to 3, parts of A in 4 and 5, parts of B in 6 and 7.
struct Shape {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {LINE, LINE, LINE, LINE, LINE, LINE, LINE, LINE};
  uint8_t rows[16] = {};

  // For `upper` rows and `lower` ones below.
  Shape(int64_t upper, int64_t lower) {
    const int64_t high[8] = {upper, upper, lower, lower, upper, lower, PAIRS, PAIRS};
    for (int i = 0; i < 8; i++) rows[i] = static_cast<uint8_t>(high[i]);
  }
};

// What this thread's registers are set up for. That takes as long as some steps of a product, and so is kept while a tiles::Session lives.
struct Registers {
  bool kept = false;
  int64_t upper = 0, lower = 0;

  static Registers &of_thread() {
    static thread_local Registers own;
    return own;
  }
  void set_up(int64_t first, int64_t second) {
    if (first == upper && second == lower) return;
    const Shape shape(first, second);
    asm volatile("ldtilecfg %0" ::"m"(shape));
    upper = first, lower = second;
  }
  void release() {
    if (upper > 0) asm volatile("tilerelease");
    upper = lower = 0;
  }
};

// 32 numbers, of which the first `count` are those at `from` and the others zero.
INLINE void copy_some(Half *to, const Half *from, int64_t count) {
  const uint32_t mask = (uint64_t(1) << count) - 1;
  avx512::Vector<float> numbers;
  asm("vmovdqu16 (%1), %0%{%2%}%{z%}" : "=v"(numbers) : "r"(from), "Yk"(mask) : "memory");
  avx512::store(reinterpret_cast<float *>(to), numbers);
}

// One register of sums: what is there, or nothing yet.
template <int T> INLINE void begin(const float *c, int64_t stride, bool add) {
  if (add) load<T>(c, stride);
  else clear<T>();
}

// Those of a tile of `H` by `V` registers.
template <int H, int V> INLINE void begin_sums(const float *c, int64_t ldc, bool add) {
  const int64_t stride = ldc * sizeof(float);
  begin<0>(c, stride, add);
  if constexpr (V == 2) begin<1>(c + SIDE, stride, add);
  if constexpr (H == 2) begin<2>(c + SIDE * ldc, stride, add);
  if constexpr (H == 2 && V == 2) begin<3>(c + SIDE * ldc + SIDE, stride, add);
}
template <int H, int V> INLINE void store_sums(float *c, int64_t ldc) {
  const int64_t stride = ldc * sizeof(float);
  store<0>(c, stride);
  if constexpr (V == 2) store<1>(c + SIDE, stride);
  if constexpr (H == 2) store<2>(c + SIDE * ldc, stride);
  if constexpr (H == 2 && V == 2) store<3>(c + SIDE * ldc + SIDE, stride);
}

// Cache lines that are asked for with each step: in a burst they would hold up the products' own.
constexpr int64_t LINES_A_STEP = 8;

// One step of a tile of `H` by `V` registers.
template <int H, int V> INLINE void step(const Half *a, int64_t row, const float *b) {
  constexpr int64_t across = WIDTH<Half> * sizeof(float);
  const int64_t along = row * sizeof(Half);
  load<6>(b, across);
  load<4>(a, along);
  add_product<0, 4, 6>();
  if constexpr (V == 2) load<7>(b + SIDE, across), add_product<1, 4, 7>();
  if constexpr (H == 2) load<5>(a + SIDE * row, along), add_product<2, 5, 6>();
  if constexpr (H == 2 && V == 2) add_product<3, 5, 7>();
}

// A tile of `H` by `V` registers; k in `steps` whole steps and the rest, if there is one.
template <int H, int V>
INLINE void tile(const Half *a, int64_t row, int64_t steps, const Half *rest, const float *b, float *c, int64_t ldc, bool add, Meanwhile &meanwhile) {
  constexpr int64_t width = WIDTH<Half>;
  begin_sums<H, V>(c, ldc, add);
  for (int64_t q = 0; q < steps; q++, a += STEP, b += PAIRS * width) {
    step<H, V>(a, row, b);
    meanwhile.step(LINES_A_STEP);
  }
  if (rest != nullptr) step<H, V>(rest, STEP, b);
  store_sums<H, V>(c, ldc);
}

// Steps of k, the last of which may be filled up with zeros.
inline int64_t steps(int64_t k) { return (k + STEP - 1) / STEP; }
// The parts that numbers are multiplied in (split.h).
template <typename S> constexpr int PARTS = std::is_same_v<S, float> ? 3 : std::is_same_v<S, Coarse> ? 2 : 1;
// What a column of a packed factor takes, in numbers of float.
template <typename S> int64_t packed_depth(int64_t k) { return steps(k) * PAIRS * PARTS<S>; }

// As elsewhere, but with whole steps.
void pack(const Half *b, int64_t row, int64_t column, int64_t k, int64_t n, int64_t first, int64_t last, float *panels) {
  constexpr int64_t width = WIDTH<Half>;
  const int64_t depth = (k + 1) / 2 * width, size = steps(k) * PAIRS * width;
  avx512::pack_panels<avx512::Pairs>(b, row, column, k, n, first, last, size, panels);
  for (int64_t p = first; p < last; p++) std::fill(panels + p * size + depth, panels + (p + 1) * size, 0.0f);
}

// Groups of rows that are multiplied with a panel while it is in the first-level cache: a factor may be larger than the second-level one.
constexpr int64_t GROUPS = 4;

// Calls `work(first, groups, high)` for rows in groups of 32, so many groups as are multiplied together, or one of fewer rows.
template <typename Work> INLINE void over_groups(int64_t rows, Work &&work) {
  Registers &registers = Registers::of_thread();
  for (int64_t i = 0; i < rows;) {
    const int64_t groups = std::max<int64_t>(1, std::min(GROUPS, (rows - i) / ROWS_AT_ONCE)), high = std::min(ROWS_AT_ONCE, rows - i);
    registers.set_up(std::min(SIDE, high), high > SIDE ? high - SIDE : SIDE);
    work(i, groups, high);
    i += groups * high;
  }
  if (!registers.kept) registers.release();
}

// The last step of rows of A, where k ends within it.
struct alignas(LINE) Rest {
  Half rows[GROUPS * ROWS_AT_ONCE * STEP];
};

template <int H>
INLINE void panel(const Half *a, int64_t row, int64_t steps, const Half *rest, const float *b, int64_t columns, float *c, int64_t ldc, bool add, Meanwhile &meanwhile) {
  if (columns > SIDE) tile<H, 2>(a, row, steps, rest, b, c, ldc, add, meanwhile);
  else tile<H, 1>(a, row, steps, rest, b, c, ldc, add, meanwhile);
}

void product(Left<Half> a, int64_t rows, int64_t k, const float *panels, int64_t n, float *c, int64_t ldc, bool add, Meanwhile &meanwhile) {
  const int64_t whole = k / STEP, left = k % STEP, depth = steps(k) * PAIRS;
  Rest last;
  meanwhile.begin((rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE * ((n + WIDTH<Half> - 1) / WIDTH<Half>) * whole);
  over_groups(rows, [&](int64_t first, int64_t groups, int64_t high) __attribute__((always_inline)) {
    const Half *from = a.a + first * a.row;
    for (int64_t i = 0; left > 0 && i < groups * high; i++) copy_some(last.rows + i * STEP, from + i * a.row + whole * STEP, left);
    for (int64_t j = 0; j < n; j += WIDTH<Half>)
      for (int64_t g = 0; g < groups; g++) {
        const int64_t i = g * ROWS_AT_ONCE;
        const Half *rest = left > 0 ? last.rows + i * STEP : nullptr;
        float *to = c + (first + i) * ldc + j;
        if (high > SIDE) panel<2>(from + i * a.row, a.row, whole, rest, panels + j * depth, n - j, to, ldc, add, meanwhile);
        else panel<1>(from + i * a.row, a.row, whole, rest, panels + j * depth, n - j, to, ldc, add, meanwhile);
      }
  });
}

// What a row of a^T takes. Registers are read line by line, from lines that begin where rows do; an odd number of them falls evenly into the places of the
// first-level cache.
inline int64_t turned_row(int64_t k) { return (steps(k) | 1) * STEP; }

// a^T by rows: pairs of rows of a [k, rows], sixteen by sixteen, turned; an odd last one is read alone.
void turned(const Half *a, int64_t row, int64_t k, int64_t rows, Half *to) {
  const int64_t depth = (k + 1) / 2, line = turned_row(k) / 2;
  for (int64_t q0 = 0; q0 < depth; q0 += PAIRS)
    for (int64_t i0 = 0; i0 < rows; i0 += SIDE) {
      const int64_t pairs = std::min(PAIRS, depth - q0), count = std::min(SIDE, rows - i0);
      avx512::turn_pairs(a + 2 * q0 * row + i0, row, k - 2 * q0, pairs, count, reinterpret_cast<float *>(to) + i0 * line + q0, line);
    }
}

} // namespace amx
