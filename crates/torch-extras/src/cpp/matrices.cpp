// Square matrices of a layer's width, of which a dictionary's operator and the gradient by it are made, on the CPU.
//
//   with_transpose   alpha a + beta b^T + diagonal I
//   gram_step        alpha d^T d + beta d^T + diagonal I
//
// By squares, so that whole lines of what is transposed are read. d^T d is symmetric: of its squares those above the diagonal are never computed.

#include "blocks.h"
#include "border.h"
#include "tiles.h"

#include <ATen/ops/empty_like.h>

namespace {

constexpr int64_t SQUARE = 64;

// Calls `work(i, j)` for the first row and column of every square.
template <typename Work> void over_squares(int64_t side, Work &&work) {
  const int64_t across = (side + SQUARE - 1) / SQUARE;
  over_blocks(across * across, 1, 0, [&](int64_t item, int64_t, Scratch &) { work(item / across * SQUARE, item % across * SQUARE); });
}

template <typename N> void add_to_diagonal(N *m, int64_t first, int64_t side, double more) {
  for (int64_t t = first; t < std::min(side, first + SQUARE); t++) m[t * side + t] += N(more);
}

template <typename N> void with_transpose(int64_t side, const N *a, double alpha, const N *b, double beta, double diagonal, N *to) {
  over_squares(side, [&](int64_t i, int64_t j) {
    const int64_t at = i * side + j;
    tiles::combine(to + at, a + at, N(alpha), b + j * side + i, N(beta), std::min(SQUARE, side - i), std::min(SQUARE, side - j), side);
    if (i == j) add_to_diagonal(to, i, side, diagonal);
  });
}

// The squares of d^T d on and below the diagonal. Products take numbers as S, which is not bf16.
template <typename S, typename N> void lower_gram(int64_t side, const at::Tensor &d, N *to) {
  const auto panels = packed<S>(d, side, 1, side, side);
  const S *from = static_cast<const S *>(d.const_data_ptr());
  // Fewer rows at a time where there would be too few for all threads.
  const int64_t height = side >= 2 * SQUARE * at::get_num_threads() ? SQUARE : SQUARE / 2;
  over_blocks(side, height, piece<N>(height * tiles::padded<S>(side)), [&](int64_t first, int64_t last, Scratch &memory) {
    // To the end of the square on the diagonal.
    const int64_t rows = last - first, columns = std::min(side, (last + SQUARE - 1) / SQUARE * SQUARE), wide = tiles::padded<S>(columns);
    N *made = memory.take<N>(rows * wide);
    tiles::Meanwhile nothing;
    const auto left = tiles::by_columns(from + first, side, side, rows, static_cast<S *>(nullptr));
    tiles::multiply(left, rows, side, panels.template data_ptr<N>(), columns, made, wide, false, nothing);
    for (int64_t i = 0; i < rows; i++) std::memcpy(to + (first + i) * side, made + i * wide, columns * sizeof(N));
  });
}

template <typename S, typename N> void gram_step(int64_t side, const at::Tensor &d, double alpha, double beta, double diagonal, at::Tensor &made) {
  auto gram = at::empty_like(d);
  const N *a = gram.data_ptr<N>(), *b = d.data_ptr<N>();
  N *to = made.data_ptr<N>();
  lower_gram<S>(side, d, gram.data_ptr<N>());
  over_squares(side, [&](int64_t i, int64_t j) {
    const int64_t high = std::min(SQUARE, side - i), broad = std::min(SQUARE, side - j), at = i * side + j, mirrored = j * side + i;
    if (i >= j) {
      tiles::combine(to + at, a + at, N(alpha), b + mirrored, N(beta), high, broad, side);
    } else {
      tiles::combine(to + at, static_cast<const N *>(nullptr), N(0), a + mirrored, N(alpha), high, broad, side);
      tiles::combine(to + at, to + at, N(1), b + mirrored, N(beta), high, broad, side);
    }
    if (i == j) add_to_diagonal(to, i, side, diagonal);
  });
}

void check_square(const at::Tensor &m) {
  TORCH_CHECK(m.dim() == 2 && m.size(0) == m.size(1), "a square matrix is expected, found ", m.sizes());
  TORCH_CHECK(m.scalar_type() == at::kFloat || m.scalar_type() == at::kDouble, "a Float or Double matrix is expected, found ", m.scalar_type());
  check(&m, "the matrix", m.sizes(), m.scalar_type());
}

} // namespace

extern "C" {

char *te_with_transpose(const at::Tensor *a, double alpha, const at::Tensor *b, double beta, double diagonal, at::Tensor **result) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    check_square(*a);
    check(b, "the matrix to be transposed", a->sizes(), a->scalar_type());
    auto made = at::empty_like(*a);
    const auto combine = [&](auto number) {
      using N = decltype(number);
      with_transpose<N>(a->size(0), a->data_ptr<N>(), alpha, b->data_ptr<N>(), beta, diagonal, made.template data_ptr<N>());
    };
    if (a->scalar_type() == at::kFloat) combine(float());
    else combine(double());
    *result = new at::Tensor(std::move(made));
  });
}

// With `coarse` products take 16 bits of every float, where that is faster.
char *te_gram_step(const at::Tensor *d, double alpha, double beta, double diagonal, bool coarse, at::Tensor **result) {
  return guarded([&] {
    at::AutoDispatchBelowADInplaceOrView no_autograd;
    check_square(*d);
    const int64_t side = d->size(0);
    auto made = at::empty_like(*d);
    if (d->scalar_type() == at::kDouble) gram_step<double, double>(side, *d, alpha, beta, diagonal, made);
    else if (coarse && tiles::halves_are_fast()) gram_step<kernels::Coarse, float>(side, *d, alpha, beta, diagonal, made);
    else gram_step<float, float>(side, *d, alpha, beta, diagonal, made);
    *result = new at::Tensor(std::move(made));
  });
}

} // extern "C"
