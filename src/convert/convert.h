// Attention layers to Mamba mixers that start from them (Wang et al. 2024, arXiv 2408.15237).
//
// Linear attention h_t = h_{t-1} + k_t v_t^T, o_t = q_t^T h_t is the recurrence of a state space
// model with x = v, B = k and C = q, so the projections carry over row by row: v_proj to x, k_proj
// to B, q_proj to C and o_proj to the output. Everything else of the mixer is new.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/model.h"

namespace mambify {

// Where the projections of x, B, C and the output come from.
enum class MixerInit {
  attention,  // copied from v, k, q and o
  random,     // LibTorch's default for linear layers: the ablation
};

// How the parameters start that attention does not have.
enum class MixerStart {
  published,  // as the published MambaInLlama code draws them
  neutral,    // Mamba-2 only: near normalised linear attention. Identity convolution without
              // activation, no gate, no norm, D = 0, C scaled by head_dim^-1/2 and slow decay
};

struct ConvertOptions {
  std::vector<int64_t> attention_layers = {};  // layers that keep attention; see layer_plan.h
  MixerKind mixer = MixerKind::mamba2;         // what the others become: mamba2 or mamba1
  MixerInit init = MixerInit::attention;
  MixerStart start = MixerStart::published;
  bool keep_rotary = false;  // Mamba-2 only: rotary embedding stays on B (keys) and C (queries)
  uint64_t seed = 0;         // of what is drawn; the draws depend on nothing else
};

// What to choose where nobody has: as the model's layers of that mixer began, which further ones
// must be like; where it has none, what students learn fastest from (docs/results.md, "Ablations").
MixerStart best_start(const ModelConfig& model, MixerKind mixer);
bool keeps_rotary_best(const ModelConfig& model, MixerKind mixer, MixerStart start);

// The config of the converted model. Throws Error where the teacher cannot be converted so: it has
// no attention, its attention has biases (Mamba layouts have no place for them), a layer to keep is
// not attention, or Mamba layers it already has are of another form than the options ask for.
ModelConfig converted_config(const ModelConfig& teacher, const ConvertOptions& options);

// The mixer that takes the place of one attention layer. config: what converted_config returned.
// Shares no memory with `attention` and has its dtype and device, but for A_log, D and dt_bias,
// which are fp32. A layer's draws depend on the seed and its number alone, so that converting in
// several rounds gives the same mixers as at once.
Mixer convert_layer(const ModelConfig& config, const Attention& attention, int64_t layer,
                    const ConvertOptions& options);

// Replaces every attention layer that is not to be kept; Mamba layers stay as they are, so that a
// hybrid can be converted further. Other parameters are not touched.
void convert_in_place(Model& model, const ConvertOptions& options);

// A converted copy that shares no memory with the teacher.
Model convert(const Model& teacher, const ConvertOptions& options);

// A shallower model of the given layers, ascending, and everything outside of layers; shares its
// memory with `model`. What a draft for speculative decoding starts from.
Model take_layers(const Model& model, const std::vector<int64_t>& layers);

// For options and messages.
MixerInit parse_mixer_init(const std::string& name);    // "attention", "random"
MixerStart parse_mixer_start(const std::string& name);  // "published", "neutral"
MixerKind parse_mixer_kind(const std::string& name);    // "mamba1", "mamba2"

}  // namespace mambify
