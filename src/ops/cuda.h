// LibTorch on a CUDA device. Its CUDA library is loaded when a device is asked for, so that one
// program runs with and without it.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/cuda/runtime.h"
#include "ops/segments.h"

namespace mambify {

// Loads LibTorch's CUDA library and makes `device` the one in use. Throws Error when this build has
// no CUDA kernels, there is no such device, or the library or what it needs is not installed.
// Called before the process's first backward pass: LibTorch remembers from there on that there is
// no CUDA.
at::Device load_torch_cuda(int device);

// What kernels are launched on: the default stream, which LibTorch works on, too.
kernels::CudaStream current_cuda_stream();

// A copy on the device that the host does not wait for: a CUDA device gets it through pinned
// memory. On the CPU the tensor itself.
at::Tensor sent_to(const at::Tensor& host, at::Device device);

// Gives the documents their device_starts, where `device` is not the CPU.
void place_on(Segments& segments, at::Device device);
// Those as a tensor, [documents + 1] int32, which keeps them alive.
at::Tensor device_starts_of(const Segments& segments, at::Device device);

}  // namespace mambify
