// The little of CUDA's runtime that host code needs, without its headers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace mambify::kernels {

using CudaStream = void*;  // a cudaStream_t

// Throws Error with CUDA's name and description of a code that is not success.
void check_cuda(int code);
// Throws Error with the message unless `holds`: what a kernel's host side checks, in files whose
// compiler does not take {fmt}.
void require(bool holds, const char* message);

// Memory of the device in use, freed with the object. Zeros at first. Moves, does not copy.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  explicit DeviceMemory(int64_t bytes);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;

  int64_t bytes() const { return bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  // Throw Error when they reach past the end. They wait for what is on its way.
  void write(const void* source, int64_t bytes, int64_t offset = 0);
  void read(void* target, int64_t bytes, int64_t offset = 0) const;

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Memory of the host that the device reads and writes at the same address.
class PinnedMemory {
 public:
  explicit PinnedMemory(int64_t bytes);
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  int64_t bytes() const { return bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

// A graph of kernels, recorded from what is launched between begin and end.
class CudaGraph {
 public:
  CudaGraph() = default;
  ~CudaGraph();
  CudaGraph(CudaGraph&& other) noexcept;
  CudaGraph& operator=(CudaGraph&&) = delete;

  void begin(CudaStream stream);
  void end(CudaStream stream);
  void launch(CudaStream stream) const;

 private:
  void* executable_ = nullptr;
};

// Chooses the device for this thread. Throws Error with the number of devices when there is none of
// this number, or none at all.
void use_cuda_device(int number);
int cuda_device_count();
std::string cuda_device_name();
int64_t cuda_free_bytes();

CudaStream create_cuda_stream();
void destroy_cuda_stream(CudaStream stream);
void synchronise(CudaStream stream);

}  // namespace mambify::kernels
