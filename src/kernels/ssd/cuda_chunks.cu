// Plans of runs, the table of chunks, and what is known of each token before any product.
#include <algorithm>
#include <numeric>

#include "kernels/ssd/cuda_chunks.cuh"

namespace mambify::kernels::ssd {
namespace {

constexpr int kTableThreads = 1024;

// By one block: numbers every document's chunks, then writes where each lies.
__global__ void __launch_bounds__(kTableThreads)
    table_of_chunks(const int32_t* starts, int documents, int chunk_length, int chunks,
                    int32_t* first_chunk, Chunk* table) {
  __shared__ int warp_totals[32];
  wait_for_predecessor();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  int before = 0;  // chunks of the documents of earlier rounds
  for (int begin = 0; begin < documents; begin += kTableThreads) {
    const int document = begin + thread;
    const int own =
        document < documents
            ? (starts[document + 1] - starts[document] + chunk_length - 1) / chunk_length
            : 0;
    int sum = own;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int other = __shfl_up_sync(~0u, sum, distance);
      if (lane >= distance) sum += other;
    }
    if (lane == 31) warp_totals[warp] = sum;
    __syncthreads();
    int total = 0;
    for (int w = 0; w < 32; ++w) {
      if (w < warp) sum += warp_totals[w];
      total += warp_totals[w];
    }
    if (document < documents) first_chunk[document] = before + sum - own;
    before += total;
    __syncthreads();
  }
  if (thread == 0) first_chunk[documents] = before;
  __syncthreads();
  for (int chunk = thread; chunk < chunks; chunk += kTableThreads) {
    Chunk place;
    if (chunk < before) {
      int low = 0, high = documents;  // first_chunk[low] <= chunk < first_chunk[high]
      while (high - low > 1) {
        const int middle = (low + high) / 2;
        (first_chunk[middle] <= chunk ? low : high) = middle;
      }
      place.token = starts[low] + (chunk - first_chunk[low]) * chunk_length;
      place.tokens = min(starts[low + 1] - place.token, chunk_length);
    }
    table[chunk] = place;
  }
}

constexpr int kStepThreads = 256, kStepHeads = 32;

// A block per chunk and 32 heads.
template <typename T>
__global__ void __launch_bounds__(kStepThreads)
    steps_of_tokens(SsdCudaParams<T> p, const Chunk* table, int head_blocks, float* steps) {
  constexpr int kTokens = kChunk<T>, kPerLane = kTokens / 32;
  __shared__ float step[kTokens][kStepHeads + 1], slope[kTokens][kStepHeads + 1];
  wait_for_predecessor();
  const int64_t chunk = blockIdx.x / head_blocks;
  const int first_head = static_cast<int>(blockIdx.x) % head_blocks * kStepHeads;
  const int heads = static_cast<int>(p.heads);
  const Chunk place = table[chunk];
  if (place.tokens == 0) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int head = first_head + lane;
  const float bias = p.dt_bias && head < heads ? p.dt_bias[head] : 0.0f;
  for (int i = warp; i < kTokens; i += kStepThreads / 32) {
    float s = 0, ds = 0;
    if (i < place.tokens && head < heads) {
      const float raw = as_float(p.dt[(int64_t{place.token} + i) * p.dt_stride + head]) + bias;
      const float unclamped = softplus(raw);
      s = fminf(fmaxf(unclamped, p.dt_min), p.dt_max);
      ds = unclamped < p.dt_min || unclamped > p.dt_max ? 0.0f : 1.0f / (1.0f + expf(-raw));
    }
    step[i][lane] = s;
    slope[i][lane] = ds;
  }
  __syncthreads();
  for (int h = warp; h < kStepHeads && first_head + h < heads; h += kStepThreads / 32) {
    const float rate = p.A[first_head + h] * kLog2E;
    float of_token[kPerLane], sum = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      of_token[i] = step[lane * kPerLane + i][h] * rate;
      sum += of_token[i];
    }
    // Of the tokens up to this lane's, and of those from it on: a difference of long sums would not
    // tell how little lies between two tokens.
    float before = sum, behind = sum;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const float lower = __shfl_up_sync(~0u, before, distance);
      const float upper = __shfl_down_sync(~0u, behind, distance);
      if (lane >= distance) before += lower;
      if (lane + distance < 32) behind += upper;
    }
    before = __shfl_up_sync(~0u, before, 1);
    behind = __shfl_down_sync(~0u, behind, 1);
    if (lane == 0) before = 0;
    if (lane == 31) behind = 0;
    float since_begin[kPerLane], until_end[kPerLane];
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) since_begin[i] = before += of_token[i];
#pragma unroll
    for (int i = kPerLane - 1; i >= 0; --i) {
      until_end[i] = behind;
      behind += of_token[i];
    }
    float* rows = steps + (chunk * heads + first_head + h) * kStepRows * kTokens;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int token = lane * kPerLane + i;
      const float s = step[token][h], left = fast_exp2(until_end[i]);
      rows[kStep * kTokens + token] = s;
      rows[kLogDecay * kTokens + token] = since_begin[i];
      rows[kUntilEnd * kTokens + token] = left;
      rows[kInput * kTokens + token] = left * s;
      rows[kSinceBegin * kTokens + token] = fast_exp2(since_begin[i]);
      rows[kSlope * kTokens + token] = slope[token][h];
    }
  }
}

template <typename T>
void check(const SsdCudaParams<T>& p) {
  constexpr int64_t kVector = 16 / static_cast<int64_t>(sizeof(T)), kMost = 128;
  const auto fits = [](int64_t width) {
    return width > 0 && width <= kMost && width % kVector == 0;
  };
  require(fits(p.head_dim) && fits(p.d_state),
          "ssd: head_dim and d_state must be multiples of 16 bytes, and at most 128");
  const auto divides = [&](int64_t groups) { return groups > 0 && p.heads % groups == 0; };
  require(p.heads > 0 && divides(p.x_groups) && divides(p.b_groups) && divides(p.c_groups),
          "ssd: groups of x, B and C must divide the heads");
  require(p.documents >= 0 && p.tokens >= 0 && p.documents < (1 << 30) && p.tokens < (1 << 30),
          "ssd: more documents or tokens than 2^30");
  const auto aligned = [](const T* data, int64_t stride) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % kVector == 0;
  };
  require(aligned(p.x, p.x_stride) && aligned(p.B, p.b_stride) && aligned(p.C, p.c_stride),
          "ssd: rows of x, B and C must start at multiples of 16 bytes");
  require(reinterpret_cast<uintptr_t>(p.scratch) % 16 == 0, "ssd: scratch is not aligned");
}

template <typename T>
Plan plan_common(const SsdCudaParams<T>& p, Scratch& scratch) {
  check(p);
  Plan plan{.documents = p.documents, .tokens = p.tokens, .heads = p.heads};
  plan.chunks = p.tokens / kChunk<T> + p.documents;
  plan.state = p.d_state <= 64 && p.head_dim <= 64 ? 64 : 128;
  plan.head = p.head_dim <= 64 ? 64 : 128;
  scratch.take(plan.first_chunk, (p.documents + 1) * 4);
  scratch.take(plan.chunk, plan.chunks * static_cast<int64_t>(sizeof(Chunk)));
  scratch.take(plan.steps, plan.chunks * p.heads * kStepRows * kChunk<T> * 4);
  scratch.take(plan.states,
               plan.chunks * p.heads * plan.head * plan.state * static_cast<int64_t>(sizeof(T)));
  return plan;
}

}  // namespace

template <typename T>
int64_t heads_together(const SsdCudaParams<T>& p) {
  return std::gcd(p.heads / p.x_groups, p.heads / p.b_groups);
}

template <typename T>
Plan plan_forward(const SsdCudaParams<T>& p) {
  Scratch scratch(p.scratch);
  Plan plan = plan_common(p, scratch);
  plan.bytes = scratch.bytes();
  return plan;
}

template <typename T>
Plan plan_backward(const SsdCudaParams<T>& p) {
  Scratch scratch(p.scratch);
  Plan plan = plan_common(p, scratch);
  scratch.take(plan.adjoints,
               plan.chunks * p.heads * plan.head * plan.state * static_cast<int64_t>(sizeof(T)));
  scratch.take(plan.sums, 3 * p.heads * plan.chunks * 4);
  const int64_t blocks = p.heads / heads_together(p);
  const auto take = [&](float*& piece, int64_t slots, int64_t groups, int64_t width) {
    if (slots != groups) scratch.take(piece, p.tokens * slots * width * 4);
  };
  take(plan.dx, blocks, p.x_groups, p.head_dim);
  take(plan.dB, blocks, p.b_groups, p.d_state);
  take(plan.dC, p.heads, p.c_groups, p.d_state);
  plan.bytes = scratch.bytes();
  return plan;
}

template <typename T>
void prepare_chunks(const SsdCudaParams<T>& p, const Plan& plan, CudaStream stream) {
  launch(table_of_chunks, dim3(1), dim3(kTableThreads), 0, stream, p.starts,
         static_cast<int>(p.documents), kChunk<T>, static_cast<int>(plan.chunks), plan.first_chunk,
         plan.chunk);
  const int64_t head_blocks = (p.heads + kStepHeads - 1) / kStepHeads;
  launch(steps_of_tokens<T>, dim3(static_cast<unsigned>(plan.chunks * head_blocks)),
         dim3(kStepThreads), 0, stream, p, plan.chunk, static_cast<int>(head_blocks), plan.steps);
}

template int64_t heads_together(const SsdCudaParams<float>&);
template int64_t heads_together(const SsdCudaParams<Bf16>&);
template Plan plan_forward(const SsdCudaParams<float>&);
template Plan plan_forward(const SsdCudaParams<Bf16>&);
template Plan plan_backward(const SsdCudaParams<float>&);
template Plan plan_backward(const SsdCudaParams<Bf16>&);
template void prepare_chunks(const SsdCudaParams<float>&, const Plan&, CudaStream);
template void prepare_chunks(const SsdCudaParams<Bf16>&, const Plan&, CudaStream);

}  // namespace mambify::kernels::ssd
