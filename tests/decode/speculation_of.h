// What the tests of speculation are made of: the models, the sequences, and the comparison of what
// is decoded with guesses with plain decoding.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "convert/convert.h"
#include "core/random.h"
#include "decode/engine.h"
#include "model/load.h"
#include "testing.h"

namespace mambify {

// What is tried of everything that could be.
struct Product {
  int64_t tokens, context;
  std::vector<int64_t> batches;
  // Batches that begin with one sequence after another, so that each comes to each place. 30: in
  // each place stand all kinds of guesses with all ways of sampling.
  uint32_t rotations;
  bool in_parts;  // a test for each draft length and batch, so that none takes long
};
inline const Product& product() {
  static const Product chosen = std::getenv("MAMBIFY_WHOLE_PRODUCT") != nullptr
                                    ? Product{256, 320, {1, 3, 8, 16}, 30, /*in_parts=*/true}
                                    : Product{40, 128, {1, 3, 8}, 1, /*in_parts=*/false};
  return chosen;
}

// The models: every mixer alone, and hybrids of attention with each.
inline Model tiny_llama() { return load_model(testing::fixtures() / "tiny-llama"); }
inline Model hybrid(const ConvertOptions& options) { return convert(tiny_llama(), options); }
inline const std::map<std::string, std::function<Model()>> kModels = {
    {"llama", tiny_llama},
    {"mamba1", [] { return load_model(testing::fixtures() / "tiny-mamba"); }},
    {"mamba2", [] { return load_model(testing::fixtures() / "tiny-mamba2"); }},
    {"hybrid1", [] { return hybrid({.attention_layers = {1}, .mixer = MixerKind::mamba1}); }},
    {"hybrid2", [] { return hybrid({.attention_layers = {1}}); }},
    {"rotary",
     [] {
       return hybrid({.attention_layers = {0}, .start = MixerStart::neutral, .keep_rotary = true});
     }},
};

struct Case {
  std::string model, format;  // fp32, bf16, or int8 weights
  bool cuda = false;

  std::string name() const { return model + "_" + format + (cuda ? "_cuda" : ""); }
};

// One row's state, as bytes that can be compared: of keys and values what the row has read.
inline std::vector<std::string> bytes_of(const ModelState& state, int64_t row) {
  std::vector<std::string> all{std::to_string(state.lengths[row])};
  const auto add = [&](const at::Tensor& tensor) {
    const at::Tensor t = tensor.contiguous();
    all.emplace_back(static_cast<const char*>(t.const_data_ptr()), t.nbytes());
  };
  for (const MixerState& layer : state.layers) {
    if (layer.keys.defined()) {
      add(layer.keys.select(0, row).narrow(1, 0, state.lengths[row]));
      add(layer.values.select(0, row).narrow(1, 0, state.lengths[row]));
    } else {
      add(layer.window.select(0, row));
      add(layer.state.select(0, row));
    }
  }
  return all;
}

class SpeculationOf : public ::testing::Test {
 protected:
  explicit SpeculationOf(const Case& tested) : tested_(tested) {}

  static void TearDownTestSuite() {
    std::cout << compared_sequences << " sequences of " << compared_tokens
              << " tokens compared with plain decoding" << std::endl;
  }

  void SetUp() override {
    to(model_, at::kCPU, tested_.format == "bf16" ? at::kBFloat16 : at::kFloat);
    packed_.emplace(model_, tested_.format == "int8" ? WeightFormat::int8 : WeightFormat::native,
                    device());
  }

  std::optional<int> device() const { return tested_.cuda ? std::optional<int>(0) : std::nullopt; }

  // For an engine over the model.
  EngineOptions options(int64_t rows, Drafter* drafter = nullptr, int64_t draft_length = 0) const {
    return {.rows = rows,
            .context = product().context,
            .drafter = drafter,
            .draft_length = draft_length,
            .packed = &*packed_};
  }

  // Sequences with prompts and ways of sampling of their own.
  GenerationRequest request(uint32_t sequence) const {
    const CounterRandom random(sequence, RandomPurpose::init);
    GenerationRequest request;
    for (uint32_t i = 0; i < 3 + 5 * sequence % 30; ++i) {
      request.prompt.push_back(static_cast<TokenId>(random.bits(0, i) % vocabulary_));
    }
    request.max_tokens = product().tokens - sequence % 5;
    request.sequence = sequence;
    request.sampling.seed = 7;
    switch (sequence % 5) {
      case 1:
        request.sampling = {.temperature = 1, .top_k = 40, .seed = 7};
        break;
      case 2:
        request.sampling = {.temperature = 0.7, .top_p = 0.9, .seed = 7};
        break;
      case 3:
        request.sampling = {.temperature = 1.3, .min_p = 0.02, .seed = 7};
        break;
      case 4:
        request.sampling = {.temperature = 1, .seed = 7};
        break;
      default:
        break;  // greedy
    }
    return request;
  }

  struct Alone {
    GenerationResult result;
    std::vector<std::string> state;
  };
  // Plain decoding of one sequence in an engine of its own.
  const Alone& alone(uint32_t sequence) {
    const auto [found, is_new] = alone_.try_emplace(sequence);
    if (is_new) {
      Engine engine(model_, nullptr, options(1));
      found->second.result = generate(engine, {request(sequence)}).front();
      found->second.state = bytes_of(engine.materialise(), 0);
    }
    return found->second;
  }

  void expect_same(Drafter& drafter, int64_t draft_length, int64_t batch, uint32_t first,
                   int64_t* accepted = nullptr) {
    expect_same(options(batch, &drafter, draft_length), first, accepted);
  }
  // Decodes a sequence in each row side by side, from the given one on, and compares each.
  void expect_same(const EngineOptions& options, uint32_t first, int64_t* accepted = nullptr) {
    const int64_t batch = options.rows;
    Engine engine(model_, nullptr, options);
    std::vector<GenerationRequest> requests;
    for (uint32_t i = 0; i < batch; ++i) requests.push_back(request(first + i));
    const std::vector<GenerationResult> results = generate(engine, std::move(requests));
    const ModelState& state = engine.materialise();
    for (int64_t row = 0; row < batch; ++row) {
      const Alone& plain = alone(first + row);
      ASSERT_EQ(results[row].ids, plain.result.ids) << "tokens of row " << row;
      ASSERT_EQ(bytes_of(state, row), plain.state) << "state of row " << row;
      if (accepted != nullptr) *accepted += results[row].accepted;
      ++compared_sequences;
      compared_tokens += static_cast<int64_t>(results[row].ids.size());
    }
  }

  std::map<uint32_t, std::vector<TokenId>> truth(uint32_t first, int64_t count) {
    std::map<uint32_t, std::vector<TokenId>> tokens;
    for (uint32_t s = first; s < first + count; ++s) {
      tokens[s] = request(s).prompt;
      const std::vector<TokenId>& ids = alone(s).result.ids;
      tokens[s].insert(tokens[s].end(), ids.begin(), ids.end());
    }
    return tokens;
  }

  static inline int64_t compared_sequences = 0, compared_tokens = 0;

  const Case tested_;
  Model model_ = kModels.at(tested_.model)();
  const int64_t vocabulary_ = model_.config.vocab_size;
  std::optional<PackedWeights> packed_;

 private:
  std::map<uint32_t, Alone> alone_;
};

}  // namespace mambify
