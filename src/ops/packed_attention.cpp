#include "ops/packed_attention.h"

#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <algorithm>
#include <vector>

#include "ops/cuda.h"

namespace mambify {
namespace {

// One document. q: [T, H, P]; k, v: [T, G, P].
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t repeats = q.size(1) / k.size(1);
  const auto heads_first = [](const at::Tensor& t) { return t.transpose(0, 1).unsqueeze(0); };
  // The fused kernel wants as many key/value heads as query heads.
  const auto repeated = [&](const at::Tensor& t) {
    if (repeats == 1) return heads_first(t);
    return heads_first(
        t.unsqueeze(2).expand({-1, -1, repeats, -1}).reshape({t.size(0), -1, t.size(2)}));
  };
  const at::Tensor y = at::scaled_dot_product_attention(heads_first(q), repeated(k), repeated(v),
                                                        /*attn_mask=*/{}, /*dropout_p=*/0.0,
                                                        /*is_causal=*/true);
  return y.squeeze(0).transpose(0, 1);
}

// All documents in one kernel of LibTorch (Dao 2023, arXiv 2307.08691).
at::Tensor flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const Segments& segments) {
  const at::Tensor starts = device_starts_of(segments, q.device());
  int64_t longest = 0;
  for (int64_t d = 0; d < segments.documents(); ++d)
    longest = std::max(longest, segments.length(d));
  return std::get<0>(at::_flash_attention_forward(q, k, v, starts, starts, longest, longest,
                                                  /*dropout_p=*/0.0, /*is_causal=*/true,
                                                  /*return_debug_mask=*/false));
}

}  // namespace

at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const Segments& segments) {
  if (q.is_cuda() && q.scalar_type() == at::kBFloat16) return flash_attention(q, k, v, segments);
  std::vector<at::Tensor> documents;
  for (int64_t d = 0; d < segments.documents(); ++d) {
    const auto part = [&](const at::Tensor& t) {
      return t.narrow(0, segments.begin(d), segments.length(d));
    };
    documents.push_back(causal_attention(part(q), part(k), part(v)));
  }
  return documents.size() == 1 ? documents.front() : at::cat(documents);
}

}  // namespace mambify
