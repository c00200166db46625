// at:: functions that tch does not wrap: autocast, optimiser steps, generators, memory.

#include "border.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_sign.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <cstdint>

namespace {

// The fused kernels walk raw memory, so all lists must agree in layout. A gradient that does not is copied; parameters and moments are refused.
std::vector<at::Tensor> borrow_like(const std::vector<at::Tensor> &params, List list, const char *name, bool copy) {
  auto tensors = borrow(list, params.size());
  for (size_t i = 0; i < params.size(); i++) {
    const auto &p = params[i];
    auto &t = tensors[i];
    TORCH_CHECK(p.is_non_overlapping_and_dense(), "parameter ", i, " is a view with gaps; its memory must be dense");
    TORCH_CHECK(t.sizes() == p.sizes(), name, " ", i, " has shape ", t.sizes(), ", its parameter ", p.sizes());
    TORCH_CHECK(t.device() == p.device(), name, " ", i, " is on ", t.device(), ", its parameter on ", p.device());
    bool same = t.strides() == p.strides() && t.scalar_type() == p.scalar_type();
    TORCH_CHECK(same || copy, name, " ", i, " differs from its parameter in kind or strides");
    if (!same) t = at::empty_like(p).copy_(t);
  }
  return tensors;
}

// Negative: the CPU. Otherwise the index of a CUDA device.
at::Device device_of(int index) {
  return index < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index));
}

} // namespace

static_assert(static_cast<int>(at::kHalf) == 5 && static_cast<int>(at::kBFloat16) == 15, "the kinds that autocast.rs names");

extern "C" {

char *te_autocast_enter(int device, bool enabled, int kind, bool *old_enabled, int *old_kind) {
  return guarded([&] {
    auto type = device_of(device).type();
    *old_enabled = at::autocast::is_autocast_enabled(type);
    *old_kind = static_cast<int>(at::autocast::get_autocast_dtype(type));
    at::autocast::set_autocast_enabled(type, enabled);
    at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(kind));
    at::autocast::increment_nesting();
  });
}

char *te_autocast_leave(int device, bool old_enabled, int old_kind) {
  return guarded([&] {
    auto type = device_of(device).type();
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(type, old_enabled);
    at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(old_kind));
  });
}

char *te_autocast_state(int device, bool *enabled, int *kind) {
  return guarded([&] {
    auto type = device_of(device).type();
    *enabled = at::autocast::is_autocast_enabled(type);
    *kind = static_cast<int>(at::autocast::get_autocast_dtype(type));
  });
}

char *te_adamw(size_t count, List params, List grads, List exp_avgs, List exp_avg_sqs, int64_t step, double lr, double beta1,
               double beta2, double weight_decay, double eps) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto p = borrow(params, count);
    if (p.empty()) return;
    auto g = borrow_like(p, grads, "gradient", true);
    auto m = borrow_like(p, exp_avgs, "first moment", false);
    auto v = borrow_like(p, exp_avg_sqs, "second moment", false);
    // One counter serves all tensors: the kernel reads it and leaves counting to its caller.
    auto counter = at::full({}, static_cast<double>(step), at::TensorOptions(at::kFloat).device(p[0].device()));
    std::vector<at::Tensor> steps(count, counter);
    at::_fused_adamw_(p, g, m, v, {}, steps, lr, beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false);
  });
}

char *te_lion(size_t count, List params, List grads, List exp_avgs, double lr, double beta1, double beta2, double weight_decay) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto p = borrow(params, count);
    if (p.empty()) return;
    auto g = borrow_like(p, grads, "gradient", true);
    auto m = borrow_like(p, exp_avgs, "moment", false);
    auto direction = at::_foreach_mul(m, beta1);
    at::_foreach_add_(direction, g, 1.0 - beta1);
    at::_foreach_sign_(direction);
    if (weight_decay != 0.0) at::_foreach_mul_(p, 1.0 - lr * weight_decay);
    at::_foreach_add_(p, direction, -lr);
    at::_foreach_mul_(m, beta2);
    at::_foreach_add_(m, g, 1.0 - beta2);
  });
}

char *te_global_norm(size_t count, List list, at::Tensor **norm) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto tensors = borrow(list, count);
    TORCH_CHECK(!tensors.empty(), "the norm of an empty list of tensors has no device");
    auto norms = at::_foreach_norm(tensors, 2);
    *norm = new at::Tensor(at::linalg_vector_norm(at::stack(norms), 2));
  });
}

char *te_clip_by_norm(size_t count, List list, const at::Tensor *norm, double max) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto tensors = borrow(list, count);
    if (tensors.empty()) return;
    auto factor = (max / (*norm + 1e-6)).clamp_max(1.0);
    at::_foreach_mul_(tensors, factor);
  });
}

char *te_scale(size_t count, List list, double factor) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto tensors = borrow(list, count);
    if (!tensors.empty()) at::_foreach_mul_(tensors, factor);
  });
}

char *te_clear_grads(size_t count, List list) {
  return guarded([&] {
    for (const auto &tensor : borrow(list, count)) tensor.mutable_grad().reset();
  });
}

char *te_rng_get(int device, at::Tensor **state) {
  return guarded([&] {
    auto generator = at::globalContext().defaultGenerator(device_of(device));
    std::lock_guard<std::mutex> lock(generator.mutex());
    *state = new at::Tensor(generator.get_state());
  });
}

char *te_rng_set(int device, const at::Tensor *state) {
  return guarded([&] {
    auto generator = at::globalContext().defaultGenerator(device_of(device));
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(*state);
  });
}

// The caching allocators of all accelerators share one interface in c10, so this needs no symbol of libtorch_cuda.
char *te_cuda_peak_memory(int index, uint64_t *bytes) {
  return guarded([&] {
    auto *allocator = c10::getDeviceAllocator(at::kCUDA);
    TORCH_CHECK(allocator->initialized(), "nothing has been allocated on a CUDA device yet");
    auto total = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    auto stats = allocator->getDeviceStats(static_cast<c10::DeviceIndex>(index));
    *bytes = static_cast<uint64_t>(stats.reserved_bytes[total].peak);
  });
}

} // extern "C"
