// Stands in for Mamba-2's recurrence on CUDA in a build without it.
#include "kernels/ssd/cuda.h"

namespace mambify::kernels {
namespace {

[[noreturn]] void refuse() {
  use_cuda_device(0);  // throws, saying that this build computes on the CPU only
  __builtin_unreachable();
}

}  // namespace

template <typename T>
int64_t ssd_scratch_bytes(const SsdCudaParams<T>&) {
  refuse();
}
template <typename T>
int64_t ssd_backward_scratch_bytes(const SsdCudaParams<T>&) {
  refuse();
}
template <typename T>
void ssd_forward_cuda(const SsdCudaParams<T>&, CudaStream) {
  refuse();
}
template <typename T>
void ssd_backward_cuda(const SsdCudaBackwardParams<T>&, CudaStream) {
  refuse();
}

template int64_t ssd_scratch_bytes(const SsdCudaParams<float>&);
template int64_t ssd_scratch_bytes(const SsdCudaParams<Bf16>&);
template int64_t ssd_backward_scratch_bytes(const SsdCudaParams<float>&);
template int64_t ssd_backward_scratch_bytes(const SsdCudaParams<Bf16>&);
template void ssd_forward_cuda(const SsdCudaParams<float>&, CudaStream);
template void ssd_forward_cuda(const SsdCudaParams<Bf16>&, CudaStream);
template void ssd_backward_cuda(const SsdCudaBackwardParams<float>&, CudaStream);
template void ssd_backward_cuda(const SsdCudaBackwardParams<Bf16>&, CudaStream);

}  // namespace mambify::kernels
