// From images to tokens and back to the embedding's parameters, on the CPU: what stands before and behind the linear map of patches.
//
//   patches    h = (patch - mean) / deviation                    for every patch, its numbers in the order (channel, row, column)
//   tokens     z = [class; LN(x)] + positions
//   backward   dx = LN'(dz);  and the sums over rows that LN's scale and shift, a bias, the class token and the positions ask for
//
// Patches are in the images' numbers until they are normalised: bf16 has too few digits for patches whose pixels differ little.

#include "blocks.h"
#include "border.h"
#include "tiles.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

namespace {

using kernels::Number;

struct Grid {
  int64_t channels, rows, columns, high, broad;
  int64_t length() const { return channels * high * broad; }
};

// Row `r` of the patches of image [channels, rows high, columns broad], one patch behind the other.
template <typename N> void cut(const Grid &g, const N *image, int64_t r, N *to) {
  const int64_t width = g.columns * g.broad;
  for (int64_t line = 0; line < g.channels * g.high; line++) {
    const int64_t channel = line / g.high, i = line % g.high;
    const N *from = image + (channel * g.rows * g.high + r * g.high + i) * width;
    for (int64_t c = 0; c < g.columns; c++) std::memcpy(to + c * g.length() + line * g.broad, from + c * g.broad, g.broad * sizeof(N));
  }
}

template <typename S> void patches(const Grid &g, const at::Tensor &images, double eps, at::Tensor &found) {
  using N = Number<S>;
  const int64_t row = g.columns * g.length(), count = images.size(0) * g.rows;
  constexpr bool converts = !std::is_same_v<S, N>;
  const size_t bytes = (converts ? 2 : 1) * piece<N>(row) + 2 * piece<N>(g.columns);
  over_blocks(count, 1, bytes, [&](int64_t item, int64_t, Scratch &memory) {
    N *raw = memory.take<N>(row);
    S *to = found.data_ptr<S>() + item * row;
    cut(g, images.data_ptr<N>() + item / g.rows * g.rows * g.high * g.columns * g.broad * g.channels, item % g.rows, raw);
    tiles::NormedRows<N> norm{g.length(), N(eps), raw, nullptr, nullptr, nullptr, memory.take<N>(g.columns), memory.take<N>(g.columns)};
    if constexpr (converts) {
      norm.to = memory.take<N>(row);
      tiles::norm_rows(norm, g.columns);
      tiles::scale_rows(to, row, norm.to, row, 1, row, nullptr);
    } else {
      norm.to = to;
      tiles::norm_rows(norm, g.columns);
    }
  });
}

// Samples of n rows of d numbers, without and with the class token's. Rows of one sample, or of all, are worked on some at a time.
struct Samples {
  int64_t batch, n, d;

  static constexpr int64_t TOGETHER = 16;
  int64_t blocks() const { return (n + TOGETHER - 1) / TOGETHER; }
  int64_t place(int64_t b, int64_t i) const { return (b * (n + 1) + 1 + i) * d; }
};

template <typename S>
void tokens(const Samples &s, const at::Tensor &x, const at::Tensor &scale, const at::Tensor &shift, double eps, const at::Tensor &first,
            const at::Tensor &positions, at::Tensor &z, at::Tensor &mean, at::Tensor &rstd) {
  using N = Number<S>;
  const tiles::NormedRows<S> norm{s.d, N(eps), x.data_ptr<S>(), scale.data_ptr<N>(), shift.data_ptr<N>(), nullptr, mean.data_ptr<N>(), rstd.data_ptr<N>()};
  const N *table = positions.data_ptr<N>(), *none = nullptr;
  S *pz = z.data_ptr<S>();
  over_blocks(s.batch * s.blocks(), 1, 0, [&](int64_t item, int64_t, Scratch &) {
    const int64_t b = item / s.blocks(), i = item % s.blocks() * Samples::TOGETHER, count = std::min(Samples::TOGETHER, s.n - i);
    S *to = pz + s.place(b, i);
    tiles::norm_rows(norm.from(b * s.n + i, to), count);
    tiles::finish_row(to, table + (1 + i) * s.d, none, to, count * s.d, false);
    if (i == 0) tiles::finish_row(to - s.d, table, first.data_ptr<N>(), static_cast<const S *>(nullptr), s.d, false);
  });
}

struct Gradients {
  at::Tensor x, scale, shift, sum, positions;
};

template <typename S>
void tokens_backward(const Samples &s, const at::Tensor &grad, const at::Tensor &x, const at::Tensor &mean, const at::Tensor &rstd, const at::Tensor &scale,
                     const at::Tensor &shift, Gradients &found) {
  using N = Number<S>;
  const S *pg = grad.data_ptr<S>();
  N *table = found.positions.data_ptr<N>();
  const int64_t most = Samples::TOGETHER * s.d;
  BlockSums<N> sums(s.blocks(), s.d);
  const tiles::NormRows<S> norm{s.d, nullptr, s.d, x.data_ptr<S>(), nullptr, scale.data_ptr<N>(), shift.data_ptr<N>(), mean.data_ptr<N>(), rstd.data_ptr<N>(),
                                nullptr, found.x.data_ptr<S>(), nullptr, nullptr, nullptr};
  over_blocks(s.blocks(), 1, piece<N>(most) + piece<S>(most), [&](int64_t block, int64_t, Scratch &memory) {
    const int64_t i = block * Samples::TOGETHER, count = std::min(Samples::TOGETHER, s.n - i);
    N *dy = memory.take<N>(most), *sum = sums.begin(block);
    S *h = memory.take<S>(most);
    for (int64_t b = 0; b < s.batch; b++) {
      if (i == 0) {
        kernels::scale_into(dy, pg + s.place(b, -1), s.d, N(1));
        add_to(table, dy, s.d);
      }
      kernels::scale_into(dy, pg + s.place(b, i), count * s.d, N(1));
      add_to(table + (1 + i) * s.d, dy, count * s.d);
      auto some = norm;
      const int64_t row = b * s.n + i;
      some.x += row * s.d, some.mean += row, some.rstd += row, some.dx += row * s.d;
      some.dy = dy, some.h = h, some.by_scale = sum, some.by_shift = sum + s.d, some.sum = sum + 2 * s.d;
      tiles::norm_gradient(some, count);
    }
    sums.done(block);
  });
  const auto total = sums.total();
  found.scale = total.select(0, 0), found.shift = total.select(0, 1), found.sum = total.select(0, 2);
}

Samples samples_of(const at::Tensor &x, const at::Tensor &scale, const at::Tensor &shift) {
  TORCH_CHECK(x.dim() == 3 && x.is_contiguous() && x.device().is_cpu() && x.numel() > 0, "embedded patches must be a contiguous CPU tensor [B, N, d], found ",
              x.sizes());
  check(&scale, "the scale", {x.size(2)}, number_kind(x.scalar_type()));
  check(&shift, "the shift", {x.size(2)}, number_kind(x.scalar_type()));
  return {x.size(0), x.size(1), x.size(2)};
}

} // namespace

extern "C" {

// In the images' kind, or with `halves` in bf16 from Float.
char *te_patches(const at::Tensor *images, int64_t high, int64_t broad, double eps, bool halves, at::Tensor **result) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    const auto wanted = halves ? at::kBFloat16 : images->scalar_type();
    TORCH_CHECK(images->dim() == 4 && images->is_contiguous() && images->device().is_cpu() && images->numel() > 0 && high > 0 && broad > 0 &&
                    images->size(2) % high == 0 && images->size(3) % broad == 0 && images->scalar_type() == number_kind(wanted),
                "images must be a contiguous CPU tensor [B, C, H, W] in ", number_kind(wanted), " that patches of ", high, " x ", broad, " divide, found ",
                images->sizes(), " in ", images->scalar_type());
    const Grid g{images->size(1), images->size(2) / high, images->size(3) / broad, high, broad};
    auto found = at::empty({images->size(0), g.rows * g.columns, g.length()}, images->options().dtype(wanted));
    by_kind(wanted, "patches", [&](auto number) { patches<decltype(number)>(g, *images, eps, found); });
    *result = new at::Tensor(std::move(found));
  });
}

// found: tokens, mean, rstd.
char *te_tokens(const at::Tensor *x, const at::Tensor *scale, const at::Tensor *shift, double eps, const at::Tensor *first, const at::Tensor *positions,
                at::Tensor **found) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    const auto s = samples_of(*x, *scale, *shift);
    check(first, "the class token", {s.d}, scale->scalar_type());
    check(positions, "the positions", {s.n + 1, s.d}, scale->scalar_type());
    auto z = at::empty({s.batch, s.n + 1, s.d}, x->options()), mean = at::empty({s.batch * s.n}, scale->options()), rstd = at::empty_like(mean);
    by_kind(x->scalar_type(), "tokens", [&](auto number) { tokens<decltype(number)>(s, *x, *scale, *shift, eps, *first, *positions, z, mean, rstd); });
    at::Tensor *all[] = {&z, &mean, &rstd};
    for (int i = 0; i < 3; i++) found[i] = new at::Tensor(std::move(*all[i]));
  });
}

// found: by x, scale, shift, by a bias that was added to x, and by the positions.
char *te_tokens_backward(const at::Tensor *grad, const at::Tensor *x, const at::Tensor *mean, const at::Tensor *rstd, const at::Tensor *scale,
                         const at::Tensor *shift, at::Tensor **found) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    const auto s = samples_of(*x, *scale, *shift);
    check(grad, "the gradient", {s.batch, s.n + 1, s.d}, x->scalar_type());
    check(mean, "the mean", {s.batch * s.n}, scale->scalar_type());
    check(rstd, "the inverse deviation", {s.batch * s.n}, scale->scalar_type());
    Gradients g;
    g.x = at::empty_like(*x), g.positions = at::zeros({s.n + 1, s.d}, scale->options());
    by_kind(x->scalar_type(), "tokens", [&](auto number) { tokens_backward<decltype(number)>(s, *grad, *x, *mean, *rstd, *scale, *shift, g); });
    at::Tensor *all[] = {&g.x, &g.scale, &g.shift, &g.sum, &g.positions};
    for (int i = 0; i < 5; i++) found[i] = new at::Tensor(std::move(*all[i]));
  });
}

} // extern "C"
