#include <algorithm>

#include "kernels/pass_linear/many_rows.cuh"
#include "kernels/pass_linear/many_rows.h"

namespace mambify::kernels::linear {
namespace {

// Two blocks to a multiprocessor: one multiplies while the other waits for memory.
using Large = Tiling<4, 2, 2, 8, 3, true, 2>;
using Narrow = Tiling<4, 2, 2, 4, 6, false, 2>;
using Small = Tiling<2, 4, 2, 2, 6, false, 2>;
// Six warps: widths such as 576 are whole numbers of its tiles.
using Square = Tiling<3, 2, 2, 6, 6, false, 2>;

// Rounds in which the device computes all tiles, times how long one takes, measured on an H200.
template <typename Tiling>
int64_t time_of(const PassLinearParams<Bf16>& p, int64_t round) {
  const int64_t outputs = p.outputs * (p.gated ? 2 : 1);
  const int64_t tiles = divide_up(outputs, Tiling::kOutputs) * divide_up(p.rows, Tiling::kRows);
  return divide_up(tiles, 2 * multiprocessors()) * round;
}

}  // namespace

void many_rows_cuda(const PassLinearParams<Bf16>& p, CudaStream stream) {
  const int64_t large = time_of<Large>(p, 127), narrow = time_of<Narrow>(p, 74),
                small = time_of<Small>(p, 53), square = time_of<Square>(p, 76);
  const int64_t fastest = std::min({large, narrow, small, square});
  if (large == fastest) return start_many_rows<Large>(p, stream);
  if (narrow == fastest) return start_many_rows<Narrow>(p, stream);
  if (square == fastest) return start_many_rows<Square>(p, stream);
  start_many_rows<Small>(p, stream);
}

}  // namespace mambify::kernels::linear
