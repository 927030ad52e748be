#include "model/projection.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>

#include <numeric>
#include <set>
#include <utility>

#include "core/error.h"
#include "model/cuda_weights.h"
#include "model/model.h"

namespace mambify {
namespace {

std::vector<std::vector<at::Tensor>> groups_of(const ModelConfig&, const Attention& mixer) {
  return {input_projections(mixer), {mixer.o_proj}};
}

std::vector<std::vector<at::Tensor>> groups_of(const ModelConfig& config, const Mamba1& mixer) {
  const bool selects_from_x = config.mamba1.selects_from_x;
  std::vector<std::vector<at::Tensor>> groups{
      input_projections(mixer, selects_from_x), {mixer.dt_proj}, {mixer.out_proj}};
  if (selects_from_x) groups.push_back(selection_projections(mixer));
  return groups;
}

std::vector<std::vector<at::Tensor>> groups_of(const ModelConfig&, const Mamba2& mixer) {
  return {{mixer.in_proj}, {mixer.out_proj}};
}

}  // namespace

PackedWeights::PackedWeights(const Model& model, WeightFormat format,
                             std::optional<int> cuda_device)
    : format_(format) {
  if (cuda_device) {
    if (format != WeightFormat::native) {
      throw Error("int8 weights are for the CPU; on a CUDA device weights are fp32 or bf16");
    }
    cuda_ = make_cuda_weights(model, *cuda_device);
    return;
  }
  for (const Block& block : model.blocks) {
    const auto groups =
        std::visit([&](const auto& mixer) { return groups_of(model.config, mixer); }, block.mixer);
    for (const std::vector<at::Tensor>& group : groups) pack(group);
    if (!block.post_norm.defined()) continue;
    pack(input_projections(block.mlp));
    pack({block.mlp.down_proj});
  }
  pack({model.lm_head});
  check();
}

void PackedWeights::check() const {
  std::set<std::pair<int64_t, int64_t>> shapes;
  for (const auto& [weight, matrix] : matrices_) {
    if (!shapes.emplace(matrix.outputs, matrix.inputs).second) continue;
    if (!rows_are_invariant(matrix, kMostTokensAlone)) {
      throw Error(
          "on this processor a product with a {} x {} matrix of {} has other bits for {} rows "
          "than for one; speculation would change what is decoded",
          matrix.outputs, matrix.inputs, at::toString(matrix.type), kMostTokensAlone);
    }
  }
}

void PackedWeights::pack(const std::vector<at::Tensor>& group) {
  const at::Tensor rows = group.size() == 1 ? group.front() : at::cat(group);
  matrices_.emplace(group.front().unsafeGetTensorImpl(), pack_matrix(rows, format_, memory_));
}

const PackedMatrix* PackedWeights::find(const at::Tensor& first) const {
  const auto found = matrices_.find(first.unsafeGetTensorImpl());
  return found == matrices_.end() ? nullptr : &found->second;
}

int64_t PackedWeights::bytes() const {
  int64_t total = cuda_ != nullptr ? cuda_->matrix_bytes() : 0;
  for (const auto& [weight, matrix] : matrices_) {
    total += static_cast<int64_t>(matrix.panels.nbytes());
  }
  return total;
}

int64_t PackedWeights::native_bytes() const {
  int64_t total = cuda_ != nullptr ? cuda_->matrix_bytes() : 0;
  for (const auto& [weight, matrix] : matrices_) {
    total += matrix.outputs * matrix.inputs * static_cast<int64_t>(c10::elementSize(matrix.type));
  }
  return total;
}

namespace {

// On tensor cores, rows of an odd number of outputs or inputs would be written or read two bytes at
// a time, which makes the product several times as slow: such rows get so many zeros at their end.
int64_t missing_columns(int64_t columns) {
  constexpr int64_t kAlignment = 8;
  return -columns & (kAlignment - 1);
}

at::Tensor aligned_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const int64_t outputs = weight.size(0), missing = missing_columns(outputs);
  if (missing == 0 || bias.defined()) return at::linear(x, weight, bias);
  return at::linear(x, at::constant_pad_nd(weight, {0, 0, 0, missing})).narrow(1, 0, outputs);
}

at::Tensor joined(const std::vector<at::Tensor>& weights) {
  return weights.size() == 1 ? weights.front() : at::cat(weights);
}

// x times the weights, one below the other, in parts of so many columns. The zeros are a part, too:
// the gradient of leaving them out afterwards would be a copy of all the others.
std::vector<at::Tensor> aligned_parts(const at::Tensor& x, std::vector<at::Tensor> weights,
                                      std::vector<int64_t> sizes) {
  const size_t count = sizes.size();
  const int64_t missing = missing_columns(std::accumulate(sizes.begin(), sizes.end(), int64_t{0}));
  if (missing > 0) {
    weights.push_back(at::zeros({missing, x.size(1)}, weights.front().options()));
    sizes.push_back(missing);
  }
  auto parts = at::linear(x, joined(weights)).split_with_sizes(sizes, /*dim=*/1);
  parts.resize(count);
  return parts;
}

}  // namespace

at::Tensor project(const PackedWeights* packed, const at::Tensor& x, const at::Tensor& weight,
                   const at::Tensor& bias) {
  const PackedMatrix* matrix = packed != nullptr ? packed->find(weight) : nullptr;
  if (matrix == nullptr)
    return x.is_cuda() ? aligned_linear(x, weight, bias) : at::linear(x, weight, bias);
  const at::Tensor y = rows_linear(x, *matrix);
  return bias.defined() ? y + bias : y;
}

std::vector<at::Tensor> project_group(const PackedWeights* packed, const at::Tensor& x,
                                      const std::vector<at::Tensor>& weights) {
  const PackedMatrix* matrix = packed != nullptr ? packed->find(weights.front()) : nullptr;
  std::vector<int64_t> sizes;
  sizes.reserve(weights.size());
  for (const at::Tensor& weight : weights) sizes.push_back(weight.size(0));
  if (matrix != nullptr) {
    return rows_linear(x, *matrix).split_with_sizes(sizes, /*dim=*/1);
  }
  if (x.is_cuda() && weights.size() > 1) {
    // Narrow products leave most of a GPU idle; the copy of the weights is small beside them.
    return aligned_parts(x, weights, sizes);
  }
  std::vector<at::Tensor> products;
  products.reserve(weights.size());
  for (const at::Tensor& weight : weights) products.push_back(at::linear(x, weight));
  return products;
}

std::vector<at::Tensor> project_parts(const PackedWeights* packed, const at::Tensor& x,
                                      const at::Tensor& weight, const std::vector<int64_t>& sizes) {
  if (x.is_cuda() && (packed == nullptr || packed->find(weight) == nullptr)) {
    return aligned_parts(x, {weight}, sizes);
  }
  return project(packed, x, weight).split_with_sizes(sizes, /*dim=*/1);
}

at::Tensor project_as_one(const at::Tensor& x, const std::vector<at::Tensor>& weights) {
  return aligned_linear(x, joined(weights), /*bias=*/{});
}

void align_rank(at::Tensor& down, at::Tensor& up) {
  const int64_t missing = missing_columns(up.size(1));
  if (missing == 0) return;
  down = at::constant_pad_nd(down, {0, 0, 0, missing});
  up = at::constant_pad_nd(up, {0, missing});
}

std::vector<at::Tensor> input_projections(const Attention& mixer) {
  return {mixer.q_proj, mixer.k_proj, mixer.v_proj};
}

std::vector<at::Tensor> input_projections(const Mamba1& mixer, bool selects_from_x) {
  std::vector<at::Tensor> group{mixer.in_proj_x, mixer.in_proj_z};
  if (!selects_from_x) {
    const std::vector<at::Tensor> selection = selection_projections(mixer);
    group.insert(group.end(), selection.begin(), selection.end());
  }
  return group;
}

std::vector<at::Tensor> selection_projections(const Mamba1& mixer) {
  return {mixer.dt_proj_down, mixer.B_proj, mixer.C_proj};
}

std::vector<at::Tensor> input_projections(const Mlp& mlp) { return {mlp.gate_proj, mlp.up_proj}; }

}  // namespace mambify
