#include "ops/cuda.h"

#include <ATen/Context.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <cstdlib>

#include "core/error.h"

namespace mambify {
namespace {

void open_library() {
  // Global: what it registers itself with is in libtorch_cpu, and its kernels' helpers look each
  // other up.
  static const void* library = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL);
  if (library != nullptr) return;
  const char* reason = dlerror();
  throw Error(
      "LibTorch's CUDA library cannot be loaded: {}. On a machine with a GPU scripts/setup.sh "
      "installs what it needs",
      reason != nullptr ? reason : "it failed before");
}

// The same seed on the same machine gives the same bits: attention's backward pass would add in the
// order in which blocks happen to end.
void make_deterministic() {
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  at::Context& context = at::globalContext();
  context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  context.setDeterministicFillUninitializedMemory(false);
  context.setSDPUseMemEfficient(false);  // of fp32: it has no deterministic backward pass
}

}  // namespace

at::Device load_torch_cuda(int device) {
  kernels::use_cuda_device(device);
  make_deterministic();
  open_library();
  at::globalContext().lazyInitDevice(at::kCUDA);
  const at::Device chosen(at::kCUDA, static_cast<at::DeviceIndex>(device));
  c10::impl::VirtualGuardImpl(at::kCUDA).setDevice(chosen);
  // Products of fp32 are those of fp32, and sums of bf16 products are kept in fp32.
  at::globalContext().setAllowTF32CuBLAS(false);
  at::globalContext().setAllowBF16ReductionCuBLAS(/*allow_reduced_precision=*/false);
  return chosen;
}

kernels::CudaStream current_cuda_stream() {
  const c10::impl::VirtualGuardImpl guard(at::kCUDA);
  TORCH_INTERNAL_ASSERT(guard.getStream(guard.getDevice()).id() == 0,
                        "kernels are launched on the default stream only");
  return nullptr;
}

at::Tensor sent_to(const at::Tensor& host, at::Device device) {
  if (device.is_cpu()) return host;
  return host.pin_memory().to(device, host.scalar_type(), /*non_blocking=*/true);
}

void place_on(Segments& segments, at::Device device) {
  if (device.is_cpu()) return;
  const at::Tensor starts = sent_to(at::tensor(segments.starts, at::kInt), device);
  segments.device_starts = {starts.const_data_ptr<int32_t>(), [starts](const int32_t*) {}};
}

at::Tensor device_starts_of(const Segments& segments, at::Device device) {
  TORCH_CHECK(segments.device_starts != nullptr, "the documents have no starts on ", device);
  return at::from_blob(
      const_cast<int32_t*>(segments.device_starts.get()),
      {static_cast<int64_t>(segments.starts.size())}, [keep = segments.device_starts](void*) {},
      at::TensorOptions(at::kInt).device(device));
}

}  // namespace mambify
