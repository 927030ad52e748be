#include "ops/linear_log_probs.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "ops/logit_chunks.h"
#include "ops/logit_loss.h"
#include "ops/rows.h"

namespace mambify {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Goes through the chunks: visit(begin, places, hidden rows, chunk with logits and labels).
template <typename Visit>
void for_each_chunk(const LinearLogProbsInputs& in, int64_t wanted, Visit&& visit) {
  const int64_t count = in.places.size(0);
  const int64_t chunk_tokens = logit_chunk_tokens(count, in.weight, wanted);
  // As linear_kl keeps them: on a CUDA device bf16 holds all digits of a product in bf16.
  const bool keep_bf16 = in.weight.is_cuda() && are_bf16({in.weight});
  LogitBuffer buffer(in.weight, chunk_tokens, keep_bf16 ? at::kBFloat16 : at::kFloat);
  for (int64_t begin = 0; begin < count; begin += chunk_tokens) {
    const at::Tensor places = in.places.narrow(0, begin, std::min(chunk_tokens, count - begin));
    const at::Tensor hidden = in.hidden.index_select(0, places);
    LogitLossChunk chunk;
    chunk.student = buffer.fill(hidden);
    chunk.labels = in.labels.index_select(0, places);
    visit(begin, places, hidden, chunk);
  }
}

at::Tensor compute(const LinearLogProbsInputs& in, int64_t wanted) {
  const at::NoGradGuard no_grad;
  const auto in_float = in.hidden.options().dtype(at::kFloat).requires_grad(false);
  const at::Tensor log_probs = at::empty({in.places.size(0)}, in_float);
  for_each_chunk(in, wanted,
                 [&](int64_t begin, const at::Tensor&, const at::Tensor&, LogitLossChunk& chunk) {
                   const int64_t n = chunk.labels.size(0);
                   chunk.ce_scale = at::zeros({n}, in_float);
                   const LogitLossRows rows = logit_loss(chunk, /*gradient=*/false);
                   log_probs.narrow(0, begin, n).copy_(rows.ce.neg());
                 });
  return log_probs;
}

class LinearLogProbs : public torch::autograd::Function<LinearLogProbs> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden,
                            const at::Tensor& weight, const LinearLogProbsInputs& inputs,
                            int64_t wanted) {
    context->save_for_backward({hidden, weight, inputs.labels, inputs.places});
    context->saved_data["wanted"] = wanted;
    return compute(inputs, wanted);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::NoGradGuard no_grad;
    const variable_list saved = context->get_saved_variables();
    const LinearLogProbsInputs in{saved[0], saved[1], saved[2], saved[3]};
    const at::Tensor given = gradients[0].to(at::kFloat).contiguous();
    HeadGradients made;
    if (context->needs_input_grad(0)) made.hidden = at::zeros_like(in.hidden);
    if (context->needs_input_grad(1)) {
      made.weight = at::zeros(in.weight.sizes(), in.weight.options().dtype(at::kFloat));
    }
    for_each_chunk(in, context->saved_data["wanted"].toInt(),
                   [&](int64_t begin, const at::Tensor& places, const at::Tensor& hidden,
                       LogitLossChunk& chunk) {
                     // The kernel minimises the cross-entropy, which is minus the log-probability.
                     chunk.ce_scale = given.narrow(0, begin, chunk.labels.size(0)).neg();
                     logit_loss(chunk, /*gradient=*/true);
                     made.add(chunk.student, places, hidden, in.weight);
                   });
    return {made.hidden, in_type_of(in.weight, made.weight), {}, {}};
  }
};

void check(const LinearLogProbsInputs& in) {
  TORCH_CHECK(
      in.hidden.dim() == 2 && in.weight.dim() == 2 && in.hidden.size(1) == in.weight.size(1),
      "linear_log_probs: hidden is ", in.hidden.sizes(), ", weight ", in.weight.sizes(),
      ", expected [T, D] and [V, D]");
  TORCH_CHECK(in.labels.sizes() == at::IntArrayRef({in.hidden.size(0)}) && in.places.dim() == 1,
              "linear_log_probs: labels are ", in.labels.sizes(), ", places ", in.places.sizes(),
              ", expected [", in.hidden.size(0), "] and [n]");
  // A GPU's own assertion stops a label that lies outside.
  if (in.labels.is_cuda() || in.places.numel() == 0) return;
  const at::Tensor asked = in.labels.index_select(0, in.places);
  TORCH_CHECK(asked.min().item<int64_t>() >= 0 && asked.max().item<int64_t>() < in.weight.size(0),
              "linear_log_probs: a label lies outside the vocabulary of ", in.weight.size(0));
}

}  // namespace

at::Tensor linear_log_probs(const LinearLogProbsInputs& inputs, int64_t chunk_tokens) {
  check(inputs);
  return needs_gradient({inputs.hidden, inputs.weight})
             ? LinearLogProbs::apply(inputs.hidden, inputs.weight, inputs, chunk_tokens)
             : compute(inputs, chunk_tokens);
}

}  // namespace mambify
