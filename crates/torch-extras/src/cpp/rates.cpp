// Coding rates of tokens, head by head, in float64.
//
//   W_k = [w_1, ...], scaled to unit norm or as they are      R_k = 1/2 logdet(I + gamma W_k W_k^T), or with W_k^T W_k where there are fewer tokens than dimensions
//
// A head's rows are scaled, packed, multiplied (lower triangle only) and eliminated while they lie in a core's cache. libtorch's operations, one
// after the other over the whole batch, move every token several times and factorise the matrices on one thread.

#include "border.h"
#include "volume.h"

namespace {

// The sum over a sample's heads, for each sample.
template <typename S> void rates(const at::Tensor &w, int64_t heads, double gamma, bool unit_norm, double *by_head) {
  const int64_t n = w.size(1), row = w.size(2), p = row / heads;
  const S *from = w.data_ptr<S>();
  const Volume<double> volume(n, p);
  over_blocks(w.size(0) * heads, 1, volume.bytes() + piece<double>(n * p), [&](int64_t item, int64_t, Scratch &memory) {
    auto own = volume.in(memory);
    const int64_t next = likely_next(item, w.size(0) * heads);
    own.meanwhile.read(from + next / heads * n * row + next % heads * p, n, p, row);
    double *tokens = memory.take<double>(n * p);
    for (int64_t i = 0; i < n; i++) {
      const S *x = from + item / heads * n * row + item % heads * p + i * row;
      double factor = 1;
      if (unit_norm) kernels::inverse_norm(x, p, factor);
      kernels::scale_into(tokens + i * p, x, p, factor);
    }
    by_head[item] = own.rate(tokens, p, gamma);
  });
}

} // namespace

extern "C" char *te_coding_rates(const at::Tensor *w, int64_t heads, double gamma, bool unit_norm, at::Tensor **found) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    TORCH_CHECK(w->dim() == 3 && w->is_contiguous() && w->device().is_cpu() && w->size(1) > 0 && w->size(2) > 0,
                "the tokens must be a contiguous CPU tensor [B, n, K p] with tokens, found ", w->sizes());
    TORCH_CHECK(heads > 0 && w->size(2) % heads == 0, "a width of ", w->size(2), " cannot be divided among ", heads, " heads");
    auto by_head = at::empty({w->size(0), heads}, w->options().dtype(at::kDouble));
    by_kind(w->scalar_type(), "tokens", [&](auto number) { rates<decltype(number)>(*w, heads, gamma, unit_norm, by_head.data_ptr<double>()); });
    *found = new at::Tensor(by_head.sum(1));
  });
}
