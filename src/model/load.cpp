#include "model/load.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <set>

#include "core/error.h"
#include "io/safetensors.h"
#include "model/layouts/layout.h"

namespace mambify {
namespace {

Mixer empty_mixer(MixerKind kind) {
  switch (kind) {
    case MixerKind::attention:
      return Attention{};
    case MixerKind::mamba1:
      return Mamba1{};
    case MixerKind::mamba2:
      return Mamba2{};
  }
  return Attention{};
}

// The shape in the model: a depthwise convolution's middle dimension of 1 is dropped.
std::vector<int64_t> model_shape(const WeightSlot& slot, int64_t rows) {
  std::vector<int64_t> shape = slot.shape;
  shape.front() = rows;
  if (shape.size() == 3 && shape[1] == 1) shape.erase(shape.begin() + 1);
  return shape;
}

// GGUF keeps the rotary pairs (2i, 2i + 1) side by side, Hugging Face has them at (i, i + half).
at::Tensor from_interleaved(const at::Tensor& weight, int64_t heads) {
  const int64_t half = weight.size(0) / heads / 2;
  return weight.view({heads, half, 2, -1}).transpose(1, 2).reshape(weight.sizes());
}

void read_slot(const Checkpoint& checkpoint, const WeightSlot& slot) {
  const TensorView& view = checkpoint.require(slot.name);
  if (view.shape != slot.shape) {
    throw Error("{}: tensor {} has shape {}, the config asks for {}", checkpoint.path.string(),
                slot.name, shape_text(view.shape), shape_text(slot.shape));
  }
  at::Tensor whole = at::empty(slot.shape, at::kFloat);
  dequantize(view, whole.data_ptr<float>());
  if (slot.interleaved_heads > 0) whole = from_interleaved(whole, slot.interleaved_heads);
  int64_t row = 0;
  for (const WeightSlot::Part& part : slot.parts) {
    const at::Tensor rows = whole.narrow(0, row, part.rows).reshape(model_shape(slot, part.rows));
    *part.tensor = slot.parts.size() == 1 ? rows : rows.clone();
    row += part.rows;
  }
}

void refuse_unknown_tensors(const Checkpoint& checkpoint, const LayoutFormat& format,
                            const std::vector<WeightSlot>& slots) {
  std::set<std::string> known;
  for (const WeightSlot& slot : slots) known.insert(slot.name);
  for (const auto& [name, view] : checkpoint.tensors) {
    if (!known.contains(name) && !format.ignores(name)) {
      throw Error("{}: tensor {} {} belongs to no part of a {} model", checkpoint.path.string(),
                  name, shape_text(view.shape), format.name);
    }
  }
}

// Both ways of one stored type.
DType stored_type(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return DType::f32;
    case at::kHalf:
      return DType::f16;
    case at::kBFloat16:
      return DType::bf16;
    default:
      throw Error("weights can be written as fp32, fp16 or bf16, not {}", at::toString(dtype));
  }
}

std::vector<WeightSlot> weights_to_save(Model& model) {
  switch (model.config.layout) {
    case Layout::llama:
      return llama_weights(model);
    case Layout::mamba1:
      return mamba1_weights(model);
    case Layout::mamba2:
      return mamba2_weights(model);
  }
  return {};
}

void write_config(const ModelConfig& config, const fs::path& folder) {
  switch (config.layout) {
    case Layout::llama:
      return write_llama_config(config, folder);
    case Layout::mamba1:
      return write_mamba1_config(config, folder);
    case Layout::mamba2:
      return write_mamba2_config(config, folder);
  }
}

at::Tensor file_tensor(const WeightSlot& slot, at::ScalarType dtype) {
  std::vector<at::Tensor> parts;
  for (const WeightSlot::Part& part : slot.parts) {
    // A tensor that is kept in fp32 beside bf16 weights is written so, too.
    const bool keeps_fp32 = part.tensor->dim() <= 1 || slot.name.ends_with("A_log");
    parts.push_back(part.tensor->detach().to(at::kCPU, keeps_fp32 ? at::kFloat : dtype));
  }
  return at::cat(parts).reshape(slot.shape).contiguous();
}

}  // namespace

ModelConfig read_config(const Checkpoint& checkpoint) {
  return format_of(checkpoint).read_config(checkpoint);
}

Model load_model(const fs::path& path, at::ScalarType dtype) {
  return load_model(open_checkpoint(path), dtype);
}

Model load_model(const Checkpoint& checkpoint, at::ScalarType dtype) {
  const LayoutFormat& format = format_of(checkpoint);
  Model model;
  model.config = format.read_config(checkpoint);
  for (MixerKind kind : model.config.layers) {
    model.blocks.push_back(
        {.input_norm = {}, .mixer = empty_mixer(kind), .post_norm = {}, .mlp = {}});
  }
  const std::vector<WeightSlot> slots = format.weights(model);
  refuse_unknown_tensors(checkpoint, format, slots);
  for (const WeightSlot& slot : slots) read_slot(checkpoint, slot);
  if (model.config.tie_embeddings) model.lm_head = model.embedding;
  if (dtype != at::kFloat) to(model, at::kCPU, dtype);
  return model;
}

void save_model(const Model& model, const fs::path& folder, at::ScalarType dtype) {
  Model view = model;  // handles only; the table wants something to point at
  std::vector<at::Tensor> tensors;
  std::vector<TensorToWrite> entries;
  for (const WeightSlot& slot : weights_to_save(view)) {
    const at::Tensor& tensor = tensors.emplace_back(file_tensor(slot, dtype));
    entries.push_back({slot.name,
                       stored_type(tensor.scalar_type()),
                       slot.shape,
                       {static_cast<const std::byte*>(tensor.data_ptr()), tensor.nbytes()}});
  }
  write_safetensors(folder / "model.safetensors", entries);
  write_config(model.config, folder);
}

}  // namespace mambify
