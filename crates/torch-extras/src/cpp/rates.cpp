// Coding rates of tokens, head by head, in float64.
//
//   W_k = [w_1, ...], scaled to unit norm or as they are      R_k = 1/2 logdet(I + gamma W_k W_k^T), or with W_k^T W_k where there are fewer tokens than dimensions
//
// A head's rows are scaled, packed, multiplied (lower triangle only) and eliminated while they lie in a core's cache. libtorch's operations, one
// after the other over the whole batch, move every token several times and factorise the matrices on one thread.

#include "blocks.h"
#include "border.h"
#include "tiles.h"

#include <ATen/ops/empty.h>

#include <cmath>

namespace {

// Below this a token's norm counts as zero.
constexpr double NORM_FLOOR = 1e-12;

double number(float x) { return x; }
double number(double x) { return x; }
double number(kernels::Half x) { return static_cast<float>(x); }

// The rows of a head one after the other, scaled to unit norm where that is asked for.
template <typename S> void taken(const S *w, int64_t n, int64_t p, int64_t row, bool scale, double *unit) {
  for (int64_t i = 0; i < n; i++) {
    const S *from = w + i * row;
    double *to = unit + i * p, sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < p; j++) to[j] = number(from[j]), sum += to[j] * to[j];
    if (!scale) continue;
    // Not max(): what is no number must stay none.
    const double norm = std::sqrt(sum), factor = 1 / (norm < NORM_FLOOR ? NORM_FLOOR : norm);
#pragma omp simd
    for (int64_t j = 0; j < p; j++) to[j] *= factor;
  }
}

// The sum over a sample's heads, for each sample.
template <typename S> void rates(const at::Tensor &w, int64_t heads, double gamma, bool unit_norm, double *by_head) {
  const int64_t n = w.size(1), row = w.size(2), p = row / heads;
  const bool by_tokens = n < p;
  const int64_t side = by_tokens ? n : p, depth = by_tokens ? p : n, wide = tiles::padded<double>(side), panel_count = wide / tiles::WIDTH<double>;
  const int64_t height = tiles::height<double>();
  const S *from = w.data_ptr<S>();
  const size_t square = piece<double>((side + height) * wide);
  const size_t bytes = piece<double>(n * p) + piece<double>(tiles::packed_size<double>(depth, side)) + square + piece<double>(4 * side);
  over_blocks(w.size(0) * heads, 1, bytes, [&](int64_t item, int64_t, Scratch &memory) {
    double *unit = memory.take<double>(n * p), *panels = memory.take<double>(tiles::packed_size<double>(depth, side));
    double *m = memory.take<double>((side + height) * wide), *columns = memory.take<double>(4 * side);
    taken(from + item / heads * n * row + item % heads * p, n, p, row, unit_norm, unit);
    if (by_tokens) tiles::pack(unit, 1, p, depth, side, 0, panel_count, panels);
    else tiles::pack(unit, p, 1, depth, side, 0, panel_count, panels);
    tiles::Ahead nothing;
    for (int64_t i = 0; i < side; i += height) {
      const int64_t end = std::min(side, i + height);
      const auto left = by_tokens ? tiles::by_rows(unit + i * p, p) : tiles::by_columns(unit + i, p, depth, end - i, static_cast<double *>(nullptr));
      tiles::multiply(left, end - i, depth, panels, end, m + i * wide, wide, false, nothing);
    }
    for (int64_t i = 0; i < side; i++) {
      for (int64_t j = 0; j <= i; j++) m[i * wide + j] *= gamma;
      m[i * wide + i] += 1;
    }
    by_head[item] = kernels::log_det(m, side, wide, columns) / 2;
  });
}

} // namespace

extern "C" char *te_coding_rates(const at::Tensor *w, int64_t heads, double gamma, bool unit_norm, at::Tensor **result) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    TORCH_CHECK(w->dim() == 3 && w->is_contiguous() && w->device().is_cpu(), "the tokens must be a contiguous CPU tensor [B, n, K p]");
    TORCH_CHECK(heads > 0 && w->size(2) > 0 && w->size(2) % heads == 0, "a width of ", w->size(2), " cannot be divided among ", heads, " heads");
    auto by_head = at::empty({w->size(0), heads}, w->options().dtype(at::kDouble));
    by_kind(w->scalar_type(), "tokens", [&](auto number) { rates<decltype(number)>(*w, heads, gamma, unit_norm, by_head.data_ptr<double>()); });
    *result = new at::Tensor(by_head.sum(1));
  });
}
