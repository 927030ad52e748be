#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <limits>
#include <optional>

#include "model/mixers.h"
#include "ops/decode_attention.h"
#include "ops/packed_attention.h"

namespace mambify {
namespace {

// A document's new tokens over its cache. q: [T, H, P]; keys, values: [G, positions, P], the last
// T positions being the new tokens; returns [T, H, P].
at::Tensor attention_over_cache(const at::Tensor& q, const at::Tensor& keys,
                                const at::Tensor& values) {
  const int64_t tokens = q.size(0), heads = q.size(1), width = q.size(2);
  const int64_t groups = keys.size(0), repeats = heads / groups, positions = keys.size(1);
  // The query heads that share a key/value head stand behind one another as rows of one matrix, so
  // that the cache is read once and never repeated.
  const at::Tensor rows = q.view({tokens, groups, repeats, width})
                              .permute({1, 0, 2, 3})
                              .reshape({1, groups, tokens * repeats, width});
  std::optional<at::Tensor> mask;
  if (tokens > 1) {
    // Row t sees positions up to its own; what triu keeps above that diagonal is minus infinity.
    mask = at::full({tokens, positions}, -std::numeric_limits<float>::infinity(), q.options())
               .triu_(positions - tokens + 1)
               .unsqueeze(1)
               .expand({tokens, repeats, positions})
               .reshape({1, 1, tokens * repeats, positions});
  }
  const at::Tensor y =
      at::scaled_dot_product_attention(rows, keys.unsqueeze(0), values.unsqueeze(0), mask);
  return y.view({groups, tokens, repeats, width})
      .permute({1, 0, 2, 3})
      .reshape({tokens, heads, width});
}

at::Tensor attention_over_state(const at::Tensor& q, const Context& context,
                                const MixerState& state) {
  const Segments& segments = context.segments;
  std::vector<at::Tensor> parts;
  for (int64_t d = 0; d < segments.documents();) {
    const int64_t begin = segments.begin(d);
    std::vector<int64_t> rows, lengths;
    for (; d < segments.documents() && segments.length(d) <= kMostTokensAlone; ++d) {
      for (int64_t t = 0; t < segments.length(d); ++t) {
        rows.push_back(context.rows[d]);
        lengths.push_back(context.positions[d] + t + 1);
      }
    }
    if (!rows.empty()) {
      const auto count = static_cast<int64_t>(rows.size());
      const at::Tensor queries = count == segments.tokens() ? q : q.narrow(0, begin, count);
      parts.push_back(decode_attention(queries, state.keys, state.values, rows, lengths));
    } else {
      const int64_t end = context.positions[d] + segments.length(d);
      parts.push_back(
          attention_over_cache(q.narrow(0, begin, segments.length(d)),
                               state.keys.select(0, context.rows[d]).narrow(1, 0, end),
                               state.values.select(0, context.rows[d]).narrow(1, 0, end)));
      ++d;
    }
  }
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

}  // namespace

at::Tensor forward(const ModelConfig& config, const Attention& mixer, const at::Tensor& u,
                   const Context& context, MixerState* state) {
  const AttentionConfig& sizes = config.attention;
  const int64_t tokens = u.size(0);
  const std::vector<at::Tensor> in = project_group(context.packed, u, input_projections(mixer));
  const auto heads = [&](const at::Tensor& product, const at::Tensor& bias) {
    return (bias.defined() ? product + bias : product)
        .view({tokens, product.size(1) / sizes.head_dim, sizes.head_dim});
  };
  const at::Tensor q = rotary(heads(in[0], mixer.q_bias), context.cos, context.sin);
  const at::Tensor k = rotary(heads(in[1], mixer.k_bias), context.cos, context.sin);
  const at::Tensor v = heads(in[2], mixer.v_bias);

  at::Tensor y;
  if (state == nullptr) {
    y = packed_attention(q, k, v, context.segments);
  } else {
    store_in_cache(state->keys, k, context.token_rows, context.token_positions);
    store_in_cache(state->values, v, context.token_rows, context.token_positions);
    y = attention_over_state(q, context, *state);
  }
  return project(context.packed, y.reshape({tokens, sizes.n_heads * sizes.head_dim}), mixer.o_proj,
                 mixer.o_bias);
}

}  // namespace mambify
