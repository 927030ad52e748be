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

// Counts the bytes that other blocks have written to this one's shared memory.
using Arrivals = uint64_t;
__device__ inline uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
// By one thread, before the block arrives at the cluster for the first time.
__device__ inline void expect_bytes(Arrivals* arrivals, uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(arrivals)) : "memory");
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(arrivals)),
      "r"(bytes)
      : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}
// What the bytes that were expected are can be read behind this.
__device__ inline void await_bytes(Arrivals* arrivals) {
#if __CUDA_ARCH__ >= 900
  uint32_t arrived = 0;
  while (arrived == 0) {
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], 0;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(arrived)
        : "r"(shared_address(arrivals))
        : "memory");
  }
#endif
}
// Writes to where `to` is in block `rank` of the cluster, which must have begun and may not end
// before this has arrived there.
__device__ inline void store_in_cluster(float4* to, Arrivals* arrivals, int rank, float4 value) {
#if __CUDA_ARCH__ >= 900
  const auto in_block = [&](const void* shared) {
    uint32_t address;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(address)
                 : "r"(shared_address(shared)), "r"(rank));
    return address;
  };
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, "
      "[%5];" ::"r"(in_block(to)),
      "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w), "r"(in_block(arrivals))
      : "memory");
#endif
}

}  // namespace mambify::kernels
