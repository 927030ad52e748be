#include "bench_load.h"

#include <chrono>

#include "core/random.h"

namespace mambify {

void add_load_options(CLI::App& verb, DecodeLoad& load) {
  const auto count = [&](const char* flag, int64_t& value, const char* help) {
    verb.add_option(flag, value, help)->check(CLI::Range(1, 1 << 24))->capture_default_str();
  };
  count("--batch", load.batch, "sequences side by side");
  count("--context", load.context, "tokens before the first that is timed");
  count("--tokens", load.tokens, "tokens decoded in a run");
  count("--runs", load.runs, "runs; the median counts");
}

std::vector<GenerationRequest> requests_of(const DecodeLoad& load, const ModelConfig& config,
                                           uint64_t seed) {
  const CounterRandom random(seed, RandomPurpose::init);
  std::vector<GenerationRequest> requests(load.batch);
  for (int64_t i = 0; i < load.batch; ++i) {
    requests[i].sequence = static_cast<uint32_t>(i);
    requests[i].max_tokens = load.tokens + 1;
    for (int64_t t = 0; t < load.context; ++t) {
      requests[i].prompt.push_back(static_cast<TokenId>(
          random.bits(static_cast<uint32_t>(i), static_cast<uint32_t>(t)) % config.vocab_size));
    }
  }
  return requests;
}

LoadRates run_load(Engine& engine, const DecodeLoad& load,
                   std::vector<GenerationRequest> requests) {
  if (load.random_context) {
    // All of a prompt but its last token, without which nothing would be left to read.
    for (int64_t row = 0; row < load.batch; ++row) {
      const std::vector<TokenId>& prompt = requests[row].prompt;
      engine.pretend(row, {prompt.begin(), prompt.end() - 1});
    }
  }
  const auto begin = std::chrono::steady_clock::now();
  const GenerationResult result = generate(engine, std::move(requests)).front();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  const auto batch = static_cast<double>(load.batch);
  return {batch * result.prefill_tokens_per_second(),
          batch * static_cast<double>(load.tokens) / (seconds.count() - result.prefill_seconds)};
}

EngineOptions engine_options_of(const DecodeLoad& load, const PackedWeights& packed) {
  return {.rows = load.batch, .context = load.context + load.tokens + 1, .packed = &packed};
}

StepBytes step_bytes(const Model& model, const PackedWeights& packed, const DecodeLoad& load) {
  Model view = model;  // tensors are handles: nothing is copied
  StepBytes bytes{.weights = packed.bytes() - packed.native_bytes(), .state = 0};
  for_each_parameter(view, [&](const std::string& name, at::Tensor& tensor) {
    const bool gathered = name == "embedding" && !model.lm_head.is_same(model.embedding);
    if (!gathered) bytes.weights += static_cast<int64_t>(tensor.nbytes());
  });
  // Recurrent state does not grow, so a state of one row and a given capacity tells the sizes.
  const int64_t seen = load.context + load.tokens / 2;
  bytes.state = ModelState(model.config, 1, seen, model.embedding.options()).bytes();
  return bytes;
}

}  // namespace mambify
