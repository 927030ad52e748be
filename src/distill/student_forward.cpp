#include "distill/student_forward.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "ops/rms_norm.h"

namespace mambify {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Every parameter of one block that is trained.
std::vector<at::Tensor> trained_parameters(const Model& model, int64_t layer) {
  Model block = model;  // handles
  block.blocks = {model.blocks[layer]};
  std::vector<at::Tensor> trained;
  for_each_parameter(block, [&](const std::string& name, at::Tensor& tensor) {
    if (name.starts_with("blocks.") && tensor.requires_grad()) trained.push_back(tensor);
  });
  return trained;
}

// One block whose activations are computed again when its gradient is asked for. Parameters are
// inputs of the function, for otherwise a block after frozen ones would get no gradient.
class CheckpointedBlock : public torch::autograd::Function<CheckpointedBlock> {
 public:
  static at::Tensor forward(AutogradContext* function, const at::Tensor& x,
                            at::TensorList parameters, const Model* model, int64_t layer,
                            const Context* context) {
    function->save_for_backward({x});
    function->saved_data["parameters"] = static_cast<int64_t>(parameters.size());
    function->saved_data["model"] = reinterpret_cast<int64_t>(model);
    function->saved_data["layer"] = layer;
    function->saved_data["context"] = reinterpret_cast<int64_t>(context);
    return block_forward(*model, layer, x, *context);
  }

  static variable_list backward(AutogradContext* function, const variable_list& gradients) {
    const auto* model = reinterpret_cast<const Model*>(function->saved_data["model"].toInt());
    const auto* context = reinterpret_cast<const Context*>(function->saved_data["context"].toInt());
    const int64_t layer = function->saved_data["layer"].toInt();
    const bool needs_x = function->needs_input_grad(0);
    const at::Tensor x =
        function->get_saved_variables().front().detach().set_requires_grad(needs_x);

    variable_list wanted = trained_parameters(*model, layer);
    if (needs_x) wanted.insert(wanted.begin(), x);
    const at::AutoGradMode grad(true);
    const at::Tensor y = block_forward(*model, layer, x, *context);
    variable_list found = torch::autograd::grad({y}, wanted, {gradients.front()});
    if (!needs_x) found.insert(found.begin(), at::Tensor());
    found.resize(found.size() + 3);  // model, layer and context have none
    return found;
  }
};

}  // namespace

at::Tensor student_hidden_states(const Model& student, const at::Tensor& ids,
                                 const Context& context, bool activation_checkpointing) {
  const at::AutoGradMode grad(true);
  if (!activation_checkpointing) return hidden_states(student, ids, context);
  at::Tensor x = embed(student, ids);
  for (int64_t layer = 0; layer < student.config.n_layer(); ++layer) {
    const std::vector<at::Tensor> parameters = trained_parameters(student, layer);
    x = x.requires_grad() || !parameters.empty()
            ? CheckpointedBlock::apply(x, at::TensorList(parameters), &student, layer, &context)
            : block_forward(student, layer, x, context);
  }
  return rms_norm(x, student.final_norm, student.config.norm_eps);
}

}  // namespace mambify
