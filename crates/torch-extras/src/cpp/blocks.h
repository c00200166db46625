// Work on the CPU's cores in blocks, each with memory of its own.
#pragma once

#ifndef _OPENMP
#error "without -fopenmp at::parallel_for runs on one thread"
#endif

#include "tiles.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>

// Calls `f` with a number of the kind.
template <typename F> void by_kind(at::ScalarType kind, const char *what, F &&f) {
  switch (kind) {
  case at::kFloat: return f(float());
  case at::kDouble: return f(double());
  case at::kBFloat16: return f(kernels::Half());
  default: TORCH_CHECK(false, what, " in ", kind, ": expected Float, Double or BFloat16");
  }
}

// A thread's memory for its blocks, handed out piece by piece; pieces begin at cache lines. It is kept from call to call: fresh memory is mapped page by
// page.
class Scratch {
public:
  static Scratch &of_thread(size_t bytes) {
    static thread_local Scratch own;
    own.reserve(bytes);
    return own;
  }
  template <typename T> T *take(int64_t count) {
    char *piece = memory.get() + taken;
    taken += rounded(count * sizeof(T));
    return reinterpret_cast<T *>(piece);
  }
  void clear() { taken = 0; }
  // What is taken now, and to give back what was taken since: memory that is used again is in the cache.
  size_t used() const { return taken; }
  void give_back(size_t used) { taken = used; }

  static constexpr size_t LINE = 64;
  static constexpr size_t rounded(size_t bytes) { return (bytes + LINE - 1) / LINE * LINE; }

private:
  void reserve(size_t bytes) {
    if (bytes <= size) return;
    memory.reset();
    size = 0;
    memory.reset(static_cast<char *>(std::aligned_alloc(LINE, rounded(bytes))));
    TORCH_CHECK(memory != nullptr, "no memory for ", bytes, " bytes of scratch");
    size = bytes;
  }

  struct Free {
    void operator()(char *p) const { std::free(p); }
  };
  std::unique_ptr<char, Free> memory;
  size_t size = 0, taken = 0;
};

// The bytes of pieces of some sizes.
template <typename T> constexpr size_t piece(int64_t count) { return Scratch::rounded(count * sizeof(T)); }

// Runs `work(first, last, scratch)` over blocks of `block` of `items` items, each thread with at least `bytes` of scratch of its own. A thread that is done takes
// the next block: cores of a shared machine are not equally fast. So nothing may depend on which thread takes which block.
template <typename Work> void over_blocks(int64_t items, int64_t block, size_t bytes, Work &&work) {
  const int64_t blocks = (items + block - 1) / block;
  std::atomic<int64_t> next{0};
  at::parallel_for(0, std::min<int64_t>(blocks, at::get_num_threads()), 1, [&](int64_t, int64_t) {
    Scratch &scratch = Scratch::of_thread(bytes);
    for (int64_t b = next++; b < blocks; b = next++) {
      scratch.clear();
      work(b * block, std::min(items, (b + 1) * block), scratch);
    }
  });
}

// The right factor of a product packed, by all threads: row and column are the distances between its elements, one of them 1.
template <typename S> at::Tensor packed(const at::Tensor &weight, int64_t row, int64_t column, int64_t k, int64_t n) {
  using N = kernels::Number<S>;
  auto panels = at::empty({tiles::packed_size<S>(k, n)}, at::TensorOptions(c10::CppTypeToScalarType<N>::value));
  const S *from = weight.data_ptr<S>();
  N *to = panels.template data_ptr<N>();
  over_blocks(tiles::padded<S>(n) / tiles::WIDTH<S>, 1, 0,
              [&](int64_t first, int64_t last, Scratch &) { tiles::pack(from, row, column, k, n, first, last, to); });
  return panels;
}
