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

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

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

// How g^T h is cut for g [rows, m] and h [rows, n]: the result into pieces that fill a part of a core's cache, since both factors are packed once for each of
// them; and the rows, whose sums are added in the end, where there are fewer pieces than threads for it.
struct Cut {
  int64_t high, broad, down, across, parts, length;

  static constexpr int64_t LEAST_ROWS = 128, MOST_PARTS = 4;
  Cut(int64_t rows, int64_t m, int64_t n, size_t number, int64_t threads) : high(m), broad(n) {
    const int64_t room = second_level_cache() / 3 / number;
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

void check_rows(const at::Tensor &g, const at::Tensor &h, bool turned) {
  TORCH_CHECK(g.dim() >= 1 && h.dim() >= 1 && g.numel() > 0 && h.numel() > 0, "rows of numbers are expected, found ", g.sizes(), " and ", h.sizes());
  const int64_t rows = g.numel() / g.size(-1), others = turned ? h.size(-1) : h.numel() / h.size(-1);
  TORCH_CHECK(rows == others, "as many rows are expected of both, found ", rows, " and ", others);
  check(&g, "the gradient", g.sizes(), h.scalar_type());
  check(&h, "the input", h.sizes(), h.scalar_type());
}

// The gradient by a weight, g^T h for g [rows, m] and h [rows, n], in items that threads can take in any order. Rows come some hundred at a time, as many as the cache
// holds of both beside the piece.
template <typename S> class WeightGradient {
public:
  // With `turned` h is [n, rows].
  WeightGradient(const at::Tensor &g, const at::Tensor &h, bool turned, int64_t threads)
      : m(g.size(-1)), rows(g.numel() / m), n(h.numel() / rows), row(turned ? 1 : n), column(turned ? rows : 1),
        pg(static_cast<const S *>(g.const_data_ptr())), ph(static_cast<const S *>(h.const_data_ptr())),
        cut(rows, m, n, sizeof(N), threads), sum(at::empty({m, n}, h.options().dtype(c10::CppTypeToScalarType<N>::value))),
        more(at::empty({cut.parts - 1, m, n}, sum.options())) {}

  int64_t items() const { return cut.pieces(m, n) * cut.parts; }
  size_t bytes() const {
    return piece<N>(cut.high * wide()) + piece<N>(tiles::packed_size<S>(depth(), cut.broad)) + piece<S>(turned_size());
  }
  void compute(int64_t item, Scratch &memory) const {
    constexpr int64_t WIDTH = tiles::WIDTH<S>;
    const int64_t pieces = cut.pieces(m, n), at = item % pieces, part = item / pieces, end = std::min(rows, (part + 1) * cut.length);
    const int64_t i = at / cut.across * cut.high, j = at % cut.across * cut.broad, high = std::min(cut.high, m - i), broad = std::min(cut.broad, n - j);
    // Where rows of the result have room for whole panels, it is made there.
    N *place = (part == 0 ? sum.template data_ptr<N>() : more.template data_ptr<N>() + (part - 1) * m * n) + i * n + j;
    const bool there = broad % WIDTH == 0;
    const int64_t ldc = there ? n : wide();
    N *made = there ? place : memory.take<N>(cut.high * wide()), *panels = memory.take<N>(tiles::packed_size<S>(depth(), cut.broad));
    S *turned = memory.take<S>(turned_size());
    for (int64_t r = part * cut.length; r < end; r += depth()) {
      const int64_t k = std::min(depth(), end - r), next = r + k, soon = std::min(depth(), end - next);
      tiles::pack(ph + r * row + j * column, row, column, k, broad, 0, tiles::padded<S>(broad) / tiles::WIDTH<S>, panels);
      tiles::Meanwhile meanwhile;
      meanwhile.read(pg + next * m + i, soon, high, m);
      if (column == 1) meanwhile.read(ph + next * n + j, soon, broad, n);
      const bool add = r > part * cut.length;
      if (panelled()) {
        // As panels of its columns, for numbers that are used together to lie together.
        if constexpr (std::is_same_v<S, N>) tiles::pack(pg + r * m + i, m, 1, k, high, 0, tiles::padded<S>(high) / WIDTH, turned);
        for (int64_t y = 0; y < high; y += WIDTH)
          tiles::multiply(tiles::Left<S>{turned + y * k, 1, WIDTH}, std::min(WIDTH, high - y), k, panels, broad, made + y * ldc, ldc, add, meanwhile);
      } else {
        tiles::multiply(tiles::by_columns(pg + r * m + i, m, k, high, turned), high, k, panels, broad, made, ldc, add, meanwhile);
      }
    }
    if (!there)
      for (int64_t y = 0; y < high; y++) std::memcpy(place + y * n, made + y * wide(), broad * sizeof(N));
  }
  // When all items are done. Parts are added in their order.
  at::Tensor result() const {
    constexpr int64_t SOME = 1 << 13;
    N *to = sum.template data_ptr<N>();
    const N *from = more.template data_ptr<N>();
    if (cut.parts > 1)
      over_blocks(m * n, SOME, 0, [&](int64_t first, int64_t last, Scratch &) {
        for (int64_t part = 0; part + 1 < cut.parts; part++) add_to(to + first, from + part * m * n + first, last - first);
      });
    return sum;
  }

private:
  using N = Number<S>;
  static bool panelled() { return std::is_same_v<S, N> && !tiles::takes_columns<S>(); }
  // Rows at a time: of floats that are multiplied by their parts (split.h) as many as product_split takes in one go.
  static int64_t depth() { return panelled() ? 96 : sizeof(S) == sizeof(kernels::Half) ? 288 : 128; }
  int64_t wide() const { return tiles::padded<S>(cut.broad); }
  int64_t turned_size() const {
    return panelled() ? depth() * tiles::padded<S>(cut.high) : tiles::columns_size<S>(depth(), cut.high);
  }

  // Rows and columns of h are `row` and `column` apart.
  int64_t m, rows, n, row, column;
  const S *pg, *ph;
  Cut cut;
  at::Tensor sum, more;
};

// Some of them. They are computed by threads as their first work in a loop that has other work too: how long a part takes differs from core to core, and who is done
// first goes on with that.
template <typename S> class WeightGradients {
public:
  WeightGradients(List g, List h, size_t count, bool turned = false) : blocks(add(g, h, count, turned)) {}
  size_t bytes() const {
    size_t most = 0;
    for (const auto &one : all) most = std::max(most, one.bytes());
    return most;
  }
  void compute(int64_t share, Scratch &memory) {
    for (int64_t item = blocks.take(share); item < blocks.count; item = blocks.take(share)) {
      size_t i = 0;
      for (; item >= all[i].items(); i++) item -= all[i].items();
      memory.clear();
      all[i].compute(item, memory);
    }
  }
  void results(at::Tensor **to) const {
    for (size_t i = 0; i < all.size(); i++) to[i] = new at::Tensor(all[i].result());
  }

private:
  int64_t add(List g, List h, size_t count, bool turned) {
    int64_t items = 0;
    // Those that each of them has for itself.
    const int64_t threads = count == 0 ? 0 : (at::get_num_threads() + static_cast<int64_t>(count) - 1) / static_cast<int64_t>(count);
    for (size_t i = 0; i < count; i++) {
      check_rows(*g[i], *h[i], turned);
      items += all.emplace_back(*g[i], *h[i], turned, threads).items();
    }
    return items;
  }
  std::vector<WeightGradient<S>> all;
  Blocks blocks;
};

// How rows are cut for a product with a packed [k, n] factor: into blocks, of which a thread takes one at a time, few enough that all end together; and these into
// strips, which go through the whole of it. A strip is as high as a tile, but higher where the factor comes from behind the second-level cache: reading
// it takes longer than multiplying few rows.
template <typename S> struct Strips {
  int64_t rows, k, n, height, block;

  Strips(int64_t rows, int64_t k, int64_t n) : rows(rows), k(k), n(n), height(tiles::height<S>()), block(2 * height) {
    if (tiles::packed_size<S>(k, n) * static_cast<int64_t>(sizeof(Number<S>)) <= second_level_cache() / 2) return;
    height = tiles::rows_a_reading<S>(), block = std::max(height, block);
  }
  int64_t blocks() const { return (rows + block - 1) / block; }
};

// Rows `first` to `last` on their way: what is multiplied, where it is made for that, and the product.
template <typename S> struct Strip {
  using N = Number<S>;
  S *prepared;
  N *made;
  int64_t first = 0, last = 0;

  int64_t rows() const { return last - first; }
};

// A thread's strips, one after the other; an empty one behind the last.
template <typename S> class Supply {
public:
  Supply(const Strips<S> &strips, Blocks &blocks, int64_t share) : strips(strips), blocks(blocks), share(share) {}
  void next(Strip<S> &strip) {
    if (at == end) at = std::min(strips.rows, blocks.take(share) * strips.block), end = std::min(strips.rows, at + strips.block);
    strip.first = at, strip.last = at = std::min(end, at + strips.height);
  }

private:
  const Strips<S> &strips;
  Blocks &blocks;
  const int64_t share;
  int64_t at = 0, end = 0;
};

// Takes all rows through `map`: prepares some, multiplies them with the packed factor, and finishes them. Where a product leaves room for it the strip before it is
// finished and the one behind it prepared meanwhile, as many rows at a time as the map says. `first` is what threads do first.
template <typename S, typename Map>
void over_strips(const Strips<S> &strips, const Number<S> *panels, const Map &map, WeightGradients<S> *first = nullptr) {
  using N = Number<S>;
  const int64_t wide = tiles::padded<S>(strips.n);
  const bool meanwhile_too = tiles::leaves_room<S>();
  const auto items = [](const Strip<S> &strip, int64_t rows) { return rows == 0 ? 0 : (strip.rows() + rows - 1) / rows; };
  const auto prepare = [&](const Strip<S> &strip, int64_t item) {
    const int64_t from = item * map.prepared_together();
    map.prepare(strip.first + from, std::min(strip.last, strip.first + from + map.prepared_together()), strip.prepared + from * strips.k);
  };
  const auto finish = [&](const Strip<S> &strip, int64_t item) {
    const int64_t from = item * map.FINISHED_TOGETHER;
    map.finish(strip.first + from, std::min(strip.last, strip.first + from + map.FINISHED_TOGETHER), strip.made + from * wide, wide);
  };
  Blocks blocks(strips.blocks());
  blocks.by_threads([&](int64_t share) {
    Scratch &memory = Scratch::of_thread(std::max(first ? first->bytes() : 0, 2 * (piece<S>(strips.height * strips.k) + piece<N>(strips.height * wide))));
    if (first != nullptr) first->compute(share, memory);
    memory.clear();
    Supply<S> supply(strips, blocks, share);
    const auto place = [&] { return Strip<S>{memory.take<S>(strips.height * strips.k), memory.take<N>(strips.height * wide)}; };
    Strip<S> before = place(), now = place(), after = before;
    supply.next(now);
    for (int64_t i = 0; meanwhile_too && i < items(now, map.prepared_together()); i++) prepare(now, i);
    for (; now.rows() > 0; before = now, now = after, after = before) {
      supply.next(after);
      tiles::Meanwhile meanwhile;
      const int64_t finished = items(before, map.FINISHED_TOGETHER), prepared = items(after, map.prepared_together());
      auto work = [&](int64_t i) { i < finished ? finish(before, i) : prepare(after, i - finished); };
      if (meanwhile_too) {
        meanwhile.each(finished + prepared, work);
        map.ask_for_prepared(meanwhile, after.last, std::min(strips.rows, after.last + strips.height) - after.last);
        map.ask_for_finished(meanwhile, now.first, now.rows());
      } else {
        for (int64_t i = 0; i < items(now, map.prepared_together()); i++) prepare(now, i);
        map.ask_for_prepared(meanwhile, after.first, after.rows());
        map.ask_for_finished(meanwhile, after.first, after.rows());
      }
      tiles::multiply(tiles::by_rows(map.multiplied(now.first, now.prepared), strips.k), now.rows(), strips.k, panels, strips.n, now.made, wide,
                      false, meanwhile);
      for (int64_t i = 0; !meanwhile_too && i < items(now, map.FINISHED_TOGETHER); i++) finish(now, i);
    }
    for (int64_t i = 0; meanwhile_too && i < items(before, map.FINISHED_TOGETHER); i++) finish(before, i);
  });
}

template <typename T> T *data(const at::Tensor *t) { return t == nullptr ? nullptr : t->data_ptr<T>(); }

// libtorch's tensors in, checked; rows counted.
struct Rows {
  int64_t count, k, n;
  std::vector<int64_t> out;
};

Rows rows_of(const at::Tensor &x, const at::Tensor &weight, bool transposed) {
  TORCH_CHECK(x.dim() >= 1 && x.is_contiguous() && x.device().is_cpu(), "rows must be a contiguous CPU tensor");
  TORCH_CHECK(weight.dim() == 2 && weight.is_contiguous() && weight.device().is_cpu() &&
                  (weight.scalar_type() == x.scalar_type() || weight.scalar_type() == number_kind(x.scalar_type())),
              "the weight must be a contiguous CPU matrix of the rows' kind, or of that in which their sums are taken");
  const int64_t k = x.size(-1), in = weight.size(transposed ? 0 : 1), n = weight.size(transposed ? 1 : 0);
  TORCH_CHECK(k == in && k > 0 && n > 0, "rows of ", k, " numbers do not fit a weight ", weight.sizes());
  std::vector<int64_t> out = x.sizes().vec();
  out.back() = n;
  return {x.numel() / k, k, n, std::move(out)};
}

// What `over_strips` asks of a map: rows `first` to `last` prepared for the product, or where they are found; and finished.
template <typename S> struct Forward {
  using N = Number<S>;
  tiles::NormedRows<S> norm;
  bool normalise;
  int64_t n;
  const N *bias;
  const S *residual;
  bool relu;
  S *y;

  static constexpr int64_t FINISHED_TOGETHER = 1;
  int64_t prepared_together() const { return normalise ? 4 : 0; }
  const S *multiplied(int64_t first, const S *prepared) const { return normalise ? prepared : norm.x + first * norm.n; }
  void prepare(int64_t first, int64_t last, S *to) const {
    tiles::norm_rows(norm.from(first, to), last - first);
  }
  void finish(int64_t first, int64_t last, const N *made, int64_t wide) const {
    for (int64_t i = first; i < last; i++, made += wide) tiles::finish_row(y + i * n, made, bias, residual ? residual + i * n : nullptr, n, relu);
  }
  void ask_for_prepared(tiles::Meanwhile &meanwhile, int64_t first, int64_t rows) const { meanwhile.read(norm.x + first * norm.n, rows, norm.n, norm.n); }
  void ask_for_finished(tiles::Meanwhile &meanwhile, int64_t first, int64_t rows) const {
    meanwhile.read(residual ? residual + first * n : nullptr, rows, n, n);
    meanwhile.write(y + first * n, rows, n, n);
  }
};

template <typename S>
void forward(const Rows &r, const at::Tensor &x, bool normalise, const at::Tensor *scale, const at::Tensor *shift, double eps,
             const at::Tensor &weight, bool transposed, const at::Tensor *bias, const at::Tensor *residual, bool relu, at::Tensor &y,
             at::Tensor &mean, at::Tensor &rstd, WeightGradients<S> &first) {
  using N = Number<S>;
  const auto panels = transposed ? packed<S>(weight, r.n, 1, r.k, r.n) : packed<S>(weight, 1, r.k, r.k, r.n);
  const tiles::NormedRows<S> norm{r.k, N(eps), x.data_ptr<S>(), data<N>(scale), data<N>(shift), nullptr, normalise ? mean.data_ptr<N>() : nullptr,
                                  normalise ? rstd.data_ptr<N>() : nullptr};
  const Forward<S> map{norm, normalise, r.n, data<N>(bias), data<S>(residual), relu, y.data_ptr<S>()};
  over_strips(Strips<S>(r.count, r.k, r.n), panels.template data_ptr<N>(), map, &first);
}

struct Gradients {
  at::Tensor g, h, x, scale, shift, sum;
};

// From rows of dy, k numbers each, to rows of x.
template <typename S> struct Backward {
  using N = Number<S>;
  int64_t k;
  const S *dy, *out;
  S *g;
  tiles::NormRows<S> norm;
  // Of each block of so many rows its own.
  int64_t block, rows;
  BlockSums<N> &sums;

  static constexpr int64_t FINISHED_TOGETHER = 4;
  int64_t prepared_together() const { return out != nullptr ? 4 : 0; }
  const S *multiplied(int64_t first, const S *) const { return (out ? g : dy) + first * k; }
  void prepare(int64_t first, int64_t last, S *) const { kernels::mask_row(g + first * k, dy + first * k, out + first * k, (last - first) * k); }
  void finish(int64_t first, int64_t last, const N *made, int64_t wide) const {
    const int64_t n = norm.n;
    auto some = norm.from(first);
    some.dy = made, some.dy_row = wide;
    some.by_scale = first % block == 0 ? sums.begin(first / block) : sums.of(first / block), some.by_shift = some.by_scale + n, some.sum = some.by_shift + n;
    tiles::norm_gradient(some, last - first);
    if (last % block == 0 || last == rows) sums.done(first / block);
  }
  void ask_for_prepared(tiles::Meanwhile &meanwhile, int64_t first, int64_t rows) const {
    meanwhile.read(dy + first * k, rows, k, k);
    meanwhile.read(out ? out + first * k : nullptr, rows, k, k);
    meanwhile.write(out ? g + first * k : nullptr, rows, k, k);
  }
  // tiles::norm_gradient asks itself.
  void ask_for_finished(tiles::Meanwhile &, int64_t, int64_t) const {}
};

template <typename S>
void backward(const Rows &r, const at::Tensor &dy, const at::Tensor *out, const at::Tensor &weight, const at::Tensor &x, const at::Tensor &mean,
              const at::Tensor &rstd, const at::Tensor &scale, const at::Tensor &shift, const at::Tensor *add, Gradients &found) {
  using N = Number<S>;
  const auto panels = packed<S>(weight, r.n, 1, r.k, r.n);
  const Strips<S> strips(r.count, r.k, r.n);
  BlockSums<N> sums(strips.blocks(), r.n);
  const tiles::NormRows<S> norm{r.n, nullptr, 0, x.data_ptr<S>(), data<S>(add), scale.data_ptr<N>(), shift.data_ptr<N>(), mean.data_ptr<N>(), rstd.data_ptr<N>(),
                                found.h.data_ptr<S>(), found.x.data_ptr<S>(), nullptr, nullptr, nullptr};
  const Backward<S> map{r.k, dy.data_ptr<S>(), data<S>(out), out ? found.g.data_ptr<S>() : nullptr, norm, strips.block, r.count, sums};
  over_strips(strips, panels.template data_ptr<N>(), map);
  const auto total = sums.total();
  found.scale = total.select(0, 0), found.shift = total.select(0, 1), found.sum = total.select(0, 2);
}

at::Tensor *given(at::Tensor &&t) { return new at::Tensor(std::move(t)); }

} // namespace

extern "C" {

// mean and rstd come back null without `normalise`. Null pointers for what is not asked for. Beside the map, `count` gradients g^T h by weights, of rows of the same kind.
char *te_rows_forward(const at::Tensor *x, bool normalise, const at::Tensor *scale, const at::Tensor *shift, double eps,
                      const at::Tensor *weight, bool transposed, const at::Tensor *bias, const at::Tensor *residual, bool relu, size_t count, List g,
                      List h, at::Tensor **out, at::Tensor **mean, at::Tensor **rstd, at::Tensor **gradients) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    const auto r = rows_of(*x, *weight, transposed);
    const auto kind = number_kind(x->scalar_type());
    TORCH_CHECK((scale == nullptr) == (shift == nullptr), "a scale goes with a shift");
    check(scale, "the scale", {r.k}, kind);
    check(shift, "the shift", {r.k}, kind);
    check(bias, "the bias", {r.n}, kind);
    check(residual, "the residual", r.out, x->scalar_type());
    auto y = at::empty(r.out, x->options());
    at::Tensor m, d;
    if (normalise) m = at::empty({r.count}, x->options().dtype(kind)), d = at::empty_like(m);
    by_kind(x->scalar_type(), "rows", [&](auto s) {
      for (size_t i = 0; i < count; i++) TORCH_CHECK(h[i]->scalar_type() == x->scalar_type(), "rows of one kind are expected");
      WeightGradients<decltype(s)> first(g, h, count);
      forward<decltype(s)>(r, *x, normalise, scale, shift, eps, *weight, transposed, bias, residual, relu, y, m, d, first);
      first.results(gradients);
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
    const auto kind = number_kind(dy->scalar_type());
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

// g^T h, or g^T h^T where `turned`, [m, n], in the kind that sums are taken in; with `coarse` of 16 bits of every float, where that is faster.
char *te_weight_gradient(const at::Tensor *g, const at::Tensor *h, bool turned, bool coarse, at::Tensor **result) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    const auto product = [&](auto number) {
      using S = decltype(number);
      WeightGradients<S> one(&g, &h, 1, turned);
      Blocks(at::get_num_threads()).by_threads([&](int64_t share) { one.compute(share, Scratch::of_thread(one.bytes())); });
      one.results(result);
    };
    if (coarse && h->scalar_type() == at::kFloat && tiles::halves_are_fast()) product(kernels::Coarse());
    else by_kind(h->scalar_type(), "rows", product);
  });
}

} // extern "C"
