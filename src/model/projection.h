// The products with a model's weight matrices: as they are, or laid out once for decoding.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "ops/rows_linear.h"

namespace mambify {

class CudaWeights;
struct Attention;
struct Mamba1;
struct Mlp;
struct Model;

// Copies of a model's weight matrices in the layout that decoding multiplies by. Matrices that are
// multiplied by the same input stand in one, so that they are one product. On the CPU that is the
// layout of rows_linear, and the embedding, which is looked up, and everything small stay with the
// model; on a CUDA device (its number) it is all of the model, see CudaWeights.
class PackedWeights {
 public:
  // The model is on the CPU either way. Weights that change afterwards, or belong to another model,
  // are not those that were packed. Throws Error for int8 weights on CUDA.
  explicit PackedWeights(const Model& model, WeightFormat format = WeightFormat::native,
                         std::optional<int> cuda_device = std::nullopt);

  // The packed form of a group that begins with this tensor of the model; null when none does.
  const PackedMatrix* find(const at::Tensor& first) const;
  // The weights on a CUDA device; null when they are on the CPU.
  const CudaWeights* cuda() const { return cuda_.get(); }
  // Of the packed matrices, and of the model's own that they stand for.
  int64_t bytes() const;
  int64_t native_bytes() const;

 private:
  void pack(const std::vector<at::Tensor>& group);
  // Throws Error when the matrices do not keep what decoding promises on this processor.
  void check() const;

  WeightFormat format_;
  PanelMemory memory_;
  std::unordered_map<const at::TensorImpl*, PackedMatrix> matrices_;
  std::shared_ptr<const CudaWeights> cuda_;
};

// x weight^T + bias. x: [rows, inputs]; weight: [outputs, inputs]; bias: [outputs] or undefined.
at::Tensor project(const PackedWeights* packed, const at::Tensor& x, const at::Tensor& weight,
                   const at::Tensor& bias = {});
// x weight^T for each matrix of a group, which is packed as one when it is packed.
std::vector<at::Tensor> project_group(const PackedWeights* packed, const at::Tensor& x,
                                      const std::vector<at::Tensor>& weights);
// x weight^T in parts of so many columns; sizes: their sum is the matrix's outputs.
std::vector<at::Tensor> project_parts(const PackedWeights* packed, const at::Tensor& x,
                                      const at::Tensor& weight, const std::vector<int64_t>& sizes);
// x weight^T for each matrix of a group, their columns beside each other, on a CUDA device.
at::Tensor project_as_one(const at::Tensor& x, const std::vector<at::Tensor>& weights);
// Adds zeros to two matrices so that tensor cores can read the inner dimension of (x down^T) up^T,
// which stays the same. down: [rank, inputs]; up: [outputs, rank].
void align_rank(at::Tensor& down, at::Tensor& up);

// The groups of mixers and of a block's MLP: what a forward pass calls project_group with.
std::vector<at::Tensor> input_projections(const Attention& mixer);  // q, k, v
// x and z, and with them dt, B and C where these are projected from the layer's input, too.
std::vector<at::Tensor> input_projections(const Mamba1& mixer, bool selects_from_x);
std::vector<at::Tensor> selection_projections(const Mamba1& mixer);  // dt, B, C
std::vector<at::Tensor> input_projections(const Mlp& mlp);           // gate, up

}  // namespace mambify
