// Stands in for the kernels of training in a build without CUDA: there is no device whose tensors
// would reach them.
#include "core/error.h"
#include "kernels/causal_conv1d/params.h"
#include "kernels/logit_loss/params.h"
#include "kernels/rms_norm/params.h"
#include "kernels/rotary/params.h"
#include "kernels/selective_scan/params.h"
#include "kernels/swiglu/params.h"

namespace mambify::kernels {
namespace {

[[noreturn]] void refuse() { throw Error("this build of mambify has no CUDA kernels"); }

}  // namespace

template <typename T>
void causal_conv1d_forward_cuda(const CausalConv1dCudaParams<T>&, CudaStream) {
  refuse();
}
template <typename T>
void causal_conv1d_backward_cuda(const CausalConv1dCudaBackwardParams<T>&, void*, CudaStream) {
  refuse();
}
int64_t causal_conv1d_backward_scratch_bytes(int64_t, int64_t, int64_t) { refuse(); }

template <typename T>
void logit_loss_cuda(const LogitLossParams<T>&, CudaStream) {
  refuse();
}

template <typename T>
void rms_norm_forward_cuda(const RmsNormParams<T>&, CudaStream) {
  refuse();
}
template <typename T>
void rms_norm_backward_cuda(const RmsNormBackwardParams<T>&, void*, CudaStream) {
  refuse();
}
int64_t rms_norm_backward_scratch_bytes(int64_t, int64_t, int64_t) { refuse(); }

template <typename T>
void rotary_cuda(const RotaryParams<T>&, CudaStream) {
  refuse();
}

template <typename T>
void selective_scan_forward_cuda(const SelectiveScanCudaParams<T>&, CudaStream) {
  refuse();
}
template <typename T>
void selective_scan_backward_cuda(const SelectiveScanCudaBackwardParams<T>&, void*, CudaStream) {
  refuse();
}
template <typename T>
int64_t selective_scan_checkpoint_bytes(const SelectiveScanCudaParams<T>&) {
  refuse();
}
template <typename T>
int64_t selective_scan_backward_scratch_bytes(const SelectiveScanCudaParams<T>&) {
  refuse();
}

template <typename T>
void swiglu_forward_cuda(const SwiGluRowsParams<T>&, CudaStream) {
  refuse();
}
template <typename T>
void swiglu_backward_cuda(const SwiGluRowsBackwardParams<T>&, CudaStream) {
  refuse();
}

template void causal_conv1d_forward_cuda(const CausalConv1dCudaParams<float>&, CudaStream);
template void causal_conv1d_forward_cuda(const CausalConv1dCudaParams<Bf16>&, CudaStream);
template void causal_conv1d_backward_cuda(const CausalConv1dCudaBackwardParams<float>&, void*,
                                          CudaStream);
template void causal_conv1d_backward_cuda(const CausalConv1dCudaBackwardParams<Bf16>&, void*,
                                          CudaStream);
template void logit_loss_cuda(const LogitLossParams<float>&, CudaStream);
template void logit_loss_cuda(const LogitLossParams<Bf16>&, CudaStream);
template void rms_norm_forward_cuda(const RmsNormParams<float>&, CudaStream);
template void rms_norm_forward_cuda(const RmsNormParams<Bf16>&, CudaStream);
template void rms_norm_backward_cuda(const RmsNormBackwardParams<float>&, void*, CudaStream);
template void rms_norm_backward_cuda(const RmsNormBackwardParams<Bf16>&, void*, CudaStream);
template void rotary_cuda(const RotaryParams<float>&, CudaStream);
template void rotary_cuda(const RotaryParams<Bf16>&, CudaStream);
template void selective_scan_forward_cuda(const SelectiveScanCudaParams<float>&, CudaStream);
template void selective_scan_forward_cuda(const SelectiveScanCudaParams<Bf16>&, CudaStream);
template void selective_scan_backward_cuda(const SelectiveScanCudaBackwardParams<float>&, void*,
                                           CudaStream);
template void selective_scan_backward_cuda(const SelectiveScanCudaBackwardParams<Bf16>&, void*,
                                           CudaStream);
template int64_t selective_scan_checkpoint_bytes(const SelectiveScanCudaParams<float>&);
template int64_t selective_scan_checkpoint_bytes(const SelectiveScanCudaParams<Bf16>&);
template int64_t selective_scan_backward_scratch_bytes(const SelectiveScanCudaParams<float>&);
template int64_t selective_scan_backward_scratch_bytes(const SelectiveScanCudaParams<Bf16>&);
template void swiglu_forward_cuda(const SwiGluRowsParams<float>&, CudaStream);
template void swiglu_forward_cuda(const SwiGluRowsParams<Bf16>&, CudaStream);
template void swiglu_backward_cuda(const SwiGluRowsBackwardParams<float>&, CudaStream);
template void swiglu_backward_cuda(const SwiGluRowsBackwardParams<Bf16>&, CudaStream);

}  // namespace mambify::kernels
