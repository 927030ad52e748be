#include "ops/linear_kl.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "ops/logit_chunks.h"
#include "ops/logit_loss.h"
#include "ops/rows.h"

namespace mambify {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The unmasked tokens: their places in the batch and what each counts in the loss.
struct Selection {
  at::Tensor places;              // [n] int64
  at::Tensor labels;              // [n]; undefined: no cross entropy
  at::Tensor kl_share, ce_share;  // [n] fp32: shares of the two means, sum to 1; perhaps undefined
};

Selection select_tokens(const LinearKlInputs& in, const LinearKlOptions& options) {
  const auto in_float = in.hidden.options().dtype(at::kFloat);
  at::Tensor mask;
  if (in.mask.defined()) {
    mask = in.mask.to(in_float);
  } else if (in.labels.defined()) {
    mask = in.labels.ge(0).to(in_float);
  } else {
    mask = at::ones({in.hidden.size(0)}, in_float);
  }
  Selection selection;
  selection.places = in.places.defined() ? in.places : mask.nonzero().squeeze(1);
  const at::Tensor kept = mask.index_select(0, selection.places);
  // Without a token to divide by, every share is zero.
  const auto shares = [](const at::Tensor& weights) {
    return weights / at::where(weights.sum() > 0, weights.sum(), at::ones({}, weights.options()));
  };
  if (options.kl_weight != 0) selection.kl_share = shares(kept);
  if (options.ce_weight != 0) {
    selection.labels = in.labels.index_select(0, selection.places);
    // A GPU's own assertion stops a label that lies outside.
    TORCH_CHECK(selection.labels.is_cuda() || selection.labels.numel() == 0 ||
                    selection.labels.max().item<int64_t>() < in.weight.size(0),
                "linear_kl: a label lies outside the vocabulary of ", in.weight.size(0));
    selection.ce_share = shares(kept * selection.labels.ge(0));
  }
  return selection;
}

// What logits are kept in: fp32 whatever the compute dtype, but on a CUDA device bf16 where both
// models' products are bf16, which holds all of their digits.
at::ScalarType logit_type(const LinearKlInputs& in) {
  return in.weight.is_cuda() && are_bf16({in.weight, in.teacher_weight}) ? at::kBFloat16
                                                                         : at::kFloat;
}

// The loss and, where a gradient is defined, its value. Runs without autograd.
LinearKlResult compute(const LinearKlInputs& in, const LinearKlOptions& options, bool grad_hidden,
                       bool grad_weight, HeadGradients& gradients) {
  const at::NoGradGuard no_grad;
  const bool with_kl = options.kl_weight != 0, with_ce = options.ce_weight != 0;
  const Selection selection = select_tokens(in, options);
  const int64_t count = selection.places.size(0);
  const int64_t chunk_tokens = logit_chunk_tokens(count, in.weight, options.chunk_tokens);
  const auto in_float = in.hidden.options().dtype(at::kFloat).requires_grad(false);

  LogitBuffer student(in.weight, chunk_tokens, logit_type(in));
  std::optional<LogitBuffer> teacher;
  if (with_kl) teacher.emplace(in.teacher_weight, chunk_tokens, logit_type(in));
  if (grad_hidden) gradients.hidden = at::zeros_like(in.hidden);
  if (grad_weight) gradients.weight = at::zeros(in.weight.sizes(), in_float);
  // Means of KL and cross entropy, and how many largest logits agree.
  at::Tensor totals = at::zeros({3}, in_float.dtype(at::kDouble));

  for (int64_t begin = 0; begin < count; begin += chunk_tokens) {
    const int64_t n = std::min(chunk_tokens, count - begin);
    const at::Tensor places = selection.places.narrow(0, begin, n);
    const at::Tensor hidden = in.hidden.index_select(0, places);
    LogitLossChunk chunk;
    chunk.student = student.fill(hidden);
    at::Tensor kl_share, ce_share;
    if (with_kl) {
      kl_share = selection.kl_share.narrow(0, begin, n);
      chunk.teacher = teacher->fill(in.teacher_hidden.index_select(0, places));
      chunk.kl_scale = kl_share * options.kl_weight;
    }
    if (with_ce) {
      ce_share = selection.ce_share.narrow(0, begin, n);
      chunk.labels = selection.labels.narrow(0, begin, n).contiguous();
      chunk.ce_scale = ce_share * options.ce_weight;
    }
    const LogitLossRows rows = logit_loss(chunk, grad_hidden || grad_weight);
    if (with_kl) {
      totals[0] += (rows.kl.to(at::kDouble) * kl_share).sum();
      totals[2] += rows.agrees.sum(at::kDouble);
    }
    if (with_ce) totals[1] += (rows.ce.to(at::kDouble) * ce_share).sum();

    // chunk.student now holds the gradient of the logits.
    gradients.add(chunk.student, places, hidden, in.weight);
  }

  LinearKlResult result;
  result.kl = totals[0];
  result.ce = totals[1];
  result.agreed = totals[2];
  result.counted = count;
  result.loss =
      (options.kl_weight * result.kl + options.ce_weight * result.ce).to(in_float.dtype());
  return result;
}

class LinearKl : public torch::autograd::Function<LinearKl> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden,
                            const at::Tensor& weight, const LinearKlInputs& inputs,
                            const LinearKlOptions& options, LinearKlResult& result) {
    HeadGradients gradients;
    result = compute(inputs, options, hidden.requires_grad(), weight.requires_grad(), gradients);
    // Not saved variables: backward gives their memory away, and a second one must fail.
    context->saved_data["hidden"] = gradients.hidden;
    context->saved_data["weight"] = gradients.weight;
    context->saved_data["weight_type"] = weight.scalar_type();
    context->saved_data["spent"] = false;
    return result.loss;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    auto& saved = context->saved_data;
    TORCH_CHECK(!saved["spent"].toBool(), "linear_kl: its gradient can be taken once only");
    saved["spent"] = true;
    at::Tensor hidden = std::exchange(saved["hidden"], c10::IValue(at::Tensor())).toTensor();
    at::Tensor weight = std::exchange(saved["weight"], c10::IValue(at::Tensor())).toTensor();
    if (hidden.defined()) hidden.mul_(gradients[0]);
    if (weight.defined())
      weight = weight.mul_(gradients[0]).to(saved["weight_type"].toScalarType());
    return {hidden, weight, {}, {}, {}};
  }
};

void check(const LinearKlInputs& in, const LinearKlOptions& options) {
  TORCH_CHECK(
      in.hidden.dim() == 2 && in.weight.dim() == 2 && in.hidden.size(1) == in.weight.size(1),
      "linear_kl: hidden is ", in.hidden.sizes(), ", weight ", in.weight.sizes(),
      ", expected [T, D] and [V, D]");
  const int64_t tokens = in.hidden.size(0);
  TORCH_CHECK(options.kl_weight != 0 || options.ce_weight != 0, "linear_kl: both weights are 0");
  if (options.kl_weight != 0) {
    TORCH_CHECK(in.teacher_hidden.defined() && in.teacher_weight.defined(),
                "linear_kl: no teacher to take the divergence to");
    TORCH_CHECK(in.teacher_hidden.dim() == 2 && in.teacher_hidden.size(0) == tokens &&
                    in.teacher_weight.dim() == 2 &&
                    in.teacher_weight.size(0) == in.weight.size(0) &&
                    in.teacher_weight.size(1) == in.teacher_hidden.size(1),
                "linear_kl: teacher_hidden is ", in.teacher_hidden.sizes(), ", teacher_weight ",
                in.teacher_weight.sizes(), ", expected [", tokens, ", Dt] and [", in.weight.size(0),
                ", Dt]");
  }
  TORCH_CHECK(options.ce_weight == 0 || in.labels.defined(), "linear_kl: no labels for the CE");
  for (const at::Tensor& per_token : {in.labels, in.mask}) {
    TORCH_CHECK(!per_token.defined() || per_token.sizes() == at::IntArrayRef({tokens}),
                "linear_kl: labels or mask are ", per_token.sizes(), ", expected [", tokens, "]");
  }
}

}  // namespace

LinearKlResult linear_kl(const LinearKlInputs& inputs, const LinearKlOptions& options) {
  check(inputs, options);
  LinearKlResult result;
  if (needs_gradient({inputs.hidden, inputs.weight})) {
    result.loss = LinearKl::apply(inputs.hidden, inputs.weight, inputs, options, result);
  } else {
    HeadGradients none;
    result = compute(inputs, options, /*grad_hidden=*/false, /*grad_weight=*/false, none);
  }
  return result;
}

}  // namespace mambify
