// The load that decoding benchmarks put on a model: sequences of random tokens, side by side.
#pragma once

#include <CLI/CLI.hpp>
#include <vector>

#include "decode/engine.h"

namespace mambify {

struct DecodeLoad {
  int64_t batch = 1;
  int64_t context = 128;
  int64_t tokens = 64;
  int64_t runs = 5;
  bool random_context = false;  // instead of reading a prompt, its states are random numbers
};

// --batch, --context, --tokens, --runs
void add_load_options(CLI::App& verb, DecodeLoad& load);

// The same for the same seed. Each draws tokens + 1 tokens, the first with its prompt.
std::vector<GenerationRequest> requests_of(const DecodeLoad& load, const ModelConfig& config,
                                           uint64_t seed);
// Tokens per second of one run, of all sequences together: of the passes that read their prompts,
// and of everything that the engine does after them.
struct LoadRates {
  double prefill, decode;
};
LoadRates run_load(Engine& engine, const DecodeLoad& load, std::vector<GenerationRequest> requests);
// Rows, context and weights to decode them with.
EngineOptions engine_options_of(const DecodeLoad& load, const PackedWeights& packed);

// Bytes that a decoding step reads, halfway through.
struct StepBytes {
  int64_t weights;  // all but an embedding of its own, of which it reads a row for each sequence
  int64_t state;    // of each sequence: recurrent state whole, keys and values of the tokens seen
};
StepBytes step_bytes(const Model& model, const PackedWeights& packed, const DecodeLoad& load);

}  // namespace mambify
