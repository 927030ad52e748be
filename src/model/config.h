// What a model is made of: sizes and the kind of each layer's mixer.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "ops/rotary.h"

namespace mambify {

enum class MixerKind { attention, mamba1, mamba2 };
const char* mixer_name(MixerKind kind);

struct AttentionConfig {
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  bool bias = false;  // on q, k, v and o
  RopeConfig rope;
};

// A Mamba-1 mixer. Channel d of d_inner reads B group d / (d_inner / b_groups) and C likewise;
// x has d_xb channels, repeated in blocks of d_state to d_inner before the convolution.
struct Mamba1Config {
  int64_t d_inner = 0;
  int64_t d_xb = 0;
  int64_t d_state = 0;
  int64_t dt_rank = 0;
  int64_t d_conv = 4;
  int64_t b_groups = 1;
  int64_t c_groups = 1;
  bool selects_from_x = false;  // B, C and dt are projected from the convolved x (the original
                                // Mamba) rather than from the layer's input (MambaInLlama)
  double dt_bias_scale = 1;     // MambaInLlama's published code adds the bias twice

  // Width of what the mixer computes of a token's input before it meets the state: x, and unless
  // they are projected from the convolved x, also dt, B and C.
  int64_t recurrent_inputs() const {
    return d_xb + (selects_from_x ? 0 : d_inner + (b_groups + c_groups) * d_state);
  }
};

// A Mamba-2 mixer: n_heads heads of head_dim with a state of [head_dim, d_state] each; head j uses
// group j / (n_heads / groups) of each of x, B and C.
struct Mamba2Config {
  int64_t n_heads = 0;
  int64_t head_dim = 0;
  int64_t d_state = 0;
  int64_t x_groups = 0;
  int64_t b_groups = 0;
  int64_t c_groups = 0;
  int64_t d_conv = 4;
  int64_t norm_group_size = 0;
  double norm_eps = 1e-5;
  double dt_min = 0;
  double dt_max = std::numeric_limits<double>::infinity();
  // What mambify adds (the `neutral` start and kept rotary embeddings). The defaults are the
  // published mixer.
  bool conv_activation = true;
  bool gate = true;
  bool norm = true;
  bool rotary = false;

  int64_t d_inner() const { return n_heads * head_dim; }
  int64_t d_x() const { return x_groups * head_dim; }
  int64_t d_b() const { return b_groups * d_state; }
  int64_t d_c() const { return c_groups * d_state; }
  int64_t conv_channels() const { return d_x() + d_b() + d_c(); }
  int64_t in_proj_rows() const { return d_inner() + conv_channels() + n_heads; }
  // As Mamba1Config's: x, B, C and dt.
  int64_t recurrent_inputs() const { return conv_channels() + n_heads; }
};

// The family of weight names and config files a checkpoint is written in.
enum class Layout {
  llama,   // transformers' LlamaForCausalLM; with Mamba layers, the MambaInLlama hybrid
  mamba1,  // transformers' MambaForCausalLM
  mamba2,  // transformers' Mamba2ForCausalLM
};

struct ModelConfig {
  Layout layout = Layout::llama;
  int64_t vocab_size = 0;
  int64_t d_model = 0;
  int64_t intermediate_size = 0;  // of the MLP; 0: blocks have none
  double norm_eps = 1e-5;
  bool tie_embeddings = false;
  int64_t max_positions = 0;  // 0: not limited
  std::optional<int64_t> bos_token_id, eos_token_id;
  std::vector<MixerKind> layers;
  AttentionConfig attention;  // meaningful when a layer is of its kind; likewise below
  Mamba1Config mamba1;
  Mamba2Config mamba2;

  int64_t n_layer() const { return static_cast<int64_t>(layers.size()); }
  int64_t count(MixerKind kind) const;
};

}  // namespace mambify
