// Products of matrices small enough for a core's cache, by tiles of the result that live in registers.
//
// A BLAS is called with matrices that lie in memory, and copies both factors into an order of its own at every call. Here the right factor is packed once and
// used for all rows, the left one is read where it lies, and what stands before and behind the product (LayerNorm, softmax, bias) works on
// the same few rows while they are in the first-level cache.
//
//   C [rows, n] = A [rows, k] B [k, n]
//
// B is cut into panels of WIDTH columns, [k][WIDTH] each, filled up with zeros; a tile is up to `height` rows by one panel. Sums are taken in Number<S>. Like the
// loops in kernels.h, chosen for the CPU when the program starts: AVX-512 (with its bf16 products where it has them), AVX2, any. With AMX products of bf16
// and of float are taken by that, in the order of its own that packed factors then have (generation/amx.h, split.h).
#pragma once

#include "kernels.h"

namespace tiles {

using kernels::Coarse;
using kernels::Half;
using kernels::Number;

// Columns of a panel: two cache lines.
template <typename S> constexpr int64_t WIDTH = 128 / sizeof(Number<S>);
// Rows that are best taken through what stands before and behind a product together: some tiles' at most, and more where the packed factor is larger than a
// core's cache and it pays to read it for more rows at once. There are HEIGHT at most of either.
template <typename S> int64_t height();
template <typename S> int64_t rows_a_reading();
constexpr int64_t HEIGHT = 128;

// Whether products of bf16 are several times as fast as those of float.
bool halves_are_fast();
// Whether `multiply` leaves the parts of a core that compute vectors idle.
template <typename S> bool leaves_room();
// Whether `multiply` is as fast with columns for its left factor as with rows.
template <typename S> bool takes_columns();

template <typename S> constexpr int64_t padded(int64_t n) { return (n + WIDTH<S> - 1) / WIDTH<S> * WIDTH<S>; }

// Numbers of Number<S> that the packed form of a [k, n] matrix takes, panel behind panel.
template <typename S> int64_t packed_size(int64_t k, int64_t n);

// Numbers of S that `by_columns` may write.
template <typename S> int64_t columns_size(int64_t k, int64_t rows);

// Element (i, q) of the left factor is a[i * row + q * step]; either may be 1. With `paired` two neighbours of k lie together, (i, 2q) and
// (i, 2q + 1) at a[i * row + q * step].
template <typename S> struct Left {
  const S *a;
  int64_t row, step;
};

// What is done while a product is computed. Memory that is wanted behind it is asked for line by line, so that nobody waits for it later. And work of other rows is
// done item by item between its steps, where that keeps parts of a core busy which it leaves idle: tiles and vectors are computed by different ones. What is left
// over, or all of it where a product has no such steps, is done behind it.
class Meanwhile {
public:
  // `rows` rows of `length` numbers, `stride` numbers apart; nothing where `from` is null.
  template <typename T> void read(const T *from, int64_t rows, int64_t length, int64_t stride) { want(from, rows, length, stride, false); }
  template <typename T> void write(const T *from, int64_t rows, int64_t length, int64_t stride) { want(from, rows, length, stride, true); }

  // Asks for the next `lines` cache lines.
  void some(int64_t lines) {
    while (lines > 0 && at < count) {
      const Area &area = areas[at];
      for (; lines > 0 && offset < area.length; offset += LINE, lines--) {
        const char *address = area.from + row * area.stride + offset;
        if (area.written) __builtin_prefetch(address, 1, 2);
        else __builtin_prefetch(address, 0, 2);
      }
      if (offset >= area.length && (offset = 0, ++row == area.rows)) row = 0, at++;
    }
  }

  // `work(i)` for every item.
  template <typename Work> void each(int64_t items, Work &work) {
    call = [](void *given, int64_t i) { (*static_cast<Work *>(given))(i); };
    context = &work, left = items, item = 0;
  }

  // For products: they take so many steps, this is one, and the last one is done.
  void begin(int64_t count) { steps = count, pace = left, credit = 0; }
  void step(int64_t lines) {
    some(lines);
    for (credit += pace; left > 0 && credit >= steps; credit -= steps, left--) call(context, item++);
  }
  void end() {
    for (; left > 0; left--) call(context, item++);
  }

private:
  static constexpr int64_t LINE = 64;
  struct Area {
    const char *from;
    int64_t rows, length, stride;
    bool written;
  };

  template <typename T> void want(const T *from, int64_t rows, int64_t length, int64_t stride, bool written) {
    constexpr int64_t size = sizeof(T);
    if (from == nullptr || rows <= 0 || count == MOST) return;
    areas[count++] = {reinterpret_cast<const char *>(from), rows, length * size, stride * size, written};
  }

  static constexpr int MOST = 8;
  Area areas[MOST];
  int count = 0, at = 0;
  int64_t row = 0, offset = 0;

  void (*call)(void *, int64_t) = nullptr;
  void *context = nullptr;
  int64_t left = 0, item = 0, pace = 0, steps = 1, credit = 0;
};

// While one lives, this thread's products leave set up for each other what they need of the core. Nothing else may need it then: a session is for loops over blocks, and
// none may begin within another.
class Session {
public:
  Session();
  ~Session();
  Session(const Session &) = delete;
};

// Rows before a layer norm, to = (x - mean) / deviation scale + shift; scale and shift may be null together.
template <typename S> struct NormedRows {
  using N = Number<S>;
  int64_t n;
  N eps;
  const S *x;
  const N *scale, *shift;
  S *to;
  N *mean, *rstd;

  // Those that begin at `row`, which go to another place.
  NormedRows from(int64_t row, S *place) const {
    auto rows = *this;
    rows.x += row * n, rows.to = place, rows.mean += row, rows.rstd += row;
    return rows;
  }
};

// Rows behind a layer norm and the gradient dy by what it gave, whose rows are `dy_row` apart: h gets the normalised rows again, dx the gradient by x
// plus `add` where that is not null; by_scale, by_shift and sum are added to: the gradients by scale and shift, and the sum of dx.
template <typename S> struct NormRows {
  using N = Number<S>;
  int64_t n;
  const N *dy;
  int64_t dy_row;
  const S *x, *add;
  const N *scale, *shift, *mean, *rstd;
  S *h, *dx;
  N *by_scale, *by_shift, *sum;

  NormRows from(int64_t row) const {
    auto rows = *this;
    rows.dy += row * dy_row, rows.x += row * n, rows.add += add == nullptr ? 0 : row * n, rows.mean += row, rows.rstd += row, rows.h += row * n, rows.dx += row * n;
    return rows;
  }
};

#define WHITEBOX_PRODUCTS(S, N)                                                                                                              \
  /* Panels `first` to `last` of B, whose element (q, j) is b[q * row + j * column]; row or column is 1. */                              \
  void pack(const S *b, int64_t row, int64_t column, int64_t k, int64_t n, int64_t first, int64_t last, N *panels);                      \
  /* A whose rows follow each other at a distance of `row`, */                                                                           \
  Left<S> by_rows(const S *a, int64_t row);                                                                                              \
  /* and A = a^T for a [k, rows], rows of a at a distance of `row`; `scratch` has room for columns_size<S>(k, rows). */    \
  Left<S> by_columns(const S *a, int64_t row, int64_t k, int64_t rows, S *scratch);                                                      \
  /* c = A B, or c += A B with `add`. Whole vectors of c are written: its rows have room for padded(n) numbers. */                       \
  void multiply(Left<S> a, int64_t rows, int64_t k, const N *panels, int64_t n, N *c, int64_t ldc, bool add, Meanwhile &meanwhile);

#define WHITEBOX_LOOPS(S, N)                                                                                                              \
  /* q + q^T of an n x n matrix, in place; there is room for multiples of sixteen rows and columns, rows are `row` apart. */             \
  void add_transpose(S *q, int64_t n, int64_t row);                                                                                      \
  /* Scores x to the map exp(scale (x - max)), which may begin where they do; returns scale max and hands out the sum. */ \
  N exp_row(S *map, N *scores, int64_t n, N scale, N &sum);                                                                              \
  /* From scores s and the gradient c by the attention map: the map a = exp(scale s - lse) and q = scale a (c - delta). */               \
  void attention_gradient_row(S *q, S *a, const N *s, const N *c, int64_t n, N scale, N lse, N delta);                                   \
  N dot(const S *a, const S *b, int64_t n);                                                                                              \
  /* to = factor from for rows of n numbers, each with its own factor, or 1 for all where `factors` is null. */                           \
  void scale_rows(S *to, int64_t to_row, const N *from, int64_t from_row, int64_t rows, int64_t n, const N *factors);                      \
  /* to = from + bias + residual, negative numbers to zero where `relu`; bias and residual may be null. */                               \
  void finish_row(S *to, const N *from, const N *bias, const S *residual, int64_t n, bool relu);                                         \
  void norm_rows(const NormedRows<S> &r, int64_t rows);                                                                  \
  void norm_gradient(const NormRows<S> &r, int64_t rows);

WHITEBOX_PRODUCTS(float, float)
WHITEBOX_PRODUCTS(double, double)
WHITEBOX_PRODUCTS(Half, float)
WHITEBOX_PRODUCTS(Coarse, float)
WHITEBOX_LOOPS(float, float)
WHITEBOX_LOOPS(double, double)
WHITEBOX_LOOPS(Half, float)

#undef WHITEBOX_PRODUCTS
#undef WHITEBOX_LOOPS

// Of numbers themselves. Products with panels that are [k][WIDTH] on every CPU, for what is made in them or taken from them.
#define WHITEBOX_PLAIN_TILES(N)                                                                                                           \
  /* to = alpha a + beta b^T, rows x columns, all rows `row` apart; a may be null, or `to`. */                                                                  \
  void combine(N *to, const N *a, N alpha, const N *b, N beta, int64_t rows, int64_t columns, int64_t row);                              \
  /* What exp_row has left of some rows: log(sum) is added to each logarithm, and sums become their inverses. */                          \
  void finish_sums(N *logarithms, N *sums, int64_t n);                                                                                     \
  void pack_plain(const N *b, int64_t row, int64_t column, int64_t k, int64_t n, int64_t first, int64_t last, N *panels);                 \
  void multiply_plain(Left<N> a, int64_t rows, int64_t k, const N *panels, int64_t n, N *c, int64_t ldc, bool add, Meanwhile &meanwhile);

WHITEBOX_PLAIN_TILES(float)
WHITEBOX_PLAIN_TILES(double)

#undef WHITEBOX_PLAIN_TILES

// Rows of their tiles.
constexpr int64_t PLAIN_HEIGHT = 12;

} // namespace tiles
