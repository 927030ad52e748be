// The hybrid language model: embedding, blocks of mixer and MLP, norm, output matrix.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"
#include "model/context.h"
#include "model/mixers.h"

namespace mambify {

struct Mlp {
  at::Tensor gate_proj, up_proj;  // [intermediate_size, d_model]
  at::Tensor down_proj;           // [d_model, intermediate_size]
};

struct Block {
  at::Tensor input_norm;  // [d_model]
  Mixer mixer;
  at::Tensor post_norm;  // [d_model]; undefined, like the MLP, when intermediate_size is 0
  Mlp mlp;
};

struct Model {
  ModelConfig config;
  at::Tensor embedding;  // [vocab_size, d_model]
  std::vector<Block> blocks;
  at::Tensor final_norm;  // [d_model]
  at::Tensor lm_head;     // [vocab_size, d_model]; the same tensor as `embedding` when tied
};

// Calls visit(name, tensor) for every parameter once, in a fixed order; a tied output matrix is
// not visited. Names are those of the hybrid layout ("blocks.3.mixer.in_proj") whatever the file's.
void for_each_parameter(Model& model,
                        const std::function<void(const std::string&, at::Tensor&)>& visit);
int64_t parameter_count(const Model& model);

// A copy whose parameters share nothing with the original's.
Model clone(const Model& model);
// Converts every parameter; a tied output matrix stays tied.
void to(Model& model, at::Device device, at::ScalarType dtype);

// ids: [tokens] int64. Returns [tokens, d_model].
at::Tensor embed(const Model& model, const at::Tensor& ids);
// The second half of a block: h + mlp(norm(h)), or h where blocks have no MLP. h: [tokens,
// d_model].
at::Tensor mlp_forward(const Model& model, int64_t layer, const at::Tensor& h,
                       const PackedWeights* packed = nullptr);
// One block. x: [tokens, d_model].
at::Tensor block_forward(const Model& model, int64_t layer, const at::Tensor& x,
                         const Context& context, MixerState* state = nullptr);
// All blocks and the final norm. Advances state->lengths.
at::Tensor hidden_states(const Model& model, const at::Tensor& ids, const Context& context,
                         ModelState* state = nullptr);
// hidden: [n, d_model]; returns [n, vocab_size] in the compute dtype.
at::Tensor logits(const Model& model, const at::Tensor& hidden,
                  const PackedWeights* packed = nullptr);

}  // namespace mambify
