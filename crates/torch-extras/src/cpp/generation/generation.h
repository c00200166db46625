// The loops of tiles.cpp, compiled for one generation of CPUs: included once for each, with CPU its namespace, BYTES those of a register and ROWS
// the rows of a tile, which is two registers wide. Not one template for all, because the compiler takes vectors apart before it looks at who calls.

namespace CPU {

#include "vectors.h"

#include "rows.h"

#include "norm.h"
#include "packing.h"
#include "softmax.h"
#include "tile.h"

template <typename S, typename How = std::conditional_t<std::is_same_v<S, Half>, Wide, Single<S>>> constexpr Functions<S> functions() {
  using N = Number<S>;
  return {packing<How, S, N>,  product<How, N>,       add_transpose<How, S>,  exp_row<How, S, N>,  finish_sums<N>,       attention_gradient_row<How, S, N>,
          dot<How, S, N>,      scale_rows<How, S, N>, finish_row<How, S, N>, norm_rows<How, S, N>, norm_gradient<How, S, N>,
          combine<N>};
}

} // namespace CPU

#undef CPU
#undef BYTES
#undef ROWS
