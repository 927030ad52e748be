#include "ops/logit_chunks.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace mambify {

int64_t logit_chunk_tokens(int64_t count, const at::Tensor& weight, int64_t wanted) {
  // Of one model's logits in fp32. A GPU wants products of thousands of rows.
  const int64_t bytes = weight.is_cuda() ? int64_t{1} << 30 : int64_t{64} << 20;
  const int64_t row_bytes = weight.size(0) * static_cast<int64_t>(sizeof(float));
  const int64_t most = wanted > 0 ? wanted : std::max<int64_t>(bytes / row_bytes, 1);
  const int64_t chunks = std::max<int64_t>((count + most - 1) / most, 1);
  return (count + chunks - 1) / chunks;
}

LogitBuffer::LogitBuffer(const at::Tensor& weight, int64_t rows, at::ScalarType type)
    : weight_(weight.t()),
      logits_(
          at::empty({rows, weight.size(0)}, weight.options().dtype(type).requires_grad(false))) {
  if (weight.scalar_type() != type) product_ = at::empty_like(logits_, weight.scalar_type());
}

at::Tensor LogitBuffer::fill(const at::Tensor& hidden) {
  const int64_t n = hidden.size(0);
  at::Tensor logits = logits_.narrow(0, 0, n);
  at::Tensor product = product_.defined() ? product_.narrow(0, 0, n) : logits;
  at::mm_out(product, hidden, weight_);
  if (product_.defined()) logits.copy_(product);
  return logits;
}

void HeadGradients::add(const at::Tensor& dlogits, const at::Tensor& places,
                        const at::Tensor& hidden_rows, const at::Tensor& output_matrix) {
  const at::Tensor typed = dlogits.to(output_matrix.scalar_type());
  if (hidden.defined()) hidden.index_copy_(0, places, at::mm(typed, output_matrix));
  if (weight.defined() && typed.scalar_type() == at::kFloat) {
    weight.addmm_(typed.t(), hidden_rows);
  } else if (weight.defined()) {
    weight.add_(at::mm(typed.t(), hidden_rows));
  }
}

}  // namespace mambify
