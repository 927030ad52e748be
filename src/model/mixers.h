// The three mixers: weights, decoding state, forward pass. One .cpp each.
#pragma once

#include <ATen/core/Tensor.h>

#include <variant>

#include "model/config.h"
#include "model/context.h"

namespace mambify {

// Grouped-query softmax attention with rotary embedding.
struct Attention {
  at::Tensor q_proj;                          // [n_heads * head_dim, d_model]
  at::Tensor k_proj;                          // [n_kv_heads * head_dim, d_model]
  at::Tensor v_proj;                          // [n_kv_heads * head_dim, d_model]
  at::Tensor o_proj;                          // [d_model, n_heads * head_dim]
  at::Tensor q_bias, k_bias, v_bias, o_bias;  // undefined without biases
};

struct Mamba1 {
  at::Tensor in_proj_x;     // [d_xb, d_model]
  at::Tensor in_proj_z;     // [d_inner, d_model]
  at::Tensor conv_weight;   // [d_inner, d_conv]
  at::Tensor conv_bias;     // [d_inner]
  at::Tensor B_proj;        // [b_groups * d_state, source], source: d_model, or d_inner when
  at::Tensor C_proj;        // [c_groups * d_state, source]  selects_from_x
  at::Tensor dt_proj_down;  // [dt_rank, source]
  at::Tensor dt_proj;       // [d_inner, dt_rank]
  at::Tensor dt_bias;       // [d_inner]
  at::Tensor A_log;         // [d_inner, d_state]
  at::Tensor D;             // [d_inner]
  at::Tensor out_proj;      // [d_model, d_inner]
};

struct Mamba2 {
  at::Tensor in_proj;      // rows [z: d_inner | x: d_x | B: d_b | C: d_c | dt: n_heads], d_model
  at::Tensor conv_weight;  // [conv_channels, d_conv]
  at::Tensor conv_bias;    // [conv_channels]
  at::Tensor dt_bias;      // [n_heads]
  at::Tensor A_log;        // [n_heads]
  at::Tensor D;            // [n_heads]
  at::Tensor norm;         // [d_inner]
  at::Tensor out_proj;     // [d_model, d_inner]
};

using Mixer = std::variant<Attention, Mamba1, Mamba2>;

MixerKind kind_of(const Mixer& mixer);

// u: [tokens, d_model], already normalised; returns [tokens, d_model]. Without a state every
// document starts from nothing; with one, document i continues row context.rows[i] of it.
at::Tensor forward(const ModelConfig& config, const Attention& mixer, const at::Tensor& u,
                   const Context& context, MixerState* state);
at::Tensor forward(const ModelConfig& config, const Mamba1& mixer, const at::Tensor& u,
                   const Context& context, MixerState* state);
at::Tensor forward(const ModelConfig& config, const Mamba2& mixer, const at::Tensor& u,
                   const Context& context, MixerState* state);
at::Tensor forward(const ModelConfig& config, const Mixer& mixer, const at::Tensor& u,
                   const Context& context, MixerState* state);

}  // namespace mambify
