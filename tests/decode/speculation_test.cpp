// The contract of speculation: with any drafter, in any company, tokens and states are the same
// bits as those of plain decoding alone.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "decode/draft_vocabulary.h"
#include "kernels/cuda/runtime.h"
#include "scripted_drafter.h"
#include "speculation_of.h"

namespace mambify {
namespace {

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
