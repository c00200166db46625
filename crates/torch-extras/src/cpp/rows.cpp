// Linear maps of rows together with what stands before and behind them, on the CPU.
//
// A matrix product over a whole batch reads and writes tensors that are larger than a core's cache, and LayerNorm, bias, residual and ReLU read and
// write them again, with all threads meeting after each. Here a thread takes some rows, a dozen or more, through the whole of it while they are in
// its cache:
//
//   forward    y = act(LN(x) W^T + bias + residual)            LN, bias, residual and act = ReLU each where asked for
//   backward   g = dy o [out > 0];  h = LN(x);  dx = LN'(g W) + add;  and the sums over rows that LN's scale and shift and a bias ask for
//
// The weight's own gradient, g^T h, runs over all rows: g and h are handed out for it.

#include "blocks.h"
#include "border.h"
#include "tiles.h"

#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <unistd.h>

namespace {

using kernels::Number;

// In bytes; what is usual where the system does not say.
int64_t second_level_cache() {
#ifdef _SC_LEVEL2_CACHE_SIZE
  static const int64_t found = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (found > 0) return found;
#endif
  return 1 << 20;
}

// How rows are cut for a product with a packed [k, n] factor: into blocks, of which a thread takes one at a time, few enough that all end together; and these into
// strips, which go through the whole of it. A strip is as high as a tile, but higher where the factor comes from behind the second-level cache: reading
// it takes longer than multiplying few rows.
template <typename S> struct Strips {
  int64_t rows, height, block;

  Strips(int64_t rows, int64_t k, int64_t n) : rows(rows), height(tiles::height<S>()), block(2 * height) {
    if (tiles::packed_size<S>(k, n) * static_cast<int64_t>(sizeof(Number<S>)) <= second_level_cache() / 2) return;
    height = tiles::rows_a_reading<S>(), block = std::max(height, block);
  }
  int64_t blocks() const { return (rows + block - 1) / block; }

  // Calls `work` with each strip of a block's rows and the one that this thread is likely to work on next.
  template <typename Work> void over(int64_t first, int64_t last, Work &&work) const {
    const int64_t others = (at::get_num_threads() - 1) * block;
    for (int64_t i = first; i < last; i += height) {
      const int64_t end = std::min(last, i + height), next = std::min(rows, end < last ? end : last + others);
      work(i, end, next, std::min(rows, next + height) - next);
    }
  }
};

template <typename T> T *data(const at::Tensor *t) { return t == nullptr ? nullptr : t->data_ptr<T>(); }

at::ScalarType number_kind(const at::Tensor &t) { return t.scalar_type() == at::kBFloat16 ? at::kFloat : t.scalar_type(); }

void check(const at::Tensor *t, const char *name, at::IntArrayRef sizes, at::ScalarType kind) {
  if (t == nullptr) return;
  TORCH_CHECK(t->is_contiguous() && t->device().is_cpu() && t->sizes() == sizes && t->scalar_type() == kind, name, " must be a contiguous ",
              kind, " tensor ", sizes, " on the CPU, found ", t->scalar_type(), " ", t->sizes());
}

// libtorch's tensors in, checked; rows counted.
struct Rows {
  int64_t count, k, n;
  std::vector<int64_t> out;
};

Rows rows_of(const at::Tensor &x, const at::Tensor &weight, bool transposed) {
  TORCH_CHECK(x.dim() >= 1 && x.is_contiguous() && x.device().is_cpu(), "rows must be a contiguous CPU tensor");
  TORCH_CHECK(weight.dim() == 2 && weight.is_contiguous() && weight.scalar_type() == x.scalar_type(),
              "the weight must be a contiguous matrix of the rows' kind");
  const int64_t k = x.size(-1), in = weight.size(transposed ? 0 : 1), n = weight.size(transposed ? 1 : 0);
  TORCH_CHECK(k == in && k > 0 && n > 0, "rows of ", k, " numbers do not fit a weight ", weight.sizes());
  std::vector<int64_t> out = x.sizes().vec();
  out.back() = n;
  return {x.numel() / k, k, n, std::move(out)};
}

template <typename S>
void forward(const Rows &r, const at::Tensor &x, bool normalise, const at::Tensor *scale, const at::Tensor *shift, double eps,
             const at::Tensor &weight, bool transposed, const at::Tensor *bias, const at::Tensor *residual, bool relu, at::Tensor &y,
             at::Tensor &mean, at::Tensor &rstd) {
  using N = Number<S>;
  const S *px = x.data_ptr<S>(), *pr = data<S>(residual);
  const N *ps = data<N>(scale), *pt = data<N>(shift), *pb = data<N>(bias);
  S *py = y.data_ptr<S>();
  N *pm = normalise ? mean.data_ptr<N>() : nullptr, *pd = normalise ? rstd.data_ptr<N>() : nullptr;
  const auto panels = transposed ? packed<S>(weight, r.n, 1, r.k, r.n) : packed<S>(weight, 1, r.k, r.k, r.n);
  const N *pw = panels.template data_ptr<N>();
  const int64_t wide = tiles::padded<S>(r.n);
  const Strips<S> strips(r.count, r.k, r.n);
  const size_t scratch = piece<S>(strips.height * r.k) + piece<N>(strips.height * wide);
  over_blocks(r.count, strips.block, scratch, [&](int64_t start, int64_t end, Scratch &memory) {
    S *h = memory.take<S>(strips.height * r.k);
    N *made = memory.take<N>(strips.height * wide);
    strips.over(start, end, [&](int64_t first, int64_t last, int64_t next, int64_t soon) {
      const S *from = px + first * r.k;
      if (normalise) {
        for (int64_t i = first; i < last; i++)
          kernels::norm_row(h + (i - first) * r.k, px + i * r.k, r.k, N(eps), ps, pt, pm[i], pd[i]);
        from = h;
      }
      tiles::Ahead ahead;
      ahead.read(px + next * r.k, soon, r.k, r.k);
      ahead.read(pr ? pr + next * r.n : nullptr, soon, r.n, r.n);
      ahead.write(py + next * r.n, soon, r.n, r.n);
      tiles::multiply(tiles::by_rows(from, r.k), last - first, r.k, pw, r.n, made, wide, false, ahead);
      for (int64_t i = first; i < last; i++)
        kernels::finish_row(py + i * r.n, made + (i - first) * wide, pb, pr ? pr + i * r.n : nullptr, r.n, relu);
    });
  });
}

struct Gradients {
  at::Tensor g, h, x, scale, shift, sum;
};

// r: rows of dy (k numbers) to rows of x (n numbers).
template <typename S>
void backward(const Rows &r, const at::Tensor &dy, const at::Tensor *out, const at::Tensor &weight, const at::Tensor &x, const at::Tensor &mean,
              const at::Tensor &rstd, const at::Tensor &scale, const at::Tensor &shift, const at::Tensor *add, Gradients &found) {
  using N = Number<S>;
  const S *pdy = dy.data_ptr<S>(), *po = data<S>(out), *px = x.data_ptr<S>(), *pa = data<S>(add);
  const N *ps = scale.data_ptr<N>(), *pt = shift.data_ptr<N>(), *pm = mean.data_ptr<N>(), *pd = rstd.data_ptr<N>();
  S *pg = out ? found.g.data_ptr<S>() : nullptr, *ph = found.h.data_ptr<S>(), *pdx = found.x.data_ptr<S>();
  const auto panels = packed<S>(weight, r.n, 1, r.k, r.n);
  const N *pw = panels.template data_ptr<N>();
  const int64_t wide = tiles::padded<S>(r.n);
  // Sums over rows: each block's own, added in the blocks' order.
  const Strips<S> strips(r.count, r.k, r.n);
  auto sums = at::zeros({strips.blocks(), 3, r.n}, scale.options());
  N *psums = sums.template data_ptr<N>();
  over_blocks(r.count, strips.block, piece<N>(strips.height * wide), [&](int64_t start, int64_t end, Scratch &memory) {
    N *dh = memory.take<N>(strips.height * wide), *own = psums + start / strips.block * 3 * r.n;
    strips.over(start, end, [&](int64_t first, int64_t last, int64_t next, int64_t soon) {
      const S *from = pdy + first * r.k;
      if (out) {
        kernels::mask_row(pg + first * r.k, from, po + first * r.k, (last - first) * r.k);
        from = pg + first * r.k;
      }
      tiles::Ahead ahead;
      ahead.read(pdy + next * r.k, soon, r.k, r.k);
      ahead.read(out ? po + next * r.k : nullptr, soon, r.k, r.k);
      ahead.read(px + next * r.n, soon, r.n, r.n);
      ahead.read(pa ? pa + next * r.n : nullptr, soon, r.n, r.n);
      ahead.write(out ? pg + next * r.k : nullptr, soon, r.k, r.k);
      ahead.write(ph + next * r.n, soon, r.n, r.n);
      ahead.write(pdx + next * r.n, soon, r.n, r.n);
      tiles::multiply(tiles::by_rows(from, r.k), last - first, r.k, pw, r.n, dh, wide, false, ahead);
      const int64_t at = first * r.n;
      tiles::norm_gradient(tiles::NormRows<S>{r.n, dh, wide, px + at, pa ? pa + at : nullptr, ps, pt, pm + first, pd + first, ph + at, pdx + at,
                                              own, own + r.n, own + 2 * r.n},
                           last - first);
    });
  });
  auto total = sums.sum(0);
  found.scale = total.select(0, 0), found.shift = total.select(0, 1), found.sum = total.select(0, 2);
}

// How g^T h is cut for g [rows, m] and h [rows, n]: the result into pieces that fill a part of a core's cache, since both factors are packed once for each of
// them; and the rows, whose sums are added in the end, where there are fewer pieces than threads.
struct Cut {
  int64_t high, broad, down, across, parts, length;

  static constexpr int64_t LEAST_ROWS = 128, MOST_PARTS = 4;
  Cut(int64_t rows, int64_t m, int64_t n, size_t number) : high(m), broad(n) {
    const int64_t threads = at::get_num_threads(), room = second_level_cache() / 3 / number;
    while (high * broad > room || pieces(m, n) * MOST_PARTS < threads) {
      if (std::max(high, broad) <= 96) break;
      auto &longer = high >= broad ? high : broad;
      longer = (longer + 1) / 2;
    }
    down = (m + high - 1) / high, across = (n + broad - 1) / broad;
    parts = std::min((threads + down * across - 1) / (down * across), std::max<int64_t>(1, rows / LEAST_ROWS));
    length = (rows + parts - 1) / parts;
    parts = (rows + length - 1) / length;
  }
  int64_t pieces(int64_t m, int64_t n) const { return ((m + high - 1) / high) * ((n + broad - 1) / broad); }
};

// g^T h to `to`, [parts, m, n], a sum for each part of the rows. Rows come some hundred at a time, as many as the cache holds of both beside the piece.
template <typename S> void weight_gradient(const Cut &cut, int64_t rows, int64_t m, int64_t n, const S *pg, const S *ph, Number<S> *to) {
  using N = Number<S>;
  constexpr int64_t WIDTH = tiles::WIDTH<S>;
  const bool panelled = std::is_same_v<S, N> && !tiles::takes_columns<S>();
  const int64_t depth = panelled ? 96 : 256;
  const int64_t wide = tiles::padded<S>(cut.broad), pieces = cut.down * cut.across;
  const size_t scratch = piece<N>(cut.high * wide) + piece<N>(tiles::packed_size<S>(depth, cut.broad)) + piece<S>((depth + 1) * tiles::padded<S>(cut.high));
  over_blocks(pieces * cut.parts, 1, scratch, [&](int64_t item, int64_t, Scratch &memory) {
    const int64_t at = item % pieces, part = item / pieces, end = std::min(rows, (part + 1) * cut.length);
    const int64_t i = at / cut.across * cut.high, j = at % cut.across * cut.broad, high = std::min(cut.high, m - i), broad = std::min(cut.broad, n - j);
    // Where rows of the result have room for whole panels, it is made there.
    N *place = to + (part * m + i) * n + j;
    const bool there = broad % WIDTH == 0;
    const int64_t row = there ? n : wide;
    N *made = there ? place : memory.take<N>(cut.high * wide), *panels = memory.take<N>(tiles::packed_size<S>(depth, cut.broad));
    S *turned = memory.take<S>((depth + 1) * tiles::padded<S>(cut.high));
    for (int64_t r = part * cut.length; r < end; r += depth) {
      const int64_t k = std::min(depth, end - r), next = r + k, soon = std::min(depth, end - next);
      tiles::pack(ph + r * n + j, n, 1, k, broad, 0, tiles::padded<S>(broad) / tiles::WIDTH<S>, panels);
      tiles::Ahead ahead;
      ahead.read(pg + next * m + i, soon, high, m);
      ahead.read(ph + next * n + j, soon, broad, n);
      const bool add = r > part * cut.length;
      if (panelled) {
        // As panels of its columns, for numbers that are used together to lie together.
        if constexpr (std::is_same_v<S, N>) tiles::pack(pg + r * m + i, m, 1, k, high, 0, tiles::padded<S>(high) / WIDTH, turned);
        for (int64_t y = 0; y < high; y += WIDTH)
          tiles::multiply(tiles::Left<S>{turned + y * k, 1, WIDTH}, std::min(WIDTH, high - y), k, panels, broad, made + y * row, row, add, ahead);
      } else {
        tiles::multiply(tiles::by_columns(pg + r * m + i, m, k, high, turned), high, k, panels, broad, made, row, add, ahead);
      }
    }
    if (!there)
      for (int64_t y = 0; y < high; y++) std::memcpy(place + y * n, made + y * wide, broad * sizeof(N));
  });
}

at::Tensor *given(at::Tensor &&t) { return new at::Tensor(std::move(t)); }

} // namespace

extern "C" {

// mean and rstd come back null without `normalise`. Null pointers for what is not asked for.
char *te_rows_forward(const at::Tensor *x, bool normalise, const at::Tensor *scale, const at::Tensor *shift, double eps,
                      const at::Tensor *weight, bool transposed, const at::Tensor *bias, const at::Tensor *residual, bool relu,
                      at::Tensor **out, at::Tensor **mean, at::Tensor **rstd) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    const auto r = rows_of(*x, *weight, transposed);
    const auto kind = number_kind(*x);
    TORCH_CHECK((scale == nullptr) == (shift == nullptr), "a scale goes with a shift");
    check(scale, "the scale", {r.k}, kind);
    check(shift, "the shift", {r.k}, kind);
    check(bias, "the bias", {r.n}, kind);
    check(residual, "the residual", r.out, x->scalar_type());
    auto y = at::empty(r.out, x->options());
    at::Tensor m, d;
    if (normalise) m = at::empty({r.count}, x->options().dtype(kind)), d = at::empty_like(m);
    by_kind(x->scalar_type(), "rows", [&](auto s) {
      forward<decltype(s)>(r, *x, normalise, scale, shift, eps, *weight, transposed, bias, residual, relu, y, m, d);
    });
    *out = given(std::move(y));
    if (normalise) *mean = given(std::move(m)), *rstd = given(std::move(d));
  });
}

// found: g (null without `out`), h, dx, dscale, dshift, sum of dx.
char *te_rows_backward(const at::Tensor *dy, const at::Tensor *out, const at::Tensor *weight, const at::Tensor *x, const at::Tensor *mean,
                       const at::Tensor *rstd, const at::Tensor *scale, const at::Tensor *shift, const at::Tensor *add, at::Tensor **found) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    const auto r = rows_of(*dy, *weight, true);
    const auto kind = number_kind(*dy);
    check(out, "the output", dy->sizes(), dy->scalar_type());
    check(x, "the input", r.out, dy->scalar_type());
    check(add, "what is added", r.out, dy->scalar_type());
    check(mean, "the mean", {r.count}, kind);
    check(rstd, "the inverse deviation", {r.count}, kind);
    check(scale, "the scale", {r.n}, kind);
    check(shift, "the shift", {r.n}, kind);
    Gradients g;
    if (out) g.g = at::empty_like(*dy);
    g.h = at::empty_like(*x), g.x = at::empty_like(*x);
    by_kind(dy->scalar_type(), "rows", [&](auto s) { backward<decltype(s)>(r, *dy, out, *weight, *x, *mean, *rstd, *scale, *shift, add, g); });
    if (out) found[0] = given(std::move(g.g));
    found[1] = given(std::move(g.h)), found[2] = given(std::move(g.x));
    found[3] = given(std::move(g.scale)), found[4] = given(std::move(g.shift)), found[5] = given(std::move(g.sum));
  });
}

// g^T h, [m, n], in the kind that sums are taken in.
char *te_weight_gradient(const at::Tensor *g, const at::Tensor *h, at::Tensor **result) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    TORCH_CHECK(g->dim() >= 1 && h->dim() >= 1 && g->numel() > 0 && h->numel() > 0, "rows of numbers are expected, found ", g->sizes(), " and ",
                h->sizes());
    const int64_t m = g->size(-1), n = h->size(-1), rows = g->numel() / m;
    TORCH_CHECK(rows == h->numel() / n, "as many rows are expected of both, found ", rows, " and ", h->numel() / n);
    check(g, "the gradient", g->sizes(), h->scalar_type());
    check(h, "the input", h->sizes(), h->scalar_type());
    const Cut cut(rows, m, n, h->scalar_type() == at::kDouble ? sizeof(double) : sizeof(float));
    auto made = at::empty({cut.parts, m, n}, h->options().dtype(number_kind(*h)));
    by_kind(h->scalar_type(), "rows", [&](auto number) {
      using S = decltype(number);
      weight_gradient<S>(cut, rows, m, n, g->data_ptr<S>(), h->data_ptr<S>(), made.template data_ptr<Number<S>>());
    });
    auto sum = made.select(0, 0);
    for (int64_t part = 1; part < cut.parts; part++) sum = part == 1 ? at::add(sum, made.select(0, 1)) : sum.add_(made.select(0, part));
    *result = given(std::move(sum));
  });
}

} // extern "C"
