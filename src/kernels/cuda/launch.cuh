// What the CUDA kernels share: launches that overlap with their predecessor's end, 16-byte loads,
// and arithmetic that is the same however a kernel is instantiated.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

#include "kernels/bf16.h"
#include "kernels/cuda/pass.h"
#include "kernels/cuda/runtime.h"

namespace mambify::kernels {

// Launches a kernel that may start before its predecessor in the stream has ended
// (programmatic dependent launch, sm_90 on): it calls wait_for_predecessor() before it touches what
// that wrote, or anything that a kernel before it may still read or write. `cluster` neighbouring
// blocks of the grid's x are a cluster (kernels/cuda/cluster.cuh).
template <typename... Parameters, typename... Arguments>
void launch_clusters(int cluster, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                     size_t shared, CudaStream stream, Arguments&&... arguments) {
  cudaLaunchAttribute attributes[3]{};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  // A multiprocessor runs kernels side by side only where they divide its memory alike.
  attributes[1].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
  attributes[1].val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
  attributes[2].id = cudaLaunchAttributeClusterDimension;
  attributes[2].val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = attributes;
  config.numAttrs = cluster > 1 ? 3 : 2;
  check_cuda(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
}
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, CudaStream stream,
            Arguments&&... arguments) {
  launch_clusters(/*cluster=*/1, kernel, grid, block, shared, stream,
                  std::forward<Arguments>(arguments)...);
}

// Everything that kernels before this one wrote can be read from here on.
__device__ inline void wait_for_predecessor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next kernel may start, as blocks of this one leave room; it waits for this one's end.
__device__ inline void start_successor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// All of kThreads threads, which may be fewer than the block's, wait for one another.
template <int kThreads>
__device__ inline void sync_threads() {
  asm volatile("bar.sync 0, %0;" ::"n"(kThreads) : "memory");
}

// Part `part` of `parts` of the bytes, by one block.
__device__ inline void prefetch_to_l2(const Prefetch& wanted, int part, int parts) {
  constexpr int64_t kLine = 128;
  const int64_t lines = wanted.bytes / kLine;
  const int64_t begin = lines * part / parts, end = lines * (part + 1) / parts;
  const char* data = static_cast<const char*>(wanted.data);
  for (int64_t line = begin + threadIdx.x; line < end; line += blockDim.x) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(data + line * kLine));
  }
}

__device__ inline float as_float(float x) { return x; }
__device__ inline float as_float(Bf16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}

// Rounded to the type, to nearest even.
template <typename T>
__device__ inline T rounded(float x);
template <>
__device__ inline float rounded<float>(float x) {
  return x;
}
template <>
__device__ inline Bf16 rounded<Bf16>(float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}
// What the type keeps of a number.
template <typename T>
__device__ inline float round_to(float x) {
  return as_float(rounded<T>(x));
}

// The compiler may contract a * b + c in one instantiation and not in another; what must be the
// same bits in all says which it wants.
__device__ inline float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }

constexpr float kLog2E = 1.44269504f;
// e^(x ln 2), to 2^-22; what is below the normal numbers is 0.
__device__ inline float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// Without the branches of a division rounded exactly: several at once take hardly longer than one.
// Every kernel uses this one, because some compute the same thing for other numbers of rows.
__device__ inline float silu(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;"
      : "=f"(y)
      : "f"(__fadd_rn(1.0f, fast_exp2(__fmul_rn(x, -kLog2E)))));
  return __fmul_rn(x, y);
}
__device__ inline float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

}  // namespace mambify::kernels
