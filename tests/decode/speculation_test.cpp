// The contract of speculation: with any drafter, in any company, tokens and states are the same
// bits as those of plain decoding alone.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <map>
#include <optional>

#include "convert/convert.h"
#include "core/random.h"
#include "decode/draft_vocabulary.h"
#include "decode/engine.h"
#include "kernels/cuda/runtime.h"
#include "model/load.h"
#include "scripted_drafter.h"
#include "testing.h"

namespace mambify {
namespace {

using testing::fixtures;

// What is tried of everything that could be.
struct Product {
  int64_t tokens, context;
  std::vector<int64_t> batches;
  // Batches that begin with one sequence after another, so that each comes to each place. 30: in
  // each place stand all kinds of guesses with all ways of sampling.
  uint32_t rotations;
  bool in_parts;  // a test for each draft length and batch, so that none takes long
};
const Product& product() {
  static const Product chosen = std::getenv("MAMBIFY_WHOLE_PRODUCT") != nullptr
                                    ? Product{256, 320, {1, 3, 8, 16}, 30, /*in_parts=*/true}
                                    : Product{40, 128, {1, 3, 8}, 1, /*in_parts=*/false};
  return chosen;
}

// The models: every mixer alone, and hybrids of attention with each.
Model tiny_llama() { return load_model(fixtures() / "tiny-llama"); }
Model hybrid(const ConvertOptions& options) { return convert(tiny_llama(), options); }
const std::map<std::string, std::function<Model()>> kModels = {
    {"llama", tiny_llama},
    {"mamba1", [] { return load_model(fixtures() / "tiny-mamba"); }},
    {"mamba2", [] { return load_model(fixtures() / "tiny-mamba2"); }},
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
std::vector<std::string> bytes_of(const ModelState& state, int64_t row) {
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

// One model, and what its guesses are divided into.
struct Share {
  Case of;
  std::vector<int64_t> draft_lengths, batches;

  std::string name() const {
    if (!product().in_parts) return of.name();
    return fmt::format("{}_{}_drafts_batch_{}", of.name(), draft_lengths.front(), batches.front());
  }
};
class ScriptedSpeculation : public SpeculationOf, public ::testing::WithParamInterface<Share> {
 protected:
  ScriptedSpeculation() : SpeculationOf(GetParam().of) {}
};

TEST_P(ScriptedSpeculation, RightAndWrongGuessesChangeNoBit) {
  for (const int64_t draft_length : GetParam().draft_lengths) {
    for (const int64_t batch : GetParam().batches) {
      for (uint32_t rotation = 0; rotation < product().rotations; ++rotation) {
        const uint32_t first = static_cast<uint32_t>(draft_length * 3 % 8) + rotation;
        ScriptedDrafter drafter(truth(first, batch), vocabulary_);
        ASSERT_NO_FATAL_FAILURE(expect_same(drafter, draft_length, batch, first))
            << draft_length << " drafts, batch " << batch << " from sequence " << first;
      }
    }
  }
}

class Speculation : public SpeculationOf, public ::testing::WithParamInterface<Case> {
 protected:
  Speculation() : SpeculationOf(GetParam()) {}
};

TEST_P(Speculation, TheLongestDraftsChangeNoBit) {
  ScriptedDrafter drafter(truth(0, 16), vocabulary_);
  int64_t accepted = 0;
  ASSERT_NO_FATAL_FAILURE(expect_same(drafter, kMaxDraftLength, 16, 0, &accepted));
  EXPECT_GT(accepted, 0);
}

TEST_P(Speculation, LookingUpTheTextChangesNoBit) {
  const auto drafter = ngram_drafter({.longest = 3, .shortest = 1});
  ASSERT_NO_FATAL_FAILURE(expect_same(*drafter, 4, 8, 0));
}

// How many guesses there are goes by the clock here; what comes of them must not.
TEST_P(Speculation, DraftsOfAdaptedLengthsChangeNoBit) {
  ScriptedDrafter drafter(truth(0, 8), vocabulary_);
  EngineOptions adapting = options(8, &drafter, kMaxDraftLength);
  adapting.adapt_draft_length = true;
  ASSERT_NO_FATAL_FAILURE(expect_same(adapting, 0));
}

// A model that drafts for itself with the same numbers is nearly always right (it reads a prompt in
// other chunks than the engine, and so rounds otherwise), which shows that its own state was taken
// back and brought forward as it should.
TEST_P(Speculation, AModelAgreesWithItself) {
  const auto drafter = model_drafter(model_, 5, product().context, 4, &*packed_);
  Engine engine(model_, nullptr, options(5, drafter.get(), 4));
  std::vector<GenerationRequest> requests;
  for (uint32_t s = 0; s < 5; ++s) requests.push_back(request(s));
  int64_t drafted = 0, accepted = 0;
  for (const GenerationResult& result : generate(engine, std::move(requests))) {
    drafted += result.drafted;
    accepted += result.accepted;
  }
  EXPECT_GT(drafted, 100);
  EXPECT_GE(accepted, drafted * 95 / 100);
}

TEST_P(Speculation, AnotherModelsGuessesChangeNoBit) {
  // The same model with a layer of noise: often right, often wrong.
  Model other = clone(model_);
  at::manual_seed(3);
  other.final_norm = other.final_norm + at::randn_like(other.final_norm) * 0.3;
  const PackedWeights others(other, WeightFormat::native, device());
  const auto drafter = model_drafter(other, 8, product().context, 5, &others);
  int64_t accepted = 0;
  ASSERT_NO_FATAL_FAILURE(expect_same(*drafter, 5, 8, 0, &accepted));
  EXPECT_GT(accepted, 0);
}

// Notes what it hands on.
class HeardDrafter : public Drafter {
 public:
  explicit HeardDrafter(Drafter& drafter) : drafter_(drafter) {}
  std::vector<Draft> draft(std::span<const DraftRequest> requests) override {
    std::vector<Draft> drafts = drafter_.draft(requests);
    for (const Draft& draft : drafts) {
      guesses.insert(guesses.end(), draft.tokens.begin(), draft.tokens.end());
      empty += draft.tokens.empty();
    }
    return drafts;
  }

  std::vector<TokenId> guesses;
  int64_t empty = 0;  // drafts

 private:
  Drafter& drafter_;
};

// The model drafts for itself, surer of everything than it is, and stops where it is not certain:
// before the first guess, too.
TEST_P(Speculation, GuessesThatADraftIsCertainOfChangeNoBit) {
  Model sure = clone(model_);
  sure.final_norm = sure.final_norm * 8;
  const PackedWeights packed(sure, WeightFormat::native, device());
  const auto drafter = model_drafter(sure, 8, product().context, 5, &packed);
  HeardDrafter heard(*drafter);
  for (const double bound : {0.3, 0.95}) {
    EngineOptions stopping = options(8, &heard, 5);
    stopping.min_draft_probability = bound;
    ASSERT_NO_FATAL_FAILURE(expect_same(stopping, 0));
  }
  EXPECT_FALSE(heard.guesses.empty());
  EXPECT_GT(heard.empty, 0);
}

// The model drafts for itself with the output matrix of some of its tokens only: right wherever one
// of these is drawn, since a token's random numbers are its own.
TEST_P(Speculation, GuessesAmongSomeTokensChangeNoBit) {
  std::vector<TokenId> tokens;
  for (TokenId token = 0; token < vocabulary_; ++token) {
    if (token % 3 != 1) tokens.push_back(token);
  }
  Model some = model_;
  keep_outputs(some, tokens);
  const PackedWeights packed(
      some, GetParam().format == "int8" ? WeightFormat::int8 : WeightFormat::native, device());
  const auto drafter = model_drafter(some, 8, product().context, 5, &packed, tokens);
  HeardDrafter heard(*drafter);
  int64_t accepted = 0;
  ASSERT_NO_FATAL_FAILURE(expect_same(heard, 5, 8, 0, &accepted));
  ASSERT_FALSE(heard.guesses.empty());
  EXPECT_GT(accepted, std::ssize(heard.guesses) / 4);
  for (const TokenId guess : heard.guesses) EXPECT_NE(guess % 3, 1);
}

// A drafter that is always right except that it guesses tokens behind a sequence's end.
TEST_P(Speculation, AnEndInsideADraftEndsTheSequenceThere) {
  const std::vector<TokenId> ids = alone(0).result.ids;
  const TokenId end = ids[7];
  const auto first = std::find(ids.begin(), ids.end(), end) - ids.begin();
  GenerationRequest plain = request(0);
  plain.stop_ids = {end};
  Engine without(model_, nullptr, options(1));
  const GenerationResult expected = generate(without, {plain}).front();
  ASSERT_EQ(static_cast<int64_t>(expected.ids.size()), first + 1);
  ScriptedDrafter drafter(truth(0, 1), vocabulary_);
  Engine with(model_, nullptr, options(1, &drafter, 6));
  const GenerationResult result = generate(with, {plain}).front();
  EXPECT_EQ(result.ids, expected.ids);
  EXPECT_EQ(result.finish_reason, FinishReason::stop);
  EXPECT_EQ(bytes_of(with.materialise(), 0), bytes_of(without.materialise(), 0));
}

// The next prompt continues a row whose last guesses its recurrent states have not seen yet.
TEST_P(Speculation, ARowGoesOnBehindItsDrafts) {
  GenerationRequest next = request(0);
  const std::vector<TokenId>& ids = alone(0).result.ids;
  next.prompt.insert(next.prompt.end(), ids.begin(), ids.end());
  next.prompt.push_back(1);
  const auto continue_with = [&](Drafter* drafter) {
    Engine engine(model_, nullptr, options(1, drafter, drafter != nullptr ? 4 : 0));
    generate(engine, {request(0)});
    const GenerationResult result = generate(engine, {next}).front();
    EXPECT_GT(result.reused_tokens, 0);
    return std::pair(result.ids, bytes_of(engine.materialise(), 0));
  };
  std::map<uint32_t, std::vector<TokenId>> tokens = truth(0, 1);
  ScriptedDrafter drafter(tokens, vocabulary_);
  EXPECT_EQ(continue_with(&drafter), continue_with(nullptr));
}

// However long the pieces that a prompt is cut into are, and whichever other prompts are read.
TEST_P(Speculation, ALongPromptHasTheBitsOfSingleTokens) {
  if (!GetParam().cuda) GTEST_SKIP() << "on the CPU prompts are cut at fixed positions";
  const auto read = [&](int64_t rows, int64_t chunk) {
    EngineOptions chosen = options(rows);
    chosen.context = 800;
    chosen.prefill_chunk = chunk;
    Engine engine(model_, nullptr, chosen);
    std::vector<GenerationRequest> requests;
    for (uint32_t s = 0; s < rows; ++s) {
      requests.push_back(request(s));
      const CounterRandom random(s, RandomPurpose::init);
      for (uint32_t i = 0; i < 700 - 150 * s; ++i) {
        requests.back().prompt.push_back(static_cast<TokenId>(random.bits(1, i) % vocabulary_));
      }
    }
    const std::vector<TokenId> ids = generate(engine, std::move(requests)).front().ids;
    return std::pair(ids, bytes_of(engine.materialise(), 0));
  };
  const auto expected = read(1, 1);
  EXPECT_EQ(read(1, 1024), expected);
  EXPECT_EQ(read(1, 100), expected);
  EXPECT_EQ(read(3, 1024), expected);
}

TEST_P(Speculation, AContextOfRandomNumbersIsContinued) {
  if (!GetParam().cuda) GTEST_SKIP() << "on a CUDA device only";
  const GenerationRequest continued = request(3);
  Engine engine(model_, nullptr, options(2));
  engine.pretend(1, {continued.prompt.begin(), continued.prompt.end() - 1});
  const GenerationResult result = generate(engine, {continued}).front();
  EXPECT_EQ(result.reused_tokens, static_cast<int64_t>(continued.prompt.size()) - 1);
  EXPECT_EQ(static_cast<int64_t>(result.ids.size()), continued.max_tokens);
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const auto& [name, make] : kModels) {
    for (const char* format : {"fp32", "bf16", "int8"}) cases.push_back({name, format});
    if (kernels::cuda_device_count() == 0) continue;
    for (const char* format : {"fp32", "bf16"}) cases.push_back({name, format, /*cuda=*/true});
  }
  return cases;
}

std::vector<Share> all_shares() {
  const std::vector<int64_t> lengths{1, 2, 3, 4, 5, 6, 7, 8};
  std::vector<Share> shares;
  for (const Case& of : all_cases()) {
    if (!product().in_parts) {
      shares.push_back({of, lengths, product().batches});
      continue;
    }
    for (const int64_t length : lengths) {
      for (const int64_t batch : product().batches) shares.push_back({of, {length}, {batch}});
    }
  }
  return shares;
}

const auto name_of = [](const auto& info) { return info.param.name(); };
INSTANTIATE_TEST_SUITE_P(Models, ScriptedSpeculation, ::testing::ValuesIn(all_shares()), name_of);
INSTANTIATE_TEST_SUITE_P(Models, Speculation, ::testing::ValuesIn(all_cases()), name_of);

}  // namespace
}  // namespace mambify
