#include "model/cuda_weights.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>

#include "core/error.h"
#include "kernels/pass_linear/params.h"
#include "model/model.h"

namespace mambify {
namespace {

using kernels::DeviceMemory;

DeviceMemory upload(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  const at::Tensor contiguous = tensor.contiguous();
  DeviceMemory memory(static_cast<int64_t>(contiguous.nbytes()));
  memory.write(contiguous.const_data_ptr(), memory.bytes());
  return memory;
}

CudaMatrix upload_matrices(const std::vector<at::Tensor>& matrices) {
  CudaMatrix all;
  all.inputs = matrices.front().size(1);
  for (const at::Tensor& matrix : matrices) {
    all.begins.push_back(all.outputs);
    all.outputs += kernels::padded(matrix.size(0));
  }
  // What is below the last matrix is not computed.
  if (matrices.size() == 1) all.outputs = matrices.front().size(0);
  const int64_t width = kernels::padded(all.inputs);
  const auto element = static_cast<int64_t>(matrices.front().element_size());
  all.memory = DeviceMemory(all.outputs * width * element);
  for (size_t i = 0; i < matrices.size(); ++i) {
    at::Tensor rows = matrices[i].contiguous();
    if (width != all.inputs) {
      at::Tensor wide = at::zeros({rows.size(0), width}, rows.options());
      wide.narrow(1, 0, all.inputs).copy_(rows);
      rows = wide;
    }
    all.memory.write(rows.const_data_ptr(), static_cast<int64_t>(rows.nbytes()),
                     all.begins[i] * width * element);
  }
  return all;
}

at::Tensor joined_biases(const Attention& mixer) {
  if (!mixer.q_bias.defined()) return {};
  std::vector<at::Tensor> parts;
  for (const at::Tensor& bias : {mixer.q_bias, mixer.k_bias, mixer.v_bias}) {
    at::Tensor wide = at::zeros({kernels::padded(bias.size(0))}, bias.options());
    wide.narrow(0, 0, bias.size(0)).copy_(bias);
    parts.push_back(wide);
  }
  return at::cat(parts);
}

CudaMixer upload_mixer(const ModelConfig&, const Attention& mixer) {
  return {.in = upload_matrices(input_projections(mixer)),
          .selection = {},
          .dt = {},
          .out = upload_matrices({mixer.o_proj}),
          .in_bias = upload(joined_biases(mixer)),
          .out_bias = upload(mixer.o_bias)};
}

CudaMixer upload_mixer(const ModelConfig& config, const Mamba1& mixer) {
  const bool selects_from_x = config.mamba1.selects_from_x;
  return {
      .in = upload_matrices(input_projections(mixer, selects_from_x)),
      .selection = selects_from_x ? upload_matrices(selection_projections(mixer)) : CudaMatrix{},
      .dt = upload_matrices({mixer.dt_proj}),
      .out = upload_matrices({mixer.out_proj}),
      .conv_weight = upload(mixer.conv_weight),
      .conv_bias = upload(mixer.conv_bias),
      .A = upload((-mixer.A_log.exp()).to(at::kFloat)),
      .D = upload(mixer.D.to(at::kFloat)),
      .dt_bias = upload((mixer.dt_bias * config.mamba1.dt_bias_scale).to(at::kFloat))};
}

CudaMixer upload_mixer(const ModelConfig&, const Mamba2& mixer) {
  return {.in = upload_matrices({mixer.in_proj}),
          .selection = {},
          .dt = {},
          .out = upload_matrices({mixer.out_proj}),
          .conv_weight = upload(mixer.conv_weight),
          .conv_bias = upload(mixer.conv_bias),
          .A = upload((-mixer.A_log.exp()).to(at::kFloat)),
          .D = upload(mixer.D.to(at::kFloat)),
          .dt_bias = upload(mixer.dt_bias.to(at::kFloat)),
          .norm = upload(mixer.norm)};
}

}  // namespace

CudaWeights::CudaWeights(const Model& model, int device)
    : config_(model.config),
      is_bf16_(model.embedding.scalar_type() == at::kBFloat16),
      device_(device),
      tied_(model.lm_head.is_same(model.embedding)) {
  TORCH_CHECK(model.embedding.is_cpu(), "the model is on ", model.embedding.device());
  kernels::use_cuda_device(device);
  const auto add = [&](const CudaMatrix& matrix) { matrix_bytes_ += matrix.memory.bytes(); };
  for (const Block& block : model.blocks) {
    CudaBlock uploaded{
        .kind = kind_of(block.mixer),
        .mixer = std::visit([&](const auto& mixer) { return upload_mixer(config_, mixer); },
                            block.mixer),
        .input_norm = upload(block.input_norm),
        .post_norm = upload(block.post_norm)};
    if (block.post_norm.defined()) {
      uploaded.gate_up = upload_matrices(input_projections(block.mlp));
      uploaded.down = upload_matrices({block.mlp.down_proj});
    }
    for (const CudaMatrix* matrix :
         {&uploaded.mixer.in, &uploaded.mixer.selection, &uploaded.mixer.dt, &uploaded.mixer.out,
          &uploaded.gate_up, &uploaded.down}) {
      add(*matrix);
    }
    blocks_.push_back(std::move(uploaded));
  }
  embedding_ = upload_matrices({model.embedding});
  if (!tied_) output_ = upload_matrices({model.lm_head});
  final_norm_ = upload(model.final_norm);
  add(output());
}

std::shared_ptr<const CudaWeights> make_cuda_weights(const Model& model, int device) {
  return std::make_shared<CudaWeights>(model, device);
}

}  // namespace mambify
