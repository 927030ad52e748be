#include "core/random.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/pass_tokens/params.h"

namespace mambify::kernels {
namespace {

constexpr int kThreads = 256;
// Blocks that share a row's draw: many where rows are few.
constexpr int kMostDrawBlocks = 32, kFewDrawBlocks = 2, kManyRows = 64;

template <typename T>
__global__ void embed(PassEmbedParams<T> p) {
  start_successor();
  wait_for_predecessor();
  const int row = blockIdx.x;
  const T* from = p.embedding + p.tokens[row].id * p.stride;
  for (int k = threadIdx.x; k < p.width; k += blockDim.x) p.y[row * p.width + k] = from[k];
}

// A token and its noisy score; -1: none.
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

__device__ Candidate best_of_block(Candidate best) {
  __shared__ Candidate candidates[kThreads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const Candidate other{__shfl_xor_sync(~0u, best.score, offset),
                          __shfl_xor_sync(~0u, best.id, offset), 0};
    best = better_of(best, other);
  }
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

// No less than the noisy score, whose logarithms in double take long: -log(-log u) <= -log(1 - u).
__device__ float noisy_bound(float score, float inverse_temperature, uint32_t bits) {
  const float complement = (static_cast<float>(~bits) + 0.5f) * 0x1p-32f;
  const float scaled = score * inverse_temperature;
  return scaled - __logf(complement) + (1e-3f + 1e-5f * fabsf(scaled));
}

// Blocks of a row take parts of the vocabulary; the last one to be done puts them together.
template <typename T>
__global__ void __launch_bounds__(kThreads) draw(PassDrawParams<T> p) {
  start_successor();
  wait_for_predecessor();
  const int row = blockIdx.y;
  const PassDraw wanted = p.draws[row];
  const T* scores = p.scores + row * p.stride;
  DrawScratch& scratch = static_cast<DrawScratch*>(p.scratch)[row];
  Candidate best{0, -1, 0};
  const auto quads = static_cast<int>((p.vocabulary + 3) / 4);
  const int blocks = static_cast<int>(gridDim.x);
  const auto inverse_temperature = static_cast<float>(1 / wanted.temperature);
  for (int q = blockIdx.x * kThreads + threadIdx.x; q < quads; q += blocks * kThreads) {
    std::array<uint32_t, 4> bits{};
    if (wanted.temperature > 0) {
      bits = philox4x32(
          {static_cast<uint32_t>(q), wanted.position, wanted.sequence,
           static_cast<uint32_t>(RandomPurpose::sample)},
          {static_cast<uint32_t>(wanted.seed), static_cast<uint32_t>(wanted.seed >> 32)});
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int id = q * 4 + i;
      if (id >= p.vocabulary) break;
      const float score = as_float(scores[id]);
      if (!(score > -INFINITY)) continue;
      if (wanted.temperature > 0 && best.id >= 0 &&
          noisy_bound(score, inverse_temperature, bits[i]) < best.score) {
        continue;
      }
      const double noisy = wanted.temperature > 0
                               ? static_cast<double>(score) / wanted.temperature + gumbel(bits[i])
                               : static_cast<double>(score);
      best = better_of(best, {noisy, id, 0});
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
  if (!is_last || threadIdx.x != 0) return;
  __threadfence();
  for (int i = 0; i < blocks; ++i) {
    const volatile Candidate& other = scratch.candidates[i];
    best = better_of(best, {other.score, other.id, 0});
  }
  scratch.arrived = 0;
  p.ids[row] = best.id;
}

}  // namespace

int64_t pass_draw_scratch_bytes(int64_t rows) {
  return rows * static_cast<int64_t>(sizeof(DrawScratch));
}

template <typename T>
void pass_embed_cuda(const PassEmbedParams<T>& p, CudaStream stream) {
  launch(embed<T>, dim3(static_cast<unsigned>(p.rows)), dim3(kThreads), 0, stream, p);
}

template <typename T>
void pass_draw_cuda(const PassDrawParams<T>& p, CudaStream stream) {
  const unsigned blocks = p.rows >= kManyRows ? kFewDrawBlocks : kMostDrawBlocks;
  launch(draw<T>, dim3(blocks, static_cast<unsigned>(p.rows)), dim3(kThreads), 0, stream, p);
}

template void pass_embed_cuda(const PassEmbedParams<float>&, CudaStream);
template void pass_embed_cuda(const PassEmbedParams<Bf16>&, CudaStream);
template void pass_draw_cuda(const PassDrawParams<float>&, CudaStream);
template void pass_draw_cuda(const PassDrawParams<Bf16>&, CudaStream);

}  // namespace mambify::kernels
