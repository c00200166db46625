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

// Sums that blocks have taken, [blocks, count, n], added in the blocks' order: [count, n].
template <typename N> at::Tensor added_up(const at::Tensor &sums) {
  auto total = at::zeros({sums.size(1), sums.size(2)}, sums.options());
  const int64_t length = total.numel();
  N *to = total.template data_ptr<N>();
  const N *from = sums.data_ptr<N>();
  for (int64_t block = 0; block < sums.size(0); block++, from += length)
    tiles::finish_row(to, to, static_cast<const N *>(nullptr), from, length, false);
  return total;
}

// The right factor of a product packed, by all threads: row and column are the distances between its elements, one of them 1.
template <typename S> at::Tensor packed(const at::Tensor &weight, int64_t row, int64_t column, int64_t k, int64_t n) {
  using N = kernels::Number<S>;
  auto panels = at::empty({tiles::packed_size<S>(k, n)}, at::TensorOptions(c10::CppTypeToScalarType<N>::value));
  const S *from = static_cast<const S *>(weight.const_data_ptr());
  N *to = panels.template data_ptr<N>();
  over_blocks(tiles::padded<S>(n) / tiles::WIDTH<S>, 1, 0,
              [&](int64_t first, int64_t last, Scratch &) { tiles::pack(from, row, column, k, n, first, last, to); });
  return panels;
}
