// A matrix that many rows are multiplied by, a x B, packed once.
//
// Where the CPU multiplies bf16 ten times as fast as float (AMX), a float factor is the sum of two in bf16, and so are the rows:
//
//   a = a1 + a2, B = B1 + B2      a B = a1 B1 + a1 B2 + a2 B1      in float sums; what is left out is 3 x 2^-18 of a product at most, of either sign
//
// which in sums of some hundred products is near what float sums round away themselves, and takes half the time of the six products that keep a float's digits (generation/split.h).
// For measures alone.
#pragma once

#include "blocks.h"
#include "tiles.h"

#include <ATen/ops/sub.h>

template <typename N> class Factor {
public:
  using Half = kernels::Half;

  // Element (q, j) of B, [k, n], is number q * row + j * column of `matrix`; row or column is 1.
  Factor(const at::Tensor &matrix, int64_t row, int64_t column, int64_t k, int64_t n) : split(std::is_same_v<N, float> && tiles::halves_are_fast()), k(k), n(n) {
    if (!split) {
      upper = packed<N>(matrix, row, column, k, n);
      return;
    }
    const auto high = matrix.to(at::kBFloat16), low = at::sub(matrix, high).to(at::kBFloat16);
    upper = packed<Half>(high, row, column, k, n);
    lower = packed<Half>(low, row, column, k, n);
  }

  // What `multiply` works in, for so many rows.
  size_t bytes(int64_t rows) const { return split ? piece<Half>(2 * rows * k) : 0; }
  Half *room(int64_t rows, Scratch &memory) const { return split ? memory.take<Half>(2 * rows * k) : nullptr; }

  // to = a B for `rows` rows of k numbers; `to` has rows `wide` numbers apart, with room for whole panels.
  void multiply(const N *a, int64_t rows, N *to, int64_t wide, Half *room, tiles::Meanwhile &meanwhile) const {
    if constexpr (std::is_same_v<N, float>) {
      if (split) return multiply_split(a, rows, to, wide, room, meanwhile);
    }
    tiles::multiply(tiles::by_rows(a, k), rows, k, upper.data_ptr<N>(), n, to, wide, false, meanwhile);
  }

private:
  void multiply_split(const float *a, int64_t rows, float *to, int64_t wide, Half *room, tiles::Meanwhile &meanwhile) const {
    Half *high = room, *low = room + rows * k;
    kernels::split(high, low, a, rows * k);
    const float *big = upper.data_ptr<float>(), *small = lower.data_ptr<float>();
    tiles::multiply(tiles::by_rows(high, k), rows, k, big, n, to, wide, false, meanwhile);
    tiles::multiply(tiles::by_rows(high, k), rows, k, small, n, to, wide, true, meanwhile);
    tiles::multiply(tiles::by_rows(low, k), rows, k, big, n, to, wide, true, meanwhile);
  }

  bool split;
  int64_t k, n;
  at::Tensor upper, lower;
};
