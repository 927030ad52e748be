// Outputs of a chunk: what its own inputs give, by scores C B^T that decay with the distance, and
// what the state before it gives.
#include "kernels/cuda/fragment.cuh"
#include "kernels/ssd/cuda_chunks.cuh"

namespace mambify::kernels {
namespace ssd {
namespace {

constexpr int kRowParts = 2;  // a chunk's rows are divided among so many warps

template <typename T, int kP, int kN>
struct OutputTiles {
  static constexpr int kTokens = kChunk<T>;
  T x[kTokens * pitch_of<T>(kP)];
  T B[kTokens * pitch_of<T>(kN)];
  T C[kTokens * pitch_of<T>(kN)];
  T state[kP * pitch_of<T>(kN)];
  T scores[kTokens * pitch_of<T>(kTokens)];
  float steps[kStepRows][kTokens];
};

// A block per chunk and head.
template <typename T, int kP, int kN, int kColumnParts>
__global__ void __launch_bounds__(32 * kRowParts * kColumnParts)
    outputs_of_chunks(SsdCudaParams<T> p, const Chunk* table, const float* steps, const T* states) {
  constexpr int kTokens = kChunk<T>, kThreads = 32 * kRowParts * kColumnParts;
  constexpr int kRows = kTokens / kRowParts, kRowTiles = kRows / 16;
  constexpr int kKeys = kTokens / kColumnParts, kColumns = kP / kColumnParts;  // of a warp
  extern __shared__ __align__(16) char shared[];
  auto& tiles = *reinterpret_cast<OutputTiles<T, kP, kN>*>(shared);
  const int heads = static_cast<int>(p.heads), P = static_cast<int>(p.head_dim),
            N = static_cast<int>(p.d_state);
  const int64_t chunk = blockIdx.x / heads;
  const int head = static_cast<int>(blockIdx.x) % heads;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int row = warp / kColumnParts * kRows, part = warp % kColumnParts;
  const auto group = [&](int64_t groups) { return head / (heads / static_cast<int>(groups)); };
  wait_for_predecessor();
  const Chunk place = table[chunk];
  if (place.tokens == 0) return;

  const int64_t token = place.token;
  copy_tile<kTokens, kN, kThreads>(tiles.C, p.C + token * p.c_stride + group(p.c_groups) * N,
                                   p.c_stride, place.tokens, N);
  copy_tile<kTokens, kN, kThreads>(tiles.B, p.B + token * p.b_stride + group(p.b_groups) * N,
                                   p.b_stride, place.tokens, N);
  const float* of_head = steps + (chunk * heads + head) * kStepRows * kTokens;
  for (int i = static_cast<int>(threadIdx.x) * 4; i < kStepRows * kTokens; i += kThreads * 4) {
    copy_async(tiles.steps[0] + i, of_head + i);
  }
  end_copy_group();
  copy_tile<kP, kN, kThreads>(tiles.state, states + (chunk * heads + head) * kP * kN, kN, kP, kN);
  copy_tile<kTokens, kP, kThreads>(tiles.x, p.x + token * p.x_stride + group(p.x_groups) * P,
                                   p.x_stride, place.tokens, P);
  end_copy_group();
  await_copies<1>();
  __syncthreads();

  // Inputs behind the last row of this warp count nothing.
  if (part * kKeys < row + kRows) {
    Fragment<kRowTiles, kKeys / 8> scores;
    multiply<kN>(scores, along<kN>(tiles.C) + row, along<kN>(tiles.B) + part * kKeys);
    const float D = p.D ? p.D[head] : 0.0f;
    scores.each_pair([&](int, int, int r, int c, float& low, float& high) {
      const int i = row + r;
      const auto decayed = [&](float score, int k) {
        if (k > i) return 0.0f;
        const float decay = fast_exp2(tiles.steps[kLogDecay][i] - tiles.steps[kLogDecay][k]);
        return score * decay * tiles.steps[kStep][k] + (k == i ? D : 0.0f);
      };
      const int k = part * kKeys + c;
      store_pair(tiles.scores + i * pitch_of<T>(kTokens) + k, decayed(low, k),
                 decayed(high, k + 1));
    });
  }
  await_copies<0>();
  __syncthreads();

  Fragment<kRowTiles, kColumns / 8> y;
  multiply<kN>(y, along<kN>(tiles.C) + row, along<kN>(tiles.state) + part * kColumns);
  y.each_pair([&](int, int, int r, int, float& low, float& high) {
    const float decay = tiles.steps[kSinceBegin][row + r];
    low *= decay, high *= decay;
  });
  multiply<kTokens>(y, along<kTokens>(tiles.scores) + row, across<kP>(tiles.x) + part * kColumns, 0,
                    row + kRows);
  store_fragment(y, p.y + ((token + row) * heads + head) * P + part * kColumns, int64_t{heads} * P,
                 place.tokens - row, P - part * kColumns);
}

template <typename T>
void launch_outputs(const SsdCudaParams<T>& p, const Plan& plan, CudaStream stream) {
  with_widths(plan, [&]<int kP, int kN>() {
    constexpr int kColumnParts = sizeof(T) == 2 && kP == 64 && kN == 64 ? 2 : 4;
    launch_with_shared(outputs_of_chunks<T, kP, kN, kColumnParts>, plan.chunks * plan.heads,
                       32 * kRowParts * kColumnParts,
                       static_cast<int>(sizeof(OutputTiles<T, kP, kN>)), stream, p, plan.chunk,
                       plan.steps, static_cast<const T*>(plan.states));
  });
}

}  // namespace
}  // namespace ssd

template <typename T>
int64_t ssd_scratch_bytes(const SsdCudaParams<T>& p) {
  return ssd::plan_forward(p).bytes;
}

template <typename T>
void ssd_forward_cuda(const SsdCudaParams<T>& p, CudaStream stream) {
  const ssd::Plan plan = ssd::plan_forward(p);
  if (p.documents == 0) return;
  ssd::prepare_chunks(p, plan, stream);
  ssd::scan_states<T>(p, nullptr, plan, stream);
  ssd::launch_outputs(p, plan, stream);
}

template int64_t ssd_scratch_bytes(const SsdCudaParams<float>&);
template int64_t ssd_scratch_bytes(const SsdCudaParams<Bf16>&);
template void ssd_forward_cuda(const SsdCudaParams<float>&, CudaStream);
template void ssd_forward_cuda(const SsdCudaParams<Bf16>&, CudaStream);

}  // namespace mambify::kernels
