#include "kernels/cuda/runtime.h"

#include <cuda_runtime.h>

#include <utility>

#include "core/error.h"

namespace mambify::kernels {

void check_cuda(int code) {
  if (code == cudaSuccess) return;
  const auto error = static_cast<cudaError_t>(code);
  throw Error("CUDA: {} ({})", cudaGetErrorString(error), cudaGetErrorName(error));
}

void require(bool holds, const char* message) {
  if (!holds) throw Error("{}", message);
}

namespace {

void check_range(const char* what, int64_t bytes, int64_t offset, int64_t held) {
  if (bytes < 0 || offset < 0 || offset > held - bytes) {
    throw Error("device memory: {} of {} bytes at {}, but it holds {}", what, bytes, offset, held);
  }
}

}  // namespace

DeviceMemory::DeviceMemory(int64_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  const cudaError_t code = cudaMalloc(&data_, static_cast<size_t>(bytes));
  if (code == cudaErrorMemoryAllocation) {
    throw Error("the CUDA device has {:.2f} GB of memory free, and {:.2f} GB more are needed",
                static_cast<double>(cuda_free_bytes()) / 1e9, static_cast<double>(bytes) / 1e9);
  }
  check_cuda(code);
  check_cuda(cudaMemset(data_, 0, static_cast<size_t>(bytes)));
  // Streams of our own do not wait for the default one.
  check_cuda(cudaStreamSynchronize(nullptr));
}

DeviceMemory::~DeviceMemory() { cudaFree(data_); }

DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void DeviceMemory::write(const void* source, int64_t bytes, int64_t offset) {
  check_range("a write", bytes, offset, bytes_);
  check_cuda(
      cudaMemcpy(as<char>() + offset, source, static_cast<size_t>(bytes), cudaMemcpyHostToDevice));
  check_cuda(cudaStreamSynchronize(nullptr));
}

void DeviceMemory::read(void* target, int64_t bytes, int64_t offset) const {
  check_range("a read", bytes, offset, bytes_);
  check_cuda(cudaDeviceSynchronize());
  check_cuda(
      cudaMemcpy(target, as<char>() + offset, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost));
}

PinnedMemory::PinnedMemory(int64_t bytes) : bytes_(bytes) {
  check_cuda(cudaHostAlloc(&data_, static_cast<size_t>(bytes), cudaHostAllocMapped));
}

PinnedMemory::~PinnedMemory() { cudaFreeHost(data_); }

CudaGraph::CudaGraph(CudaGraph&& other) noexcept
    : executable_(std::exchange(other.executable_, nullptr)) {}

CudaGraph::~CudaGraph() {
  if (executable_ != nullptr) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(executable_));
}

void CudaGraph::begin(CudaStream stream) {
  check_cuda(
      cudaStreamBeginCapture(static_cast<cudaStream_t>(stream), cudaStreamCaptureModeThreadLocal));
}

void CudaGraph::end(CudaStream stream) {
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamEndCapture(static_cast<cudaStream_t>(stream), &graph));
  cudaGraphExec_t executable = nullptr;
  const cudaError_t code = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check_cuda(code);
  executable_ = executable;
}

void CudaGraph::launch(CudaStream stream) const {
  check_cuda(cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable_),
                             static_cast<cudaStream_t>(stream)));
}

int cuda_device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

void use_cuda_device(int number) {
  const int count = cuda_device_count();
  if (number < 0 || number >= count) {
    throw Error("there is no CUDA device {}: {} found", number,
                count == 0 ? "none was" : std::to_string(count) + (count == 1 ? " was" : " were"));
  }
  check_cuda(cudaSetDevice(number));
}

std::string cuda_device_name() {
  int device = 0;
  check_cuda(cudaGetDevice(&device));
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, device));
  return properties.name;
}

int64_t cuda_free_bytes() {
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(free);
}

CudaStream create_cuda_stream() {
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

void destroy_cuda_stream(CudaStream stream) {
  cudaStreamDestroy(static_cast<cudaStream_t>(stream));
}

void synchronise(CudaStream stream) {
  check_cuda(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)));
}

}  // namespace mambify::kernels
