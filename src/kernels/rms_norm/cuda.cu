#include <algorithm>

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/sum_parts.h"
#include "kernels/cuda/vector.cuh"
#include "kernels/rms_norm/params.h"

// A team of threads computes the mean of a group: few for the narrow groups of a head, a whole
// block for a row as wide as the layer. The second time that a team reads a group it is in the
// cache.

namespace mambify::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kFewestBlocks = 528;  // that a backward pass is divided among: four a processor

// The sum over a team, in each of its threads. shared: [kThreads / 32].
template <int kTeam>
__device__ inline float team_sum(float x, float* shared) {
  if constexpr (kTeam <= 32) {
#pragma unroll
    for (int offset = kTeam / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
    return x;
  } else {
    static_assert(kTeam == kThreads);
    x = warp_sum(x);
    __syncthreads();  // the sums of the time before have been read
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    float total = 0;
#pragma unroll
    for (int warp = 0; warp < kThreads / 32; ++warp) total += shared[warp];
    return total;
  }
}

// The vectors of a group that each thread of a team keeps in registers: a warp all of 768 channels.
constexpr int held_of(int team) { return team == 32 ? 3 : 2; }

// What a thread has of a group: vector v is at element begin + v kTeam kCount. The first kHeld,
// which are all but in the widest rows, are read once and stay in registers.
template <typename T, int kCount, int kHeld>
struct Held {
  ElementBits<T, kCount> vectors[kHeld];

  __device__ void load(const T* row, int begin, int step, int size) {
#pragma unroll
    for (int v = 0; v < kHeld; ++v) {
      vectors[v] = {};
      const int k = begin + v * step;
      if (row && k < size) vectors[v] = *reinterpret_cast<const ElementBits<T, kCount>*>(row + k);
    }
  }
};

// Calls f(element, from each of the arrays) for a thread's vectors of a group.
template <typename T, int kCount, int kHeld, typename F, typename... Rows>
__device__ inline void for_each_vector(int begin, int step, int size, const F& f,
                                       const Rows&... rows) {
#pragma unroll
  for (int v = 0; v < kHeld; ++v) {
    const int k = begin + v * step;
    if (k < size) f(k, elements_of<T, kCount>(rows.held.vectors[v])...);
  }
  for (int k = begin + kHeld * step; k < size; k += step) {
    f(k, (rows.row ? load_elements<kCount>(rows.row + k) : Elements<kCount>{})...);
  }
}

// A row in memory and what is held of it.
template <typename T, int kCount, int kHeld>
struct Row {
  const T* row;
  Held<T, kCount, kHeld> held;
};
template <int kCount, int kHeld, typename T>
__device__ inline Row<T, kCount, kHeld> load_row(const T* row, int begin, int step, int size) {
  Row<T, kCount, kHeld> result{row, {}};
  result.held.load(row, begin, step, size);
  return result;
}

template <typename T, int kCount, int kTeam>
__global__ void __launch_bounds__(kThreads) forward(RmsNormParams<T> p) {
  __shared__ float shared[kThreads / 32];
  constexpr int kHeld = held_of(kTeam), kStep = kTeam * kCount;
  const int64_t groups = p.channels / p.group_size;
  const int64_t task = int64_t{blockIdx.x} * (kThreads / kTeam) + threadIdx.x / kTeam;
  const int64_t row = task / groups, first = (task - row * groups) * p.group_size;
  // Threads without a group take part in the sum of those with one.
  const int size = row < p.rows ? static_cast<int>(p.group_size) : 0;
  const int begin = threadIdx.x % kTeam * kCount;
  const auto x = load_row<kCount, kHeld>(p.x + row * p.x_stride + first, begin, kStep, size);
  const auto z =
      load_row<kCount, kHeld>(p.z ? p.z + row * p.z_stride + first : nullptr, begin, kStep, size);
  const bool gated = p.z != nullptr;
  const auto for_each_input = [&](const auto& f) {
    for_each_vector<T, kCount, kHeld>(
        begin, kStep, size,
        [&](int k, Elements<kCount> u, const Elements<kCount>& gate) {
          if (gated) {
#pragma unroll
            for (int i = 0; i < kCount; ++i) u[i] *= silu(gate[i]);
          }
          f(k, u);
        },
        x, z);
  };
  float squares = 0;
  for_each_input([&](int, const Elements<kCount>& u) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) squares += u[i] * u[i];
  });
  const float inverse = inverse_rms(team_sum<kTeam>(squares, shared), size, p.eps);
  for_each_input([&](int k, Elements<kCount> y) {
    const auto weight = load_elements<kCount>(p.weight + first + k);
#pragma unroll
    for (int i = 0; i < kCount; ++i) y[i] *= inverse * weight[i];
    store_elements(y, p.y + row * p.channels + first + k);
  });
  if (p.inverse_rms && size > 0 && begin == 0) p.inverse_rms[task] = inverse;
}

// Block (group, part) takes one group of every part-th rows, a row each team. partial:
// [parts, channels], what the blocks' rows add to dweight; null: not wanted. A thread adds up what
// its own elements do in shared memory, which is large enough for any number of them:
// [teams, kCount, group_size / kCount].
template <typename T, int kCount, int kTeam>
__global__ void __launch_bounds__(kThreads)
    backward(RmsNormBackwardParams<T> p, float* __restrict__ partial) {
  extern __shared__ float dweight[];
  __shared__ float shared[kThreads / 32];
  constexpr int kHeld = held_of(kTeam), kStep = kTeam * kCount, kTeams = kThreads / kTeam;
  const RmsNormParams<T>& f = p.forward;
  const int group_size = static_cast<int>(f.group_size), vectors = group_size / kCount;
  const int64_t first = blockIdx.x * f.group_size;
  const int team = threadIdx.x / kTeam, begin = threadIdx.x % kTeam * kCount;
  const bool gated = f.z != nullptr;
  float* own = dweight + team * group_size;
  if (partial) {
    for (int k = threadIdx.x; k < kTeams * group_size; k += kThreads) dweight[k] = 0;
    __syncthreads();
  }
  for (int64_t row0 = int64_t{blockIdx.y} * kTeams; row0 < f.rows;
       row0 += int64_t{gridDim.y} * kTeams) {
    const int64_t row = row0 + team, output = row * f.channels + first;
    const int size = row < f.rows ? group_size : 0;
    const auto x = load_row<kCount, kHeld>(f.x + row * f.x_stride + first, begin, kStep, size);
    const auto dy = load_row<kCount, kHeld>(p.dy + output, begin, kStep, size);
    const auto z = load_row<kCount, kHeld>(gated ? f.z + row * f.z_stride + first : nullptr, begin,
                                           kStep, size);
    const float r = size > 0 ? f.inverse_rms[row * gridDim.x + blockIdx.x] : 0;
    using Vector = Elements<kCount>;

    float projection = 0;
    for_each_vector<T, kCount, kHeld>(
        begin, kStep, size,
        [&](int k, Vector u, const Vector& g, const Vector& gate) {
          const auto weight = load_elements<kCount>(f.weight + first + k);
          if (gated) {
#pragma unroll
            for (int i = 0; i < kCount; ++i) u[i] *= silu(gate[i]);
          }
#pragma unroll
          for (int i = 0; i < kCount; ++i) projection += g[i] * weight[i] * u[i];
        },
        x, dy, z);
    const float pull = r * r * team_sum<kTeam>(projection, shared) / group_size;
    for_each_vector<T, kCount, kHeld>(
        begin, kStep, size,
        [&](int k, const Vector& input, const Vector& g, const Vector& gate) {
          const auto weight = load_elements<kCount>(f.weight + first + k);
          Vector u = input, dx;
          if (gated) {
            Vector dz;
#pragma unroll
            for (int i = 0; i < kCount; ++i) {
              const float s = sigmoid(gate[i]), activated = gate[i] * s;
              u[i] *= activated;
              const float du = r * (g[i] * weight[i] - u[i] * pull);
              dx[i] = du * activated;
              dz[i] = du * input[i] * silu_gradient(gate[i], s);
            }
            store_elements(dz, p.dz + output + k);
          } else {
#pragma unroll
            for (int i = 0; i < kCount; ++i) dx[i] = r * (g[i] * weight[i] - u[i] * pull);
          }
          store_elements(dx, p.dx + output + k);
          if (!partial) return;
#pragma unroll
          for (int i = 0; i < kCount; ++i) own[i * vectors + k / kCount] += g[i] * u[i] * r;
        },
        x, dy, z);
  }
  if (!partial) return;
  __syncthreads();
  for (int k = threadIdx.x; k < group_size; k += kThreads) {
    const int place = k % kCount * vectors + k / kCount;
    float sum = 0;
    for (int t = 0; t < kTeams; ++t) sum += dweight[t * group_size + place];
    partial[blockIdx.y * f.channels + first + k] = sum;
  }
}

// Threads for a group of this size.
int team_of(int64_t group_size) { return group_size <= 256 ? 8 : group_size <= 1024 ? 32 : 256; }

int64_t parts_of(int64_t rows, int64_t channels, int64_t group_size) {
  const int64_t groups = channels / group_size, teams = kThreads / team_of(group_size);
  return std::clamp((kFewestBlocks + groups - 1) / groups, int64_t{1},
                    std::max<int64_t>(1, (rows + teams - 1) / teams));
}

template <typename T, int kCount, int kTeam>
void start_forward(const RmsNormParams<T>& p, CudaStream stream) {
  constexpr int64_t kTeams = kThreads / kTeam;
  const int64_t tasks = p.rows * (p.channels / p.group_size);
  forward<T, kCount, kTeam><<<static_cast<unsigned>((tasks + kTeams - 1) / kTeams), kThreads, 0,
                              static_cast<cudaStream_t>(stream)>>>(p);
  check_cuda(cudaGetLastError());
}

template <typename T, int kCount, int kTeam>
void start_backward(const RmsNormBackwardParams<T>& p, float* partial, CudaStream stream) {
  const RmsNormParams<T>& f = p.forward;
  const auto shared = static_cast<int>(partial ? kThreads / kTeam * f.group_size * 4 : 0);
  constexpr int kSharedWithoutAsking = 48 << 10;
  if (shared > kSharedWithoutAsking) {
    check_cuda(cudaFuncSetAttribute(backward<T, kCount, kTeam>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  }
  const dim3 grid(static_cast<unsigned>(f.channels / f.group_size),
                  static_cast<unsigned>(parts_of(f.rows, f.channels, f.group_size)));
  backward<T, kCount, kTeam>
      <<<grid, kThreads, shared, static_cast<cudaStream_t>(stream)>>>(p, partial);
  check_cuda(cudaGetLastError());
}

template <typename T>
bool inputs_in_vectors(const RmsNormParams<T>& p) {
  constexpr int kSize = kVectorSize<T>;
  return p.group_size % kSize == 0 && in_vectors(p.x, p.x_stride, kSize) &&
         in_vectors(p.z, p.z_stride, kSize) && in_vectors(p.weight, 0, kSize);
}

template <typename T, int kCount>
void start_forward(const RmsNormParams<T>& p, CudaStream stream) {
  switch (team_of(p.group_size)) {
    case 8:
      return start_forward<T, kCount, 8>(p, stream);
    case 32:
      return start_forward<T, kCount, 32>(p, stream);
    default:
      return start_forward<T, kCount, kThreads>(p, stream);
  }
}

template <typename T, int kCount>
void start_backward(const RmsNormBackwardParams<T>& p, float* partial, CudaStream stream) {
  switch (team_of(p.forward.group_size)) {
    case 8:
      return start_backward<T, kCount, 8>(p, partial, stream);
    case 32:
      return start_backward<T, kCount, 32>(p, partial, stream);
    default:
      return start_backward<T, kCount, kThreads>(p, partial, stream);
  }
}

}  // namespace

template <typename T>
void rms_norm_forward_cuda(const RmsNormParams<T>& p, CudaStream stream) {
  require(p.group_size > 0 && p.channels % p.group_size == 0,
          "rms_norm: groups do not divide the channels");
  if (p.rows == 0) return;
  constexpr int kSize = kVectorSize<T>;
  if (inputs_in_vectors(p) && in_vectors(p.y, p.channels, kSize)) {
    start_forward<T, kSize>(p, stream);
  } else {
    start_forward<T, 1>(p, stream);
  }
}

int64_t rms_norm_backward_scratch_bytes(int64_t rows, int64_t channels, int64_t group_size) {
  return parts_of(rows, channels, group_size) * channels * static_cast<int64_t>(sizeof(float));
}

template <typename T>
void rms_norm_backward_cuda(const RmsNormBackwardParams<T>& p, void* scratch, CudaStream stream) {
  constexpr int kSize = kVectorSize<T>;
  const RmsNormParams<T>& f = p.forward;
  float* partial = p.dweight ? static_cast<float*>(scratch) : nullptr;
  if (inputs_in_vectors(f) && in_vectors(p.dy, f.channels, kSize) &&
      in_vectors(p.dx, f.channels, kSize) && in_vectors(f.z ? p.dz : nullptr, f.channels, kSize)) {
    start_backward<T, kSize>(p, partial, stream);
  } else {
    start_backward<T, 1>(p, partial, stream);
  }
  if (partial) {
    sum_parts_cuda({.partial = partial,
                    .parts = parts_of(f.rows, f.channels, f.group_size),
                    .stride = f.channels,
                    .columns = f.channels,
                    .total = p.dweight},
                   stream);
  }
}

template void rms_norm_forward_cuda(const RmsNormParams<float>&, CudaStream);
template void rms_norm_forward_cuda(const RmsNormParams<Bf16>&, CudaStream);
template void rms_norm_backward_cuda(const RmsNormBackwardParams<float>&, void*, CudaStream);
template void rms_norm_backward_cuda(const RmsNormBackwardParams<Bf16>&, void*, CudaStream);

}  // namespace mambify::kernels
