// The engine against the plain definition of decoding: the whole sequence through the model anew
// for every token.
#include "decode/engine.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"
#include "model/load.h"
#include "testing.h"

namespace mambify {
namespace {

using testing::fixtures;

std::vector<TokenId> random_prompt(int64_t length, uint32_t seed, int64_t vocabulary) {
  const CounterRandom random(seed, RandomPurpose::init);
  std::vector<TokenId> ids;
  for (int64_t i = 0; i < length; ++i) {
    ids.push_back(static_cast<TokenId>(random.bits(0, static_cast<uint32_t>(i)) % vocabulary));
  }
  return ids;
}

GenerationRequest request_of(std::vector<TokenId> prompt, int64_t max_tokens) {
  GenerationRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  return request;
}

GenerationResult generate_one(Engine& engine, GenerationRequest request) {
  std::vector<GenerationRequest> requests;
  requests.push_back(std::move(request));
  return std::move(generate(engine, std::move(requests)).front());
}

GenerationResult generate_alone(const Model& model, const Tokenizer* tokenizer,
                                GenerationRequest request, EngineOptions options = {}) {
  Engine engine(model, tokenizer, options.context > 0 ? options : EngineOptions{.context = 512});
  return generate_one(engine, std::move(request));
}

std::vector<TokenId> decode_without_state(const Model& model, const GenerationRequest& request) {
  const c10::InferenceMode inference;
  std::vector<TokenId> ids = request.prompt;
  for (int64_t i = 0; i < request.max_tokens; ++i) {
    const auto length = static_cast<int64_t>(ids.size());
    const Context context =
        make_context(model.config, Segments::one(length), model.embedding.options());
    const at::Tensor hidden =
        hidden_states(model, at::tensor(std::vector<int64_t>(ids.begin(), ids.end())), context);
    const at::Tensor scores = logits(model, hidden.narrow(0, length - 1, 1)).contiguous();
    ids.push_back(
        sample_token({scores.const_data_ptr<float>(), static_cast<size_t>(scores.size(1))},
                     request.sampling, request.sequence, static_cast<uint32_t>(length)));
  }
  return {ids.begin() + static_cast<int64_t>(request.prompt.size()), ids.end()};
}

// One checkpoint for each kind of mixer.
class EngineOfEveryMixer : public ::testing::TestWithParam<const char*> {
 protected:
  const Model model_ = load_model(fixtures() / GetParam());
  const int64_t vocabulary_ = model_.config.vocab_size;

  // Requests of different prompts, lengths and ways of sampling.
  std::vector<GenerationRequest> mixed_requests(int count) const {
    std::vector<GenerationRequest> requests;
    for (int i = 0; i < count; ++i) {
      requests.push_back(request_of(random_prompt(1 + 7 * i % 40, i, vocabulary_), 3 + 5 * i % 17));
      requests.back().sequence = i;
      if (i % 2 == 1) {
        requests.back().sampling = {.temperature = 1, .top_k = 50, .top_p = 0.95, .seed = 5};
      }
    }
    return requests;
  }
};

TEST_P(EngineOfEveryMixer, RefusesAContextOfRandomNumbersOnTheCpu) {
  Engine engine(model_, nullptr, {.context = 64});
  EXPECT_THROW(engine.pretend(0, {1, 2}), Error);
}

TEST_P(EngineOfEveryMixer, DecodesWhatTheModelSaysWithoutAState) {
  for (const GenerationRequest& request : mixed_requests(4)) {
    const GenerationResult result = generate_alone(model_, nullptr, request);
    EXPECT_EQ(result.ids, decode_without_state(model_, request));
    EXPECT_EQ(result.finish_reason, FinishReason::length);
    EXPECT_EQ(result.prompt_tokens, static_cast<int64_t>(request.prompt.size()));
  }
}

TEST_P(EngineOfEveryMixer, NeighboursChangeNoToken) {
  const std::vector<GenerationRequest> requests = mixed_requests(9);
  for (int64_t min_prefill : {1, 2}) {
    Engine engine(model_, nullptr, {.rows = 3, .context = 512, .min_prefill = min_prefill});
    const std::vector<GenerationResult> together = generate(engine, requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(together[i].ids, generate_alone(model_, nullptr, requests[i]).ids) << i;
    }
    EXPECT_EQ(engine.unfinished(), 0);
  }
}

TEST_P(EngineOfEveryMixer, PromptsReadInChunksDecodeTheSame) {
  const GenerationRequest request = request_of(random_prompt(61, 11, vocabulary_), 12);
  const std::vector<TokenId> whole = generate_alone(model_, nullptr, request).ids;
  for (int64_t chunk : {1, 2, 16, 60, 61, 62}) {
    EXPECT_EQ(
        generate_alone(model_, nullptr, request, {.context = 512, .prefill_chunk = chunk}).ids,
        whole)
        << "chunks of " << chunk;
  }
}

TEST_P(EngineOfEveryMixer, APromptThatContinuesARowReadsOnlyTheRest) {
  Engine engine(model_, nullptr, {.rows = 2, .context = 512});
  const GenerationRequest first = request_of(random_prompt(20, 1, vocabulary_), 10);
  GenerationRequest next = first;
  const GenerationResult answer = generate_one(engine, first);
  next.prompt.insert(next.prompt.end(), answer.ids.begin(), answer.ids.end());
  const std::vector<TokenId> more = random_prompt(5, 2, vocabulary_);
  next.prompt.insert(next.prompt.end(), more.begin(), more.end());
  const GenerationResult continued = generate_one(engine, next);
  // The last token drawn was never fed to the model.
  EXPECT_EQ(continued.reused_tokens, 29);
  EXPECT_EQ(continued.ids, generate_alone(model_, nullptr, next).ids);

  // The same prompt again: both rows hold something else by now or all of it, which cannot be
  // taken back, so it is read anew.
  const GenerationResult again = generate_one(engine, first);
  EXPECT_EQ(again.ids, answer.ids);
  EXPECT_EQ(generate_one(engine, first).ids, answer.ids);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, EngineOfEveryMixer,
                         ::testing::Values("tiny-llama", "tiny-llama3-rope", "tiny-mamba",
                                           "tiny-mamba2"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

class EngineText : public ::testing::Test {
 protected:
  // A request whose drawn tokens make text of some length.
  GenerationRequest wordy_request(int64_t max_tokens = 60) const {
    GenerationRequest request =
        request_of(random_prompt(8, 4, model_.config.vocab_size), max_tokens);
    request.sampling = {.temperature = 2, .seed = 1};
    return request;
  }

  const Model model_ = load_model(fixtures() / "tiny-llama");
  const Tokenizer tokenizer_ = Tokenizer::load(fixtures() / "llama3-style-tokenizer");
};

TEST_F(EngineText, TextIsTheDecodedTokensAndStreamsAsThey) {
  GenerationRequest request = wordy_request();
  std::string streamed;
  int pieces = 0;
  request.on_text = [&](std::string_view text) {
    streamed += text;
    ++pieces;
  };
  const GenerationResult result = generate_alone(model_, &tokenizer_, request);
  EXPECT_EQ(result.text, tokenizer_.decode(result.ids));
  EXPECT_EQ(streamed, result.text);
  EXPECT_GT(pieces, 10);
}

TEST_F(EngineText, AStopStringAcrossTokensCutsTheText) {
  const GenerationResult whole = generate_alone(model_, &tokenizer_, wordy_request());
  // Two bytes on each side of a place between two tokens.
  const std::string before = tokenizer_.decode(std::span(whole.ids).first(whole.ids.size() / 2));
  ASSERT_TRUE(whole.text.starts_with(before)) << "choose a prompt whose text is valid UTF-8 here";
  const std::string stop = whole.text.substr(before.size() - 2, 4);
  GenerationRequest request = wordy_request();
  request.stop = {"never to be seen", stop};
  std::string streamed;
  request.on_text = [&](std::string_view text) { streamed += text; };
  const GenerationResult result = generate_alone(model_, &tokenizer_, request);
  EXPECT_EQ(result.finish_reason, FinishReason::stop);
  EXPECT_EQ(result.text, whole.text.substr(0, whole.text.find(stop)));
  EXPECT_EQ(streamed, result.text);
  EXPECT_LT(result.ids.size(), whole.ids.size());
}

TEST_F(EngineText, AnEndTokenEndsTheSequenceAndIsNotText) {
  const GenerationResult whole = generate_alone(model_, &tokenizer_, wordy_request());
  GenerationRequest request = wordy_request();
  request.stop_ids = {whole.ids[20]};
  const GenerationResult result = generate_alone(model_, &tokenizer_, request);
  const size_t expected =
      std::ranges::find(whole.ids, whole.ids[20]) - whole.ids.begin() + size_t{1};
  EXPECT_EQ(result.ids, std::vector(whole.ids.begin(), whole.ids.begin() + expected));
  EXPECT_EQ(result.text, tokenizer_.decode(std::span(result.ids).first(expected - 1)));
  EXPECT_EQ(result.finish_reason, FinishReason::stop);
}

TEST_F(EngineText, IsTheSameWhoeverHearsItAndHoweverManyAreWritten) {
  const GenerationResult alone = generate_alone(model_, &tokenizer_, wordy_request());
  GenerationRequest request = wordy_request();
  request.stop_ids = {alone.ids[20]};
  const GenerationResult ended = generate_alone(model_, &tokenizer_, request);
  // More than one thread takes what is drawn of, unless somebody hears it.
  constexpr size_t kRows = 100;
  for (const bool is_heard : {false, true}) {
    std::vector<GenerationRequest> requests(kRows, wordy_request());
    for (size_t i = 0; i < kRows; i += 3) requests[i].stop_ids = request.stop_ids;
    for (size_t i = 0; i < kRows; i += 5) requests[i].stop = {"never to be seen"};
    std::string streamed;
    if (is_heard) requests[7].on_text = [&](std::string_view text) { streamed += text; };
    Engine engine(model_, &tokenizer_, {.rows = kRows, .context = 512});
    const std::vector<GenerationResult> results = generate(engine, std::move(requests));
    for (size_t i = 0; i < kRows; ++i) {
      const GenerationResult& expected = i % 3 == 0 ? ended : alone;
      EXPECT_EQ(results[i].text, expected.text) << i;
      EXPECT_EQ(results[i].ids, expected.ids) << i;
      EXPECT_EQ(results[i].finish_reason, expected.finish_reason) << i;
    }
    EXPECT_EQ(streamed, is_heard ? alone.text : "");
  }
}

TEST_F(EngineText, AFullContextEndsTheSequence) {
  GenerationRequest request = wordy_request();
  const GenerationResult result = generate_alone(model_, &tokenizer_, request, {.context = 30});
  EXPECT_EQ(result.ids.size() + request.prompt.size(), 30u);
  EXPECT_EQ(result.finish_reason, FinishReason::length);

  request.prompt = random_prompt(30, 4, model_.config.vocab_size);
  EXPECT_TRUE(generate_alone(model_, &tokenizer_, request, {.context = 30}).ids.empty());
}

TEST_F(EngineText, RequestsThatCannotBeDecodedAreErrors) {
  Engine engine(model_, &tokenizer_, {.context = 30});
  EXPECT_THROW(engine.submit(request_of({}, 5)), Error);
  EXPECT_THROW(engine.submit(request_of(random_prompt(31, 4, 320), 5)), Error);
  EXPECT_THROW(engine.submit(request_of({5, 320}, 5)), Error);
  EXPECT_THROW(engine.submit(request_of({5, -1}, 5)), Error);
  GenerationRequest empty_stop = request_of({5}, 5);
  empty_stop.stop = {""};
  EXPECT_THROW(engine.submit(empty_stop), Error);
  EXPECT_EQ(engine.unfinished(), 0);
  EXPECT_FALSE(engine.step());
}

TEST_F(EngineText, RowsAreTakenInTheOrderOfTheRequests) {
  Engine engine(model_, nullptr, {.rows = 2, .context = 64});
  std::vector<int> finished;
  // The first is long; the others must pass it by, one after another, in the second row.
  for (int i = 0; i < 4; ++i) {
    GenerationRequest request = request_of(random_prompt(3, i, 320), i == 0 ? 40 : 4);
    request.on_finish = [&finished, i](const GenerationResult&) { finished.push_back(i); };
    engine.submit(std::move(request));
  }
  engine.run();
  EXPECT_EQ(finished, (std::vector{1, 2, 3, 0}));
}

TEST(Engine, MultipliesByTheWeightsItIsGiven) {
  const Model model = load_model(fixtures() / "tiny-llama");
  const auto keys_with = [&](const PackedWeights* packed) {
    Engine engine(model, nullptr, {.context = 64, .packed = packed});
    generate_one(engine, request_of(random_prompt(20, 1, model.config.vocab_size), 1));
    const c10::InferenceMode inference;
    return engine.materialise().layers.back().keys.clone();
  };
  const PackedWeights native(model), int8(model, WeightFormat::int8);
  const at::Tensor expected = keys_with(nullptr), rounded = keys_with(&int8);
  EXPECT_TRUE(at::equal(keys_with(&native), expected));
  const double error = ((rounded - expected).abs().max() / expected.abs().max()).item<double>();
  EXPECT_GT(error, 1e-4);
  EXPECT_LT(error, 0.05);
}

}  // namespace
}  // namespace mambify
