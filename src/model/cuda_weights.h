// A model in the memory of a CUDA device, laid out for the kernels of a decoding pass.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "model/config.h"

namespace mambify {

struct Model;

// Matrices that are multiplied by the same input, one under the other: [outputs, padded(inputs)].
// Each begins at a multiple of 8 rows; rows and columns of padding are zeros.
struct CudaMatrix {
  kernels::DeviceMemory memory = {};
  int64_t inputs = 0, outputs = 0;   // padding of rows included
  std::vector<int64_t> begins = {};  // of each matrix, its first row
};

// Undefined memory where the layer has no such part. Vectors of the compute dtype but for A, D and
// dt_bias, which are fp32.
struct CudaMixer {
  CudaMatrix in = {};         // attention: q, k, v; Mamba-1: x, z (, dt, B, C); Mamba-2: z x B C dt
  CudaMatrix selection = {};  // Mamba-1 that selects from the convolved x: dt, B, C
  CudaMatrix dt = {};         // Mamba-1: from the low rank
  CudaMatrix out = {};
  kernels::DeviceMemory in_bias = {}, out_bias = {};       // attention with biases
  kernels::DeviceMemory conv_weight = {}, conv_bias = {};  // Mamba, as are the next
  kernels::DeviceMemory A = {}, D = {}, dt_bias = {};      // -exp(A_log); times its scale
  kernels::DeviceMemory norm = {};                         // Mamba-2
};

struct CudaBlock {
  MixerKind kind = MixerKind::attention;
  CudaMixer mixer = {};
  kernels::DeviceMemory input_norm = {}, post_norm = {};
  CudaMatrix gate_up = {}, down = {};  // gate's rows, then up's
};

class CudaWeights {
 public:
  // Copies the model, which is on the CPU, to the device.
  CudaWeights(const Model& model, int device);

  const ModelConfig& config() const { return config_; }
  bool is_bf16() const { return is_bf16_; }
  int device() const { return device_; }
  const std::vector<CudaBlock>& blocks() const { return blocks_; }
  const CudaMatrix& embedding() const { return embedding_; }
  const CudaMatrix& output() const { return tied_ ? embedding_ : output_; }
  const kernels::DeviceMemory& final_norm() const { return final_norm_; }
  // Of all matrices that a step multiplies by.
  int64_t matrix_bytes() const { return matrix_bytes_; }

 private:
  ModelConfig config_;
  bool is_bf16_;
  int device_;
  bool tied_;
  std::vector<CudaBlock> blocks_;
  CudaMatrix embedding_, output_;
  kernels::DeviceMemory final_norm_;
  int64_t matrix_bytes_ = 0;
};

// Throws Error in a build without CUDA, and when there is no such device.
std::shared_ptr<const CudaWeights> make_cuda_weights(const Model& model, int device);

}  // namespace mambify
