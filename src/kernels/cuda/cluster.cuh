// Clusters: blocks that run at the same time and write into one another's shared memory; sm_90 on.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace mambify::kernels {

// Whether the kernel was compiled for a device that has clusters, and runs on one.
template <typename... Parameters>
bool has_clusters(void (*kernel)(Parameters...)) {
  constexpr int kFirst = 90;
  cudaFuncAttributes attributes{};
  check_cuda(cudaFuncGetAttributes(&attributes, kernel));
  return attributes.ptxVersion >= kFirst;
}

// Every thread of a cluster arrives, and waits before it arrives again; it may end instead. What
// was written before an arrival can be read behind the wait.
__device__ inline void arrive_at_cluster() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
#endif
}
__device__ inline void wait_for_cluster() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
#endif
}

// Writes to where `to` is in block `rank` of the cluster, which must have begun and may not end
// before it knows of this.
__device__ inline void store_in_cluster(float* to, int rank, float value) {
#if __CUDA_ARCH__ >= 900
  uint32_t address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(address)
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))), "r"(rank));
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(address), "f"(value) : "memory");
#endif
}

}  // namespace mambify::kernels
