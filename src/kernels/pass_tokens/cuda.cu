#include <algorithm>
#include <cfloat>

#include "core/random.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/pass_tokens/params.h"

namespace mambify::kernels {
namespace {

constexpr int kThreads = 256;
// Blocks that share a row's draw, and about how many fill the device.
constexpr int kMostDrawBlocks = 32, kAllDrawBlocks = 1024;

// As words of eight bytes, one a thread. Its successors read the plan before they wait: none may
// start before this has ended.
__global__ void copy_plan(PassPlanParams p) {
  int64_t word = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const uint64_t* from = nullptr;
  uint64_t* to = nullptr;
  const auto look_in = [&]<typename Part>(const Part* source, Part* target, int64_t count) {
    const int64_t words = count * static_cast<int64_t>(sizeof(Part) / sizeof(uint64_t));
    if (word >= 0 && word < words) {
      from = reinterpret_cast<const uint64_t*>(source) + word;
      to = reinterpret_cast<uint64_t*>(target) + word;
    }
    word -= words;
  };
  look_in(p.from.tokens, p.to.tokens, p.tokens);
  look_in(p.from.sequences, p.to.sequences, p.sequences);
  look_in(p.from.draws, p.to.draws, p.draws);
  const uint64_t value = from == nullptr ? 0 : *from;
  wait_for_predecessor();
  if (to != nullptr) *to = value;
}

template <typename T>
__global__ void embed(PassEmbedParams<T> p) {
  start_successor();
  wait_for_predecessor();
  const int row = blockIdx.x;
  const T* from = p.embedding + p.tokens[row].id * p.stride;
  for (int k = threadIdx.x; k < p.width; k += blockDim.x) p.y[row * p.width + k] = from[k];
}

// The place of a token's score and the noisy score; -1: none.
struct Candidate {
  double score;
  int32_t id;
  int32_t unused;
};

__device__ Candidate better_of(const Candidate& a, const Candidate& b) {
  if (a.id < 0) return b;
  if (b.id < 0) return a;
  return a.score > b.score || (a.score == b.score && a.id < b.id) ? a : b;
}

__device__ Candidate best_of_warp(Candidate best) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const Candidate other{__shfl_xor_sync(~0u, best.score, offset),
                          __shfl_xor_sync(~0u, best.id, offset), 0};
    best = better_of(best, other);
  }
  return best;
}

__device__ Candidate best_of_block(Candidate best) {
  __shared__ Candidate candidates[kThreads / 32];
  best = best_of_warp(best);
  if (threadIdx.x % 32 == 0) candidates[threadIdx.x / 32] = best;
  __syncthreads();
  for (int i = 0; i < kThreads / 32; ++i) best = better_of(best, candidates[i]);
  return best;
}

struct DrawScratch {
  Candidate candidates[kMostDrawBlocks];
  int32_t arrived;
  int32_t unused[3];
};

__device__ double gumbel(uint32_t bits) {
  return -log(-log((bits + 0.5) * 0x1p-32));  // CounterRandom::gumbel
}

// How far the bounds below may be off: what __logf and floats round.
__device__ float slack_of(float scaled) { return 1e-3f + 1e-5f * fabsf(scaled); }
__device__ float scaled_of(float score, float inverse_temperature) {
  return fmaxf(score * inverse_temperature, -FLT_MAX);
}
// No less than the noisy score, whose logarithms in double take long: -log(-log u) <= -log(1 - u).
__device__ float upper_bound(float score, float inverse_temperature, uint32_t bits) {
  const float complement = (static_cast<float>(~bits) + 0.5f) * 0x1p-32f;
  const float scaled = scaled_of(score, inverse_temperature);
  return scaled - __logf(complement) + slack_of(scaled);
}
// No more than it, given the upper bound: -log(-log u) >= log u - log(1 - u).
__device__ float lower_bound(float upper, float score, float inverse_temperature, uint32_t bits) {
  const float u = (static_cast<float>(bits) + 0.5f) * 0x1p-32f;
  return upper + __logf(u) - 3 * slack_of(scaled_of(score, inverse_temperature));
}

// The most that tokens of a block are known to reach. Floats are ordered as these integers are.
class Reached {
 public:
  __device__ Reached(int32_t* shared) : shared_(shared) {}
  __device__ static int32_t ordered(float x) {
    const int32_t bits = __float_as_int(x + 0.0f);  // -0 is 0
    return bits >= 0 ? bits : bits ^ 0x7fffffff;
  }
  __device__ bool may_win(float upper) const {
    return ordered(upper) >= *const_cast<volatile int32_t*>(shared_);
  }
  __device__ void raise(float low) const {
    const int32_t mine = isnan(low) ? ordered(-INFINITY) : ordered(low);
    const int32_t most = __reduce_max_sync(__activemask(), mine);
    if (mine == most && most > *const_cast<volatile int32_t*>(shared_)) atomicMax(shared_, most);
  }

 private:
  int32_t* shared_;
};

// Four scores behind one another.
template <typename T>
__device__ void load_four(const T* from, float (&scores)[4]) {
  alignas(4 * sizeof(T)) T four[4];
  if constexpr (sizeof(T) == 2) {
    *reinterpret_cast<uint2*>(four) = *reinterpret_cast<const uint2*>(from);
  } else {
    *reinterpret_cast<float4*>(four) = *reinterpret_cast<const float4*>(from);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) scores[i] = as_float(four[i]);
}

// The random bits of the tokens of four scores behind one another.
template <typename T>
__device__ void random_bits(const PassDrawParams<T>& p, const PassDraw& wanted, int quad,
                            uint32_t (&bits)[4]) {
  const auto of_four_tokens = [&](uint32_t q) {
    return philox4x32(
        {q, wanted.position, wanted.sequence, static_cast<uint32_t>(RandomPurpose::sample)},
        {static_cast<uint32_t>(wanted.seed), static_cast<uint32_t>(wanted.seed >> 32)});
  };
  if (p.tokens == nullptr) {
    const std::array<uint32_t, 4> own = of_four_tokens(quad);
#pragma unroll
    for (int i = 0; i < 4; ++i) bits[i] = own[i];
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (quad * 4 + i >= p.outputs) continue;
    const auto token = static_cast<uint32_t>(p.tokens[quad * 4 + i]);
    const std::array<uint32_t, 4> four = of_four_tokens(token / 4);
    const uint32_t own = token % 4;
    bits[i] = own == 0 ? four[0] : own == 1 ? four[1] : own == 2 ? four[2] : four[3];
  }
}

// Blocks of a row take parts of the scores; the last one to be done puts them together. Exact
// scores are computed of the few tokens alone that may be ahead of all that the block has seen.
template <typename T>
__global__ void __launch_bounds__(kThreads) draw(PassDrawParams<T> p) {
  __shared__ int32_t most;
  if (threadIdx.x == 0) most = Reached::ordered(-INFINITY);
  __syncthreads();
  start_successor();
  wait_for_predecessor();
  const Reached reached(&most);
  const int row = blockIdx.y;
  const PassDraw wanted = p.draws[row];
  const bool noisy = wanted.temperature > 0;
  const T* scores = p.scores + row * p.stride;
  DrawScratch& scratch = static_cast<DrawScratch*>(p.scratch)[row];
  Candidate best{0, -1, 0};
  const auto quads = static_cast<int>((p.outputs + 3) / 4);
  const int blocks = static_cast<int>(gridDim.x);
  const auto inverse_temperature = static_cast<float>(1 / wanted.temperature);
  for (int q = blockIdx.x * kThreads + threadIdx.x; q < quads; q += blocks * kThreads) {
    uint32_t bits[4] = {};
    if (noisy) random_bits(p, wanted, q, bits);
    float score[4], upper[4], highest = -INFINITY;
    load_four(scores + q * 4, score);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool exists = q * 4 + i < p.outputs && score[i] > -INFINITY;
      upper[i] = !exists ? -INFINITY
                 : noisy ? upper_bound(score[i], inverse_temperature, bits[i])
                         : score[i];
      highest = fmaxf(highest, upper[i]);
    }
    if (!reached.may_win(highest)) continue;
    float low = -INFINITY;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (!(upper[i] > -INFINITY)) continue;
      low = fmaxf(low,
                  noisy ? lower_bound(upper[i], score[i], inverse_temperature, bits[i]) : upper[i]);
    }
    reached.raise(low);
#pragma unroll 1
    for (int i = 0; i < 4; ++i) {
      const float bound = i == 0 ? upper[0] : i == 1 ? upper[1] : i == 2 ? upper[2] : upper[3];
      if (!(bound > -INFINITY) || !reached.may_win(bound)) continue;
      const float s = i == 0 ? score[0] : i == 1 ? score[1] : i == 2 ? score[2] : score[3];
      const uint32_t b = i == 0 ? bits[0] : i == 1 ? bits[1] : i == 2 ? bits[2] : bits[3];
      const double exact =
          noisy ? static_cast<double>(s) / wanted.temperature + gumbel(b) : static_cast<double>(s);
      best = better_of(best, {exact, q * 4 + i, 0});
      reached.raise(__double2float_rd(exact));
    }
  }
  best = best_of_block(best);
  __shared__ bool is_last;
  if (threadIdx.x == 0) {
    scratch.candidates[blockIdx.x] = best;
    __threadfence();
    is_last = atomicAdd(&scratch.arrived, 1) == blocks - 1;
  }
  __syncthreads();
  static_assert(kMostDrawBlocks <= 32, "a thread of a warp looks at each");
  if (!is_last || threadIdx.x >= 32) return;
  __threadfence();
  const volatile Candidate& other =
      scratch.candidates[min(static_cast<int>(threadIdx.x), blocks - 1)];
  best = best_of_warp({other.score, other.id, 0});
  if (threadIdx.x != 0) return;
  scratch.arrived = 0;
  p.ids[row] = best.id < 0 || p.tokens == nullptr ? best.id : p.tokens[best.id];
}

}  // namespace

int64_t pass_draw_scratch_bytes(int64_t rows) {
  return rows * static_cast<int64_t>(sizeof(DrawScratch));
}

void pass_plan_cuda(const PassPlanParams& p, CudaStream stream) {
  const auto bytes = p.tokens * sizeof(PassToken) + p.sequences * sizeof(PassSequence) +
                     p.draws * sizeof(PassDraw);
  const auto words = static_cast<unsigned>(bytes / sizeof(uint64_t));
  launch(copy_plan, dim3((words + kThreads - 1) / kThreads), dim3(kThreads), 0, stream, p);
}

template <typename T>
void pass_embed_cuda(const PassEmbedParams<T>& p, CudaStream stream) {
  launch(embed<T>, dim3(static_cast<unsigned>(p.rows)), dim3(kThreads), 0, stream, p);
}

template <typename T>
void pass_draw_cuda(const PassDrawParams<T>& p, CudaStream stream) {
  require(reinterpret_cast<uintptr_t>(p.scores) % (4 * sizeof(T)) == 0 && p.stride % 4 == 0,
          "pass_draw: scores are not aligned to four of them");
  const auto blocks =
      static_cast<unsigned>(std::clamp<int64_t>(kAllDrawBlocks / p.rows, 1, kMostDrawBlocks));
  launch(draw<T>, dim3(blocks, static_cast<unsigned>(p.rows)), dim3(kThreads), 0, stream, p);
}

template void pass_embed_cuda(const PassEmbedParams<float>&, CudaStream);
template void pass_embed_cuda(const PassEmbedParams<Bf16>&, CudaStream);
template void pass_draw_cuda(const PassDrawParams<float>&, CudaStream);
template void pass_draw_cuda(const PassDrawParams<Bf16>&, CudaStream);

}  // namespace mambify::kernels
