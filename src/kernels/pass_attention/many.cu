// A block of one warp takes a key/value head of a sequence: it stores what is new, then keys and
// values go by, tiles of 32 positions through shared memory, while scores stay in registers.
// Nothing waits for other warps, so that reads of many sequences are on their way at any time.
// Every sum is that of split.cuh, and splits are put together as in parts.cuh.
#include "kernels/cuda/multiprocessors.h"
#include "kernels/pass_attention/block.cuh"
#include "kernels/pass_attention/many.h"
#include "kernels/pass_attention/registers.cuh"

namespace mambify::kernels::attention {
namespace {

constexpr int kBlocks = 12;  // of a multiprocessor, a warp each: sequences differ in length
constexpr int kWidth = 64;   // of a head
constexpr int kRows = 8;     // query heads of new tokens that a warp has at once
constexpr int kTile = 32;    // positions
constexpr int kSplitTiles = kSplit / kTile;
constexpr int kUnits = kWidth / 8;  // vectors of 16 bytes of a position
constexpr int kTileVectors = kTile * kUnits;
constexpr int kColumns = kWidth / 8;  // products' columns of 8 dimensions
constexpr int kStages = 4;
constexpr int kBytes = kStages * kTileVectors * 16;
static_assert(Sums<kWidth, 1>::kGroupKeys == kTile, "a tile is what one chain of products sums");

// A head's tiles in the order of their use: of each split those of its keys, then those of its
// values, up to a position. Some of them are on their way to a warp's shared memory.
class Tiles {
 public:
  // keys, values: of the first position; `length` of them exist.
  __device__ Tiles(const Bf16* keys, const Bf16* values, int length, uint4* stages)
      : keys_(reinterpret_cast<const uint4*>(keys) + threadIdx.x),
        values_(reinterpret_cast<const uint4*>(values) + threadIdx.x),
        stages_(stages),
        left_(length - static_cast<int>(threadIdx.x) / kUnits) {}

  __device__ void begin(int end) {
    end_ = end;
    split_ = position_ = 0;
    is_value_ = false;
    asked_ = read_ = 0;
  }
  // Asks for the next tile. A lane copies the vectors of its number and those 32 further.
  __device__ void ask() {
    if (split_ < end_) {
      const uint4* from = (is_value_ ? values_ : keys_) + position_ * kUnits;
      const int key = threadIdx.x / kUnits, unit = threadIdx.x % kUnits;
      uint4* to = stages_ + asked_ % kStages * kTileVectors + key * kUnits;
#pragma unroll
      for (int i = 0; i < kTileVectors / 32; ++i) {
        constexpr int kKeys = 32 / kUnits;  // positions of a vector of each lane
        const int at = i * kKeys;
        copy_async(to + at * kUnits + (unit ^ swizzle(key) ^ swizzle(at)), from + i * 32,
                   position_ + at < left_ ? 16 : 0);
      }
      position_ += kTile;
      if (position_ >= min(split_ + kSplit, end_)) {
        if (is_value_) split_ += kSplit;
        position_ = split_;
        is_value_ = !is_value_;
      }
    }
    ++asked_;
    end_copy_group();
  }
  // The next tile, which is there when this returns; the one before it is no more.
  __device__ const uint4* next() {
    await_copies<kStages - 2>();
    __syncwarp();
    ask();
    return stages_ + read_++ % kStages * kTileVectors;
  }

 private:
  const uint4 *keys_, *values_;
  uint4* stages_;
  int left_;  // positions that exist from this lane's first vector on
  int end_ = 0, split_ = 0, position_ = 0;
  bool is_value_ = false;
  unsigned asked_ = 0, read_ = 0;
};

// scale: of scores in base 2.
__global__ void __launch_bounds__(32, kBlocks)
    attend_whole(const __grid_constant__ PassAttentionParams<Bf16> p, float scale) {
  extern __shared__ uint4 shared[];
  start_successor();
  const int lane = threadIdx.x, g = lane / 4, c = lane % 4;
  const auto kv_heads = static_cast<int>(p.kv_heads);
  wait_for_predecessor();
  Block block{.sequence = read_sequence(p.sequences + blockIdx.x / kv_heads)};
  if (block.sequence.tokens == 0) return;
  block.position = block.sequence.base + block.sequence.pending;
  block.begin = 0;
  block.first_token = 0;
  block.kv_head = static_cast<int>(blockIdx.x) % kv_heads;
  block.group = static_cast<int>(p.heads) / kv_heads;
  block.head_dim = kWidth;
  const int64_t offset =
      (static_cast<int64_t>(block.sequence.row) * kv_heads + block.kv_head) * p.capacity * kWidth;
  Tiles tiles(p.keys + offset, p.values + offset, block.length(), shared);

  const int all_rows = block.sequence.tokens * block.group;
#pragma unroll 1
  for (int first = 0; first < all_rows; first += kRows) {
    const int rows = min(kRows, all_rows - first);
    const int end = block.position + row_of(block, first + rows - 1).token + 1;
    tiles.begin(end);
    int asked = 0;
    if (first == 0) {
      // What earlier passes stored is on its way before what is new.
      for (; asked < kStages - 1 && (asked + 1) * kTile <= block.position; ++asked) tiles.ask();
      store_tokens(p, block, block.sequence.tokens, p.keys + offset, p.values + offset, lane, 32);
    }
    __syncwarp();
    for (; asked < kStages - 1; ++asked) tiles.ask();

    const Row row = row_of(block, first + min(g, rows - 1));
    const int position = block.position + row.token;
    static_assert(kWidth == 64, "a lane turns the pairs that it holds of a query");
    const Halves query = turned(p, head_of(p, block, row.token, row.head), position, kWidth, 8 * c);
    float most = 0, total = 0, all[kColumns][2];
#pragma unroll 1
    for (int begin = 0; begin < end; begin += kSplit) {
      const int count = min(kSplitTiles, (end - begin + kTile - 1) / kTile);
      Scores<1> scores;
#pragma unroll
      for (int t = 0; t < kSplitTiles; ++t) {
        constexpr int kProducts = kTile / 8;
#pragma unroll
        for (int n = 0; n < kProducts; ++n) {
          scores[t * kProducts + n][0] = scores[t * kProducts + n][1] = 0;
        }
        if (t >= count) continue;
        // Lane 4 g + c reads of 32 dimensions the 8 from 8 c on, of the position that is column g.
        const uint4* keys = tiles.next() + (g / 2 * 8 + g % 2) * kUnits + (c ^ (g / 2));
#pragma unroll
        for (int n = 0; n < kProducts; ++n) {
          const uint4 low = keys[n * 2 * kUnits + (g & 1) * 4];
          const uint4 high = keys[n * 2 * kUnits + (~g & 1) * 4];
          float sum[4] = {};
          multiply_tiles(sum, query.first.x, 0, query.first.y, 0, low.x, low.y);
          multiply_tiles(sum, query.first.z, 0, query.first.w, 0, low.z, low.w);
          multiply_tiles(sum, query.second.x, 0, query.second.y, 0, high.x, high.y);
          multiply_tiles(sum, query.second.z, 0, query.second.w, 0, high.z, high.w);
          scores[t * kProducts + n][0] = sum[0];
          scores[t * kProducts + n][1] = sum[1];
        }
      }

      const float2 part = softmax<1>(scores, 0, min(kSplit, position - begin + 1), scale);
      float sums[kColumns][2] = {};
#pragma unroll
      for (int t = 0; t < kSplitTiles; ++t) {
        if (t >= count) continue;
        // A matrix is 8 positions of a column of dimensions; the four of a load serve two products.
        const int key = lane % 8 / 2 * 8 + lane / 8 * 2 + lane % 2;
        const uint4* values = tiles.next() + key * kUnits;
        uint32_t w[4];
#pragma unroll
        for (int n = 0; n < 4; ++n) w[n] = pack_pair(scores[t * 4 + n][0], scores[t * 4 + n][1]);
#pragma unroll
        for (int column = 0; column < kColumns; ++column) {
          uint32_t v[4];
          load_transposed(v, values + (column ^ swizzle(key)));
          float sum[4] = {};
          multiply_tiles(sum, w[0], 0, w[1], 0, v[0], v[1]);
          multiply_tiles(sum, w[2], 0, w[3], 0, v[2], v[3]);
          sums[column][0] = multiply_add(1.0f, sum[0], sums[column][0]);
          sums[column][1] = multiply_add(1.0f, sum[1], sums[column][1]);
        }
      }

      if (begin > position) continue;  // this row reads none of it
      const Weights joined = weights_of(most, part.x);
      const bool is_first = begin == 0;
      most = is_first ? part.x : joined.most;
      total = is_first ? part.y : join(joined, total, part.y);
#pragma unroll
      for (int column = 0; column < kColumns; ++column) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float sum = sums[column][e];
          all[column][e] = is_first ? sum : join(joined, all[column][e], sum);
        }
      }
    }

    if (g < rows) {
      Bf16* y = output_of(p, block, row) + 2 * c;
#pragma unroll
      for (int column = 0; column < kColumns; ++column) {
        *reinterpret_cast<uint32_t*>(y + 8 * column) =
            pack_pair(__fdiv_rn(all[column][0], total), __fdiv_rn(all[column][1], total));
      }
    }
    __syncwarp();
  }
}

}  // namespace

bool takes_many(const PassAttentionParams<Bf16>& p) {
  return p.head_dim == kWidth && p.splits <= kAttentionGroup &&
         p.n_sequences * p.kv_heads >= multiprocessors() * kBlocks;
}

void attend_many(const PassAttentionParams<Bf16>& p, CudaStream stream) {
  check_cuda(
      cudaFuncSetAttribute(attend_whole, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  constexpr float kLog2E = 1.44269504088896341f;
  launch(attend_whole, dim3(static_cast<unsigned>(p.n_sequences * p.kv_heads)), dim3(32), kBytes,
         stream, p, p.scale * kLog2E);
}

}  // namespace mambify::kernels::attention
