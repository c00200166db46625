// What the C++ files of torch-extras share: the border to Rust.
//
// No exception crosses it: every function returns null, or a malloc'ed message that the Rust side frees. Lists of tensors come as arrays of
// pointers and are only borrowed; tensors that go back are new at::Tensor objects owned by the caller.
#pragma once

#include <ATen/core/Tensor.h>
#include <cstring>
#include <string>
#include <vector>

template <typename F> char *guarded(F &&body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception &e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("an exception of unknown type");
  }
}

using List = const at::Tensor *const *;

inline std::vector<at::Tensor> borrow(List list, size_t count) {
  std::vector<at::Tensor> tensors;
  tensors.reserve(count);
  for (size_t i = 0; i < count; i++) {
    TORCH_CHECK(list[i]->defined(), "tensor ", i, " of the list is undefined");
    tensors.push_back(*list[i]);
  }
  return tensors;
}
