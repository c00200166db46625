// See tiles.h. The loops are in generation/, written with the compiler's vectors, of the size of a register: larger ones it takes apart
// badly.

#include "tiles.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#define X86 1
#else
#define X86 0
#endif
#define INLINE static inline __attribute__((always_inline))

namespace tiles {
namespace {

constexpr double LOG2_E = 1.44269504088896340736;

enum class Cpu { any, avx2, avx512, avx512_bf16, amx };

#if X86
// Whether the CPU has AMX for bf16, and the system lets this process keep what its registers hold.
bool amx_is_usable() {
#if defined(__linux__)
  unsigned a, b, c, d;
  constexpr unsigned BF16 = 1u << 22, TILE = 1u << 24;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & BF16) || !(d & TILE)) return false;
  constexpr int REQUEST = 0x1023, TILE_DATA = 18;
  return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
  return false;
#endif
}
#endif

Cpu find_cpu() {
#if X86
  __builtin_cpu_init();
  const bool v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd");
  if (v4 && __builtin_cpu_supports("avx512bf16")) return amx_is_usable() ? Cpu::amx : Cpu::avx512_bf16;
  if (v4) return Cpu::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Cpu::avx2;
#endif
  return Cpu::any;
}

// The CPU at hand, or a lesser one that WHITEBOX_CPU names, for tests of what others are given.
Cpu chosen_cpu() {
  const Cpu found = find_cpu();
  const char *name = std::getenv("WHITEBOX_CPU");
  if (name == nullptr) return found;
  const char *names[] = {"any", "avx2", "avx512", "avx512_bf16"};
  for (int i = 0; i < 4; i++)
    if (std::strcmp(name, names[i]) == 0) return std::min(found, static_cast<Cpu>(i));
  return found;
}

const Cpu cpu = chosen_cpu();

// The functions of one kind for one generation of CPUs.
template <typename S> struct Functions {
  void (*pack)(const S *, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, Number<S> *);
  void (*multiply)(Left<S>, int64_t, int64_t, const Number<S> *, int64_t, Number<S> *, int64_t, bool, Meanwhile &);
  void (*add_transpose)(S *, int64_t, int64_t);
  Number<S> (*exp_row)(S *, Number<S> *, int64_t, Number<S>, Number<S> &);
  void (*finish_sums)(Number<S> *, Number<S> *, int64_t);
  void (*attention_gradient_row)(S *, S *, const Number<S> *, const Number<S> *, int64_t, Number<S>, Number<S>, Number<S>);
  Number<S> (*dot)(const S *, const S *, int64_t);
  void (*scale_rows)(S *, int64_t, const Number<S> *, int64_t, int64_t, int64_t, const Number<S> *);
  void (*finish_row)(S *, const Number<S> *, const Number<S> *, const S *, int64_t, bool);
  void (*norm_rows)(const NormedRows<S> &, int64_t);
  void (*norm_gradient)(const NormRows<S> &, int64_t);
  void (*combine)(Number<S> *, const Number<S> *, Number<S>, const Number<S> *, Number<S>, int64_t, int64_t, int64_t);
};

// As many sums as there are registers for: with AVX-512 24 of 32, otherwise 12 of 16.
#if X86
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")
#define CPU avx512
#define BYTES 64
#define ROWS 12
#include "generation/generation.h"
#include "generation/amx.h"
#include "generation/split.h"
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define CPU avx2
#define BYTES 32
#define ROWS 6
#include "generation/generation.h"
#pragma GCC pop_options
#endif
#define CPU any
#define BYTES 16
#define ROWS 6
#include "generation/generation.h"

template <typename S> constexpr bool is_half = std::is_same_v<S, Half>;

template <typename S> bool paired() { return is_half<S> && cpu >= Cpu::avx512_bf16; }
template <typename S> bool on_amx() { return !std::is_same_v<S, double> && cpu == Cpu::amx; }

template <typename S> Functions<S> choose() {
#if X86
  if constexpr (is_half<S>) {
    auto found = avx512::functions<S, avx512::Pairs>();
    if (on_amx<S>()) found.pack = amx::pack, found.multiply = amx::product;
    if (paired<S>()) return found;
  }
  if (cpu >= Cpu::avx512) return avx512::functions<S>();
  if (cpu == Cpu::avx2) return avx2::functions<S>();
#endif
  return any::functions<S>();
}

// Products of numbers themselves, and those that are taken.
template <typename S> const Functions<S> plain = choose<S>();

template <typename S> Functions<S> fastest() {
  auto found = choose<S>();
#if X86
  if constexpr (std::is_same_v<S, float>)
    if (on_amx<S>()) found.pack = amx::pack_split<float>, found.multiply = amx::product_split<float>;
#endif
  return found;
}

template <typename S> const Functions<S> chosen = fastest<S>();

template <typename S> Left<S> columns(const S *a, int64_t row, int64_t k, int64_t rows, S *scratch) {
#if X86
  if constexpr (is_half<S>) {
    if (on_amx<S>()) {
      amx::turned(a, row, k, rows, scratch);
      return {scratch, amx::turned_row(k), 2};
    }
    if (paired<S>()) {
      avx512::interleave(a, row, k, rows, scratch);
      return {scratch, 2, 2 * rows};
    }
  }
#endif
  return {a, 1, row};
}

} // namespace

#define PRODUCTS(S, N)                                                                                                                     \
  void pack(const S *b, int64_t row, int64_t column, int64_t k, int64_t n, int64_t first, int64_t last, N *panels) {                     \
    chosen<S>.pack(b, row, column, k, n, first, last, panels);                                                                         \
  }                                                                                                                                      \
  Left<S> by_rows(const S *a, int64_t row) { return {a, row, paired<S>() ? 2 : 1}; }                                                     \
  Left<S> by_columns(const S *a, int64_t row, int64_t k, int64_t rows, S *scratch) { return columns(a, row, k, rows, scratch); }         \
  void multiply(Left<S> a, int64_t rows, int64_t k, const N *panels, int64_t n, N *c, int64_t ldc, bool add, Meanwhile &meanwhile) {             \
    chosen<S>.multiply(a, rows, k, panels, n, c, ldc, add, meanwhile);                                                                    \
    meanwhile.end();                                                                            \
  }

#define LOOPS(S, N) \
  void add_transpose(S *q, int64_t n, int64_t row) { chosen<S>.add_transpose(q, n, row); } \
  N exp_row(S *map, N *scores, int64_t n, N scale, N &sum) { return chosen<S>.exp_row(map, scores, n, scale, sum); } \
  void attention_gradient_row(S *q, S *a, const N *s, const N *c, int64_t n, N scale, N lse, N delta) { \
    chosen<S>.attention_gradient_row(q, a, s, c, n, scale, lse, delta); \
  } \
  N dot(const S *a, const S *b, int64_t n) { return chosen<S>.dot(a, b, n); } \
  void scale_rows(S *to, int64_t to_row, const N *from, int64_t from_row, int64_t rows, int64_t n, const N *factors) { \
    chosen<S>.scale_rows(to, to_row, from, from_row, rows, n, factors); \
  } \
  void finish_row(S *to, const N *from, const N *bias, const S *residual, int64_t n, bool relu) { \
    chosen<S>.finish_row(to, from, bias, residual, n, relu); \
  } \
  void norm_rows(const NormedRows<S> &r, int64_t rows) { chosen<S>.norm_rows(r, rows); } \
  void norm_gradient(const NormRows<S> &r, int64_t rows) { chosen<S>.norm_gradient(r, rows); }

#if X86
Session::Session() { amx::Registers::of_thread().kept = true; }
Session::~Session() {
  amx::Registers::of_thread().kept = false;
  amx::Registers::of_thread().release();
}
#else
Session::Session() {}
Session::~Session() {}
#endif

bool halves_are_fast() { return cpu == Cpu::amx; }

#if X86
template <typename S> bool leaves_room() { return on_amx<S>(); }
template <typename S> bool takes_columns() { return on_amx<S>(); }
template <typename S> int64_t height() { return on_amx<S>() ? amx::ROWS_AT_ONCE : PLAIN_HEIGHT; }
// Of bf16 there is less to read.
template <typename S> int64_t rows_a_reading() { return on_amx<S>() && !is_half<S> ? amx::GROUPS * amx::ROWS_AT_ONCE : height<S>(); }
template <typename S> int64_t packed_size(int64_t k, int64_t n) {
  return (on_amx<S>() ? amx::packed_depth<S>(k) : paired<S>() ? (k + 1) / 2 : k) * padded<S>(n);
}
template <typename S> int64_t columns_size(int64_t k, int64_t rows) {
  return !paired<S>() ? 0 : on_amx<S>() ? amx::turned_row(k) * rows : (k + 1) / 2 * 2 * rows;
}
#else
template <typename S> int64_t columns_size(int64_t, int64_t) { return 0; }
template <typename S> bool leaves_room() { return false; }
template <typename S> bool takes_columns() { return false; }
template <typename S> int64_t height() { return PLAIN_HEIGHT; }
template <typename S> int64_t rows_a_reading() { return height<S>(); }
template <typename S> int64_t packed_size(int64_t k, int64_t n) { return k * padded<S>(n); }
#endif

#define SIZES(S)                                                                                                                         \
  template bool leaves_room<S>();                                                                                                        \
  template bool takes_columns<S>();                                                                                                      \
  template int64_t height<S>();                                                                                                          \
  template int64_t rows_a_reading<S>();                                                                                                  \
  template int64_t packed_size<S>(int64_t, int64_t);                                                                                     \
  template int64_t columns_size<S>(int64_t, int64_t);

SIZES(float)
SIZES(double)
SIZES(Half)
SIZES(Coarse)

PRODUCTS(float, float)
PRODUCTS(double, double)
PRODUCTS(Half, float)
LOOPS(float, float)
LOOPS(double, double)
LOOPS(Half, float)

// Where two parts of a float are not faster than a whole one these are products of float.
void pack(const Coarse *b, int64_t row, int64_t column, int64_t k, int64_t n, int64_t first, int64_t last, float *panels) {
#if X86
  if (on_amx<Coarse>()) return amx::pack_split(b, row, column, k, n, first, last, panels);
#endif
  pack(&b->x, row, column, k, n, first, last, panels);
}
Left<Coarse> by_rows(const Coarse *a, int64_t row) { return {a, row, 1}; }
Left<Coarse> by_columns(const Coarse *a, int64_t row, int64_t, int64_t, Coarse *) { return {a, 1, row}; }
void multiply(Left<Coarse> a, int64_t rows, int64_t k, const float *panels, int64_t n, float *c, int64_t ldc, bool add, Meanwhile &meanwhile) {
#if X86
  if (on_amx<Coarse>()) {
    amx::product_split(a, rows, k, panels, n, c, ldc, add, meanwhile);
    return meanwhile.end();
  }
#endif
  multiply(Left<float>{&a.a->x, a.row, a.step}, rows, k, panels, n, c, ldc, add, meanwhile);
}

#define PLAIN_TILES(N) \
  void combine(N *to, const N *a, N alpha, const N *b, N beta, int64_t rows, int64_t columns, int64_t row) {                             \
    plain<N>.combine(to, a, alpha, b, beta, rows, columns, row);                                                                         \
  }                                                                                                                                      \
  void finish_sums(N *logarithms, N *sums, int64_t n) { plain<N>.finish_sums(logarithms, sums, n); }                                     \
  void pack_plain(const N *b, int64_t row, int64_t column, int64_t k, int64_t n, int64_t first, int64_t last, N *panels) {               \
    plain<N>.pack(b, row, column, k, n, first, last, panels);                                                                            \
  }                                                                                                                                      \
  void multiply_plain(Left<N> a, int64_t rows, int64_t k, const N *panels, int64_t n, N *c, int64_t ldc, bool add, Meanwhile &meanwhile) {       \
    plain<N>.multiply(a, rows, k, panels, n, c, ldc, add, meanwhile);                                                                    \
    meanwhile.end();                                                                        \
  }

PLAIN_TILES(float)
PLAIN_TILES(double)

} // namespace tiles
