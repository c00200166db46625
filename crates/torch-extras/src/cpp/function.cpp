// A node of the autograd graph whose backward pass is a Rust closure.
//
// tch has no torch::autograd::Function. This is the part of it that Rust needs: outputs computed without a graph are tied to the inputs by a
// node that keeps the saved tensors as SavedVariable (changes in place are noticed, memory goes as soon as the backward pass has used it) and
// hands them and the gradients to a callback.

#include "border.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

namespace {

using Call = char *(*)(void *closure, List saved, size_t saved_count, List grads, size_t grad_count, at::Tensor **results, size_t inputs);
using Drop = void (*)(void *closure);

struct Callback : torch::autograd::Node {
  std::string label;
  Call call;
  Drop drop;
  void *closure;
  size_t inputs;
  std::vector<torch::autograd::SavedVariable> saved;

  Callback(std::string label, Call call, Drop drop, void *closure, size_t inputs)
      : label(std::move(label)), call(call), drop(drop), closure(closure), inputs(inputs) {}
  ~Callback() override { drop(closure); }

  std::string name() const override { return label; }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto &variable : saved) variable.reset_data();
  }

  torch::autograd::variable_list apply(torch::autograd::variable_list &&grads) override {
    std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(!at::GradMode::is_enabled(), label, " cannot be differentiated twice (create_graph)");
    c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    std::vector<at::Tensor> kept;
    kept.reserve(saved.size());
    for (const auto &variable : saved) kept.push_back(variable.unpack(shared_from_this()));
    std::vector<const at::Tensor *> kept_list, grad_list;
    for (const auto &tensor : kept) kept_list.push_back(&tensor);
    for (const auto &grad : grads) grad_list.push_back(&grad);
    std::vector<at::Tensor *> results(inputs, nullptr);
    char *message = call(closure, kept_list.data(), kept_list.size(), grad_list.data(), grad_list.size(), results.data(), inputs);
    torch::autograd::variable_list list(inputs);
    for (size_t i = 0; i < inputs; i++) {
      if (results[i] == nullptr) continue;
      list[i] = std::move(*results[i]);
      delete results[i];
    }
    if (message != nullptr) {
      std::string text(message);
      free(message);
      TORCH_CHECK(false, label, ": ", text);
    }
    return list;
  }
};

bool recorded(const std::vector<at::Tensor> &inputs) { return at::GradMode::is_enabled() && torch::autograd::any_variable_requires_grad(inputs); }

} // namespace

extern "C" {

char *te_recorded(size_t count, List inputs, bool *found) {
  return guarded([&] { *found = recorded(borrow(inputs, count)); });
}

// Ties `outputs` (changed in place) to `inputs`. The closure is taken over in every case; `drop` frees it.
char *te_attach(const char *label, size_t output_count, List outputs, size_t input_count, List inputs, size_t saved_count, List saved,
                Call call, Drop drop, void *closure) {
  bool taken = false;
  char *message = guarded([&] {
    auto node = std::shared_ptr<Callback>(new Callback(label, call, drop, closure, input_count), torch::autograd::deleteNode);
    taken = true;
    auto in = borrow(inputs, input_count), out = borrow(outputs, output_count), keep = borrow(saved, saved_count);
    if (!recorded(in)) return;
    for (const auto &output : out) TORCH_CHECK(!output.requires_grad(), label, ": an output hangs in a graph already");
    node->set_next_edges(torch::autograd::collect_next_edges(in));
    for (auto &output : out) torch::autograd::set_history(output, node);
    for (const auto &tensor : keep) {
      bool is_output = false;
      for (const auto &output : out) is_output |= tensor.is_same(output);
      node->saved.emplace_back(tensor, is_output);
    }
  });
  if (!taken) drop(closure);
  return message;
}

} // extern "C"
