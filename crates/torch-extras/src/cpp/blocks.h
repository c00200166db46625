// Work on the CPU's cores in blocks, each with memory of its own.
#pragma once

#ifndef _OPENMP
#error "without -fopenmp at::parallel_for runs on one thread"
#endif

#include "tiles.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

// The kind that is computed in, and what parameters beside tensors of `kind` are.
inline at::ScalarType number_kind(at::ScalarType kind) { return kind == at::kBFloat16 ? at::kFloat : kind; }

// Refuses what is not as expected; a null pointer is fine.
inline void check(const at::Tensor *t, const char *name, at::IntArrayRef sizes, at::ScalarType kind) {
  if (t == nullptr) return;
  TORCH_CHECK(t->is_contiguous() && t->device().is_cpu() && t->sizes() == sizes && t->scalar_type() == kind, name, " must be a contiguous ",
              kind, " tensor ", sizes, " on the CPU, found ", t->scalar_type(), " ", t->sizes());
}

// Calls `f` with a number of the kind.
template <typename F> void by_kind(at::ScalarType kind, const char *what, F &&f) {
  switch (kind) {
  case at::kFloat: return f(float());
  case at::kDouble: return f(double());
  case at::kBFloat16: return f(kernels::Half());
  default: TORCH_CHECK(false, what, " in ", kind, ": expected Float, Double or BFloat16");
  }
}

// A thread's memory for its blocks, handed out piece by piece; pieces begin at cache lines. It is kept from call to call, for fresh memory is mapped page by
// page, and lies in large pages.
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

  static constexpr size_t LINE = 64, PAGE = 1 << 21;
  static constexpr size_t rounded(size_t bytes) { return (bytes + LINE - 1) / LINE * LINE; }

private:
  void reserve(size_t bytes) {
    if (bytes <= size) return;
    memory.reset();
    size = 0;
    const size_t whole = (bytes + PAGE - 1) / PAGE * PAGE;
    memory.reset(static_cast<char *>(std::aligned_alloc(PAGE, whole)));
    TORCH_CHECK(memory != nullptr, "no memory for ", whole, " bytes of scratch");
    size = whole;
#ifdef __linux__
    // A wish: without it the memory is as good, only found more slowly.
    madvise(memory.get(), whole, MADV_HUGEPAGE);
#endif
  }

  struct Free {
    void operator()(char *p) const { std::free(p); }
  };
  std::unique_ptr<char, Free> memory;
  size_t size = 0, taken = 0;
};

// The bytes of pieces of some sizes.
template <typename T> constexpr size_t piece(int64_t count) { return Scratch::rounded(count * sizeof(T)); }

// Blocks that threads take one by one. Each has a share of its own, the same in every loop over as many: what it wrote in the last one is in its cache. When
// that is done it helps others, for cores of a shared machine are not equally fast. So nothing may depend on which thread takes which block.
class Blocks {
public:
  explicit Blocks(int64_t count) : count(count), shares(std::max<int64_t>(1, std::min<int64_t>(count, at::get_num_threads()))) {
    const int64_t threads = shares.size();
    for (int64_t t = 0; t < threads; t++) shares[t].next = count * t / threads, shares[t].end = count * (t + 1) / threads;
  }
  // One for the thread of a share; `count` when there are no more.
  int64_t take(int64_t share) {
    for (size_t i = 0; i < shares.size(); i++) {
      Share &from = shares[(share + i) % shares.size()];
      if (from.next.load(std::memory_order_relaxed) >= from.end) continue;
      const int64_t taken = from.next++;
      if (taken < from.end) return taken;
    }
    return count;
  }
  // Calls `work` with each thread's share.
  template <typename Work> void by_threads(Work &&work) {
    at::parallel_for(0, shares.size(), 1, [&](int64_t first, int64_t last) {
      tiles::Session session;
      for (int64_t t = first; t < last; t++) work(t);
    });
  }

  const int64_t count;

private:
  struct alignas(64) Share {
    std::atomic<int64_t> next;
    int64_t end;
  };
  std::vector<Share> shares;
};

// The item of `count` that a thread is likely to work on after this one.
inline int64_t likely_next(int64_t item, int64_t count) { return std::min(item + 1, count - 1); }

// Runs `work(first, last, scratch)` over blocks of `block` of `items` items, each thread with at least `bytes` of scratch of its own.
template <typename Work> void over_blocks(int64_t items, int64_t block, size_t bytes, Work &&work) {
  Blocks blocks((items + block - 1) / block);
  blocks.by_threads([&](int64_t share) {
    Scratch &scratch = Scratch::of_thread(bytes);
    for (int64_t b = blocks.take(share); b < blocks.count; b = blocks.take(share)) {
      scratch.clear();
      work(b * block, std::min(items, (b + 1) * block), scratch);
    }
  });
}

// to += more.
template <typename N> void add_to(N *to, const N *more, int64_t n) { tiles::finish_row(to, to, static_cast<const N *>(nullptr), more, n, false); }

// Sums of three kinds over rows of n numbers, taken by every block for itself. Whoever is done last with some neighbours adds theirs, which lie in its cache as a rule,
// and the rest is added in the end: in the blocks' order, whoever took them.
template <typename N> class BlockSums {
public:
  BlockSums(int64_t blocks, int64_t n) : blocks(blocks), size(3 * n), sums(at::empty({blocks, 3, n}, c10::CppTypeToScalarType<N>::value)), missing((blocks + SOME - 1) / SOME) {
    for (int64_t block = 0; block < blocks; block++) missing[block / SOME]++;
  }
  // A block's sums: the n of each kind behind each other.
  N *of(int64_t block) const { return sums.template data_ptr<N>() + block * size; }
  N *begin(int64_t block) const { return std::fill_n(of(block), size, N(0)) - size; }
  void done(int64_t block) {
    if (--missing[block / SOME] > 0) return;
    const int64_t first = block / SOME * SOME;
    for (int64_t other = first + 1; other < std::min(first + SOME, blocks); other++) add_to(of(first), of(other), size);
  }
  // When all are done: [3, n].
  at::Tensor total() const {
    if (blocks == 0) return at::zeros({3, size / 3}, sums.options());
    for (int64_t first = SOME; first < blocks; first += SOME) add_to(of(0), of(first), size);
    return sums.select(0, 0).clone();
  }

private:
  static constexpr int64_t SOME = 8;

  int64_t blocks, size;
  at::Tensor sums;
  std::vector<std::atomic<int64_t>> missing;
};

// The right factor of a product packed, by all threads: row and column are the distances between its elements, one of them 1. Floats for products of bf16 are rounded
// first, a panel's at a time.
template <typename S> at::Tensor packed(const at::Tensor &weight, int64_t row, int64_t column, int64_t k, int64_t n) {
  using N = kernels::Number<S>;
  constexpr int64_t width = tiles::WIDTH<S>;
  const int64_t panels = tiles::padded<S>(n) / width, size = tiles::packed_size<S>(k, width);
  auto made = at::empty({panels * size}, at::TensorOptions(c10::CppTypeToScalarType<N>::value));
  const void *from = weight.const_data_ptr();
  N *to = made.template data_ptr<N>();
  if constexpr (std::is_same_v<S, kernels::Half>) {
    if (weight.scalar_type() == at::kFloat) {
      over_blocks(panels, 1, piece<S>(k * width), [&](int64_t panel, int64_t, Scratch &memory) {
        const int64_t begin = panel * width, columns = std::min(width, n - begin);
        const bool by_rows = column == 1;
        const int64_t count = by_rows ? k : columns, length = by_rows ? columns : k, distance = by_rows ? row : column;
        const N *numbers = static_cast<const N *>(from) + begin * column;
        S *rounded = memory.take<S>(k * width);
        // Pieces that lie far apart are not foreseen by the CPU: some are asked for while those before them are rounded.
        constexpr int64_t some = 24, line = 16;
        for (int64_t i = 0; i < count; i += some) {
          for (int64_t next = i + some; by_rows && next < std::min(count, i + 2 * some); next++)
            for (int64_t j = 0; j < length; j += line) __builtin_prefetch(numbers + next * distance + j);
          tiles::scale_rows(rounded + i * length, length, numbers + i * distance, distance, std::min(some, count - i), length, nullptr);
        }
        tiles::pack(rounded, by_rows ? length : 1, by_rows ? 1 : length, k, columns, 0, 1, to + panel * size);
      });
      return made;
    }
  }
  over_blocks(panels, 1, 0, [&](int64_t first, int64_t last, Scratch &) { tiles::pack(static_cast<const S *>(from), row, column, k, n, first, last, to); });
  return made;
}
