// What a coding rate is the logarithm of, and what its gradient divides by: M = I + gamma W W^T for some tokens W, or I + gamma W^T W where there are
// fewer tokens than dimensions; both have one determinant.
//
// Formed, eliminated and solved while it lies in a core's cache. Products keep the digits of G, the elimination in float64.
#pragma once

#include "blocks.h"
#include "tiles.h"

template <typename G> class Volume {
public:
  // What is wanted next, fetched during products.
  tiles::Meanwhile meanwhile;

  // Of `n` tokens with `p` numbers each.
  Volume(int64_t n, int64_t p) : by_tokens(n < p), side(std::min(n, p)), depth(std::max(n, p)), wide(tiles::padded<G>(side)), line((side + 7) / 8 * 8) {}

  // Room for `rate`, and for `resolve`.
  size_t bytes() const {
    return piece<G>(packed_size()) + piece<G>(side * depth) + piece<G>(std::max(side, depth)) + piece<G>(side * wide) + 2 * piece<double>(side) +
           piece<double>(side * line) + piece<G>(side * side) + piece<G>(side) + piece<G>(tiles::PLAIN_HEIGHT * wide);
  }
  // The same one with a thread's memory to work in.
  Volume in(Scratch &memory) const {
    Volume own = *this;
    own.room(memory);
    return own;
  }

  // 1/2 logdet M of the tokens w, a row each, rows `row` apart. They are taken from their mean first: before training tokens are nearly one, and what tells them
  // apart is smaller than what float sums round away.
  double rate(const G *w, int64_t row, double gamma) {
    const int64_t p = by_tokens ? depth : side, n = by_tokens ? side : depth;
    kernels::centre(centred, mean, w, n, p, row, by_tokens, e, f);
    if (by_tokens) tiles::pack(centred, 1, p, p, n, 0, wide / tiles::WIDTH<G>, panels);
    else tiles::pack(centred, p, 1, n, p, 0, wide / tiles::WIDTH<G>, panels);
    strips(side, tiles::height<G>(), [&](int64_t first, int64_t last) {
      const auto left = by_tokens ? tiles::by_rows(centred + first * p, p)
                                  : tiles::by_columns(centred + first, p, n, last - first, static_cast<G *>(nullptr));
      tiles::multiply(left, last - first, depth, panels, last, gram + first * wide, wide, false, meanwhile);
    });
    kernels::complete(m, line, gram, wide, side, e, f, gamma);
    return kernels::log_det(m, side, line) / 2;
  }

  // W (I + gamma W^T W)^-1 of the tokens whose rate was taken last, in rows of p numbers, `to_row` apart.
  void resolve(const G *w, int64_t row, G *to, int64_t to_row) {
    for (int64_t i = 0; i < side; i++) {
      for (int64_t j = i; j < side; j++) factor[i * side + j] = static_cast<G>(m[i * line + j]);
      pivots[i] = 1 / factor[i * side + i];
    }
    constexpr int64_t width = tiles::WIDTH<G>;
    if (by_tokens) {
      // (I + gamma W W^T)^-1 W is the same.
      tiles::pack_plain(w, row, 1, side, depth, 0, tiles::padded<G>(depth) / width, panels);
      for (int64_t j = 0; j < depth; j += width) {
        solve(panels + j * side);
        for (int64_t i = 0; i < side; i++) std::copy_n(panels + j * side + i * width, std::min(width, depth - j), to + i * to_row + j);
      }
    } else {
      // The inverse, column by column, lies as a right factor does.
      for (int64_t j = 0; j < side; j += width) {
        G *unit = panels + j * side;
        std::fill_n(unit, side * width, G(0));
        for (int64_t i = j; i < std::min(side, j + width); i++) unit[i * width + i - j] = 1;
        solve(unit);
      }
      strips(depth, tiles::PLAIN_HEIGHT, [&](int64_t first, int64_t last) {
        tiles::multiply_plain(tiles::by_rows(w + first * row, row), last - first, side, panels, side, made, wide, false, meanwhile);
        for (int64_t i = first; i < last; i++) std::copy_n(made + (i - first) * wide, side, to + i * to_row);
      });
    }
  }

private:
  // Of the tokens behind their product with themselves, and of what is solved for.
  size_t packed_size() const { return std::max(tiles::packed_size<G>(depth, side), tiles::packed_size<G>(side, depth)); }

  void room(Scratch &memory) {
    panels = memory.take<G>(packed_size());
    centred = memory.take<G>(side * depth);
    mean = memory.take<G>(std::max(side, depth));
    gram = memory.take<G>(side * wide);
    e = memory.take<double>(side);
    f = memory.take<double>(side);
    m = memory.take<double>(side * line);
    factor = memory.take<G>(side * side);
    pivots = memory.take<G>(side);
    made = memory.take<G>(tiles::PLAIN_HEIGHT * wide);
  }

  template <typename Work> static void strips(int64_t rows, int64_t height, Work &&work) {
    for (int64_t i = 0; i < rows; i += height) work(i, std::min(rows, i + height));
  }

  // A panel of right-hand sides becomes the solution. With C = D L^T, the rows that elimination kept: L y = b, then C x = y, where y is kept as y / D.
  void solve(G *panel) {
    constexpr int64_t width = tiles::WIDTH<G>;
    constexpr int64_t height = tiles::PLAIN_HEIGHT;
    strips(side, height, [&](int64_t first, int64_t last) {
      if (first > 0)
        tiles::multiply_plain(tiles::by_columns(factor + first, side, first, last - first, static_cast<G *>(nullptr)), last - first, first, panel, width,
                        made, width, false, meanwhile);
      for (int64_t i = first; i < last; i++)
        kernels::substitute(panel + i * width, pivots[i], first > 0 ? made + (i - first) * width : nullptr, panel + first * width,
                            factor + first * side + i, side, i - first, pivots[i]);
    });
    for (int64_t first = (side - 1) / height * height; first >= 0; first -= height) {
      const int64_t last = std::min(side, first + height), behind = side - last;
      if (behind > 0)
        tiles::multiply_plain(tiles::by_rows(factor + first * side + last, side), last - first, behind, panel + last * width, width, made, width, false,
                        meanwhile);
      for (int64_t i = last - 1; i >= first; i--)
        kernels::substitute(panel + i * width, G(1), behind > 0 ? made + (i - first) * width : nullptr, panel + (i + 1) * width,
                            factor + i * side + i + 1, 1, last - i - 1, pivots[i]);
    }
  }

  bool by_tokens;
  // Rows of `gram` are `wide` apart, those of `m` begin at cache lines.
  int64_t side, depth, wide, line;
  G *panels, *centred, *mean, *gram, *factor, *pivots, *made;
  double *e, *f, *m;
};
