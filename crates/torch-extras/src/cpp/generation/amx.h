// bf16 products on AMX, which x86-64 servers have since 2023: a register holds 16 rows of 64 bytes, and one instruction multiplies 16 x 32 numbers by
// 32 x 16 ones. What a register would hold of panels of pairs is what lies there, so that these are read as they are.
//
// For CPUs that have it beside AVX-512's pairs, which take the rest of k. Instructions are written as such, as in vectors.h.

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

// One register of sums: what is there, or nothing yet.
template <int T> INLINE void begin(const float *c, int64_t stride, bool add) {
  if (add) load<T>(c, stride);
  else clear<T>();
}

// A tile of `H` by `V` registers; k in `steps` whole steps.
template <int H, int V> INLINE void tile(const Half *a, int64_t row, int64_t steps, const float *b, float *c, int64_t ldc, bool add) {
  constexpr int64_t width = WIDTH<Half>;
  const int64_t stride = ldc * sizeof(float), across = width * sizeof(float), along = row * sizeof(Half);
  begin<0>(c, stride, add);
  if constexpr (V == 2) begin<1>(c + SIDE, stride, add);
  if constexpr (H == 2) begin<2>(c + SIDE * ldc, stride, add);
  if constexpr (H == 2 && V == 2) begin<3>(c + SIDE * ldc + SIDE, stride, add);
  for (int64_t q = 0; q < steps; q++, a += STEP, b += PAIRS * width) {
    load<6>(b, across);
    load<4>(a, along);
    add_product<0, 4, 6>();
    if constexpr (V == 2) load<7>(b + SIDE, across), add_product<1, 4, 7>();
    if constexpr (H == 2) load<5>(a + SIDE * row, along), add_product<2, 5, 6>();
    if constexpr (H == 2 && V == 2) add_product<3, 5, 7>();
  }
  store<0>(c, stride);
  if constexpr (V == 2) store<1>(c + SIDE, stride);
  if constexpr (H == 2) store<2>(c + SIDE * ldc, stride);
  if constexpr (H == 2 && V == 2) store<3>(c + SIDE * ldc + SIDE, stride);
}

template <int H>
INLINE void panels_of(Left<Half> a, int64_t k, const float *panels, int64_t n, float *c, int64_t ldc, bool add, Ahead &ahead) {
  const int64_t depth = (k + 1) / 2;
  for (int64_t j = 0; j < n; j += WIDTH<Half>) {
    const float *b = panels + j * depth;
    if (n - j > SIDE) tile<H, 2>(a.a, a.row, k / STEP, b, c + j, ldc, add);
    else tile<H, 1>(a.a, a.row, k / STEP, b, c + j, ldc, add);
    ahead.some(k / 2);
  }
}

// Of the panels, what belongs to the rest of k lies `PAIRS * k / STEP` rows down in each; the other tiles find it there by a depth of their own.
void rest(Left<Half> a, int64_t rows, int64_t k, const float *panels, int64_t n, float *c, int64_t ldc, bool add) {
  const int64_t depth = (k + 1) / 2, done = k / STEP;
  Ahead nothing;
  for (int64_t j = 0; j < n; j += WIDTH<Half>)
    avx512::product<avx512::Pairs>({a.a + done * STEP, a.row, a.step}, rows, k - done * STEP, panels + j * depth + done * PAIRS * WIDTH<Half>,
                                   std::min(WIDTH<Half>, n - j), c + j, ldc, add, nothing);
}

void product(Left<Half> a, int64_t rows, int64_t k, const float *panels, int64_t n, float *c, int64_t ldc, bool add, Ahead &ahead) {
  const bool whole = k >= STEP;
  for (int64_t i = 0; whole && i < rows; i += ROWS_AT_ONCE) {
    const int64_t upper = std::min(SIDE, rows - i), lower = std::min(SIDE, rows - i - upper);
    const Shape shape(upper, lower > 0 ? lower : SIDE);
    asm volatile("ldtilecfg %0" ::"m"(shape));
    const Left<Half> part{a.a + i * a.row, a.row, a.step};
    if (lower > 0) panels_of<2>(part, k, panels, n, c + i * ldc, ldc, add, ahead);
    else panels_of<1>(part, k, panels, n, c + i * ldc, ldc, add, ahead);
    asm volatile("tilerelease");
  }
  if (k % STEP != 0) rest(a, rows, k, panels, n, c, ldc, add || whole);
}

// a^T by rows: pairs of rows of a [k, rows], sixteen by sixteen, turned; an odd last one is read alone.
void turned(const Half *a, int64_t row, int64_t k, int64_t rows, Half *to) {
  const int64_t depth = (k + 1) / 2;
  for (int64_t q0 = 0; q0 < depth; q0 += PAIRS)
    for (int64_t i0 = 0; i0 < rows; i0 += SIDE) {
      const int64_t pairs = std::min(PAIRS, depth - q0), count = std::min(SIDE, rows - i0);
      for (int64_t q = q0; q < q0 + pairs; q++) {
        const Half *soon = a + std::min(k - 1, 2 * q + 32) * row + i0;
        __builtin_prefetch(soon), __builtin_prefetch(a + std::min(k - 1, 2 * q + 33) * row + i0);
      }
      avx512::turn_pairs(a + 2 * q0 * row + i0, row, k - 2 * q0, pairs, count, reinterpret_cast<float *>(to) + i0 * depth + q0, depth);
    }
}

} // namespace amx
