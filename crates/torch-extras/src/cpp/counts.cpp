// How many numbers of a code are active, in one pass: libtorch would write a tensor of truth values, one of logarithms and one of classes, and read them again.

#include "blocks.h"
#include "border.h"

#include <ATen/ops/zeros.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

namespace {

// The class of a float by what its first twelve bits, sign, exponent and three of the mantissa, leave open: at most one bound between classes lies among the
// numbers that share them. Class 0 is what is not above zero.
class Classes {
public:
  // The first class is above zero, others begin at bounds that ascend.
  Classes(const double *bounds, int64_t count) {
    for (int64_t i = 0; i < count; i++)
      TORCH_CHECK(bounds[i] > 0 && (i == 0 || bounds[i] >= 1.13 * bounds[i - 1]), "a bound of a class must be above 0 and at least 1.13 times the one before it");
    TORCH_CHECK(count < MOST, count, " bounds, ", MOST - 1, " at most");
    constexpr float none = std::numeric_limits<float>::infinity();
    cells.fill({none, 0});
    int64_t below = 0;
    for (uint32_t cell = 0; cell <= INFINITE; cell++) {
      const float low = from_bits(cell << SHIFT), high = from_bits((cell + 1) << SHIFT);
      while (below < count && static_cast<float>(bounds[below]) <= low) below++;
      const bool divided = below < count && cell < INFINITE && static_cast<float>(bounds[below]) < high;
      cells[cell] = {divided ? static_cast<float>(bounds[below]) : none, static_cast<int32_t>(below + 1)};
    }
    cells[INFINITE].bound = std::numeric_limits<float>::quiet_NaN();
  }

  static constexpr int64_t MOST = 256;

  int32_t of(float x) const {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const Cell &cell = cells[bits >> SHIFT];
    const int32_t found = cell.below + (x >= cell.bound);
    // No branch: which numbers are above zero cannot be foreseen.
    return found & -static_cast<int32_t>(x > 0);
  }

private:
  static constexpr int SHIFT = 20;
  static constexpr uint32_t INFINITE = 0x7f8;
  static float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  struct Cell {
    float bound;
    int32_t below;
  };
  std::array<Cell, 4096> cells;
};

float number(float x) { return x; }
float number(double x) { return static_cast<float>(x); }
float number(kernels::Half x) { return x; }

template <typename S> void activity(const at::Tensor &code, const Classes &classes, int64_t count, int64_t *by_atom, int64_t *by_size) {
  const int64_t rows = code.size(1), atoms = code.size(2);
  over_blocks(code.size(0), 1, 0, [&](int64_t b, int64_t, Scratch &) {
    // Four counters side by side: one would wait for itself where neighbours are of one class.
    std::array<std::array<int32_t, Classes::MOST + 1>, 4> sizes{};
    const S *x = code.data_ptr<S>() + b * rows * atoms;
    for (int64_t i = 0; i < rows; i++, x += atoms) {
      kernels::count_positive(by_atom + b * atoms, x, atoms);
      for (int64_t j = 0; j < atoms; j++) sizes[j % 4][classes.of(number(x[j]))]++;
    }
    for (int64_t c = 0; c < count; c++)
      for (const auto &counter : sizes) by_size[b * count + c] += counter[c + 1];
  });
}

template <typename S> void nonzero(const at::Tensor &z, int64_t entries, int64_t *found) {
  over_blocks(z.size(0), 1, 0, [&](int64_t b, int64_t, Scratch &) { found[b] = kernels::nonzero(z.data_ptr<S>() + b * entries, entries); });
}

at::Tensor none(at::IntArrayRef sizes) { return at::zeros(sizes, at::TensorOptions(at::kLong)); }

} // namespace

extern "C" {

// found: by sample and atom, [B, m], and by sample and class, [B, bound_count + 1].
char *te_activity(const at::Tensor *code, const double *bounds, int64_t bound_count, at::Tensor **by_atom, at::Tensor **by_size) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    TORCH_CHECK(code->dim() == 3 && code->is_contiguous() && code->device().is_cpu(), "the code must be a contiguous CPU tensor [B, n, m], found ",
                code->sizes());
    const Classes classes(bounds, bound_count);
    auto atoms = none({code->size(0), code->size(2)}), sizes = none({code->size(0), bound_count + 1});
    by_kind(code->scalar_type(), "a code", [&](auto number) {
      activity<decltype(number)>(*code, classes, bound_count + 1, atoms.data_ptr<int64_t>(), sizes.data_ptr<int64_t>());
    });
    *by_atom = new at::Tensor(std::move(atoms));
    *by_size = new at::Tensor(std::move(sizes));
  });
}

// found: [B].
char *te_nonzero(const at::Tensor *z, at::Tensor **found) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    TORCH_CHECK(z->dim() >= 1 && z->is_contiguous() && z->device().is_cpu(), "samples must be a contiguous CPU tensor, found ",
                z->sizes());
    auto counts = none({z->size(0)});
    by_kind(z->scalar_type(), "samples",
            [&](auto number) { nonzero<decltype(number)>(*z, z->numel() / std::max<int64_t>(1, z->size(0)), counts.data_ptr<int64_t>()); });
    *found = new at::Tensor(std::move(counts));
  });
}

} // extern "C"
