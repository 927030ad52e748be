#include "eval/needle/needle.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "eval/needle/key_likelihood.h"
#include "eval/needle/needle_result.h"
#include "random_model.h"
#include "testing.h"

namespace mambify {
namespace {

const Tokenizer& tokenizer() {
  static const Tokenizer loaded = Tokenizer::load(testing::fixtures() / "llama3-style-tokenizer");
  return loaded;
}

// A model without memory: behind chain[i] it says chain[i + 1], whatever stood before.
Model model_that_says(const std::vector<TokenId>& chain) {
  const int64_t vocab_size = tokenizer().vocab_size();
  Model model = testing::random_model(vocab_size, 3);
  for_each_parameter(model, [](const std::string& name, at::Tensor& tensor) {
    if (name.starts_with("blocks.")) tensor = at::zeros_like(tensor);
  });
  model.config.tie_embeddings = false;
  model.lm_head = at::zeros_like(model.embedding);
  for (size_t i = 0; i + 1 < chain.size(); ++i) {
    const at::Tensor before = model.embedding[chain[i]];
    model.lm_head[chain[i + 1]].add_(before / before.norm());
  }
  return model;
}

NeedleOptions small_options() {
  return {.lengths = {160},
          .depths = {0, 1},
          .trials = 3,
          .key_digits = 3,
          .batch = 2,
          .candidates = 4};
}

TEST(NeedlePrompt, HasTheLengthAskedForAndTheKeyAtItsDepth) {
  const NeedleOptions options = small_options();
  for (const int64_t length : {120, 700}) {
    double last = -1;
    for (const double depth : {0.0, 0.5, 1.0}) {
      const NeedlePrompt prompt =
          make_needle_prompt(options, Haystack(), tokenizer(), nullptr, length, depth, 0);
      EXPECT_LE(std::ssize(prompt.ids), length);
      EXPECT_GT(std::ssize(prompt.ids), length - 40);
      const std::string text = tokenizer().decode(prompt.ids);
      EXPECT_TRUE(text.ends_with("What is the pass key? The pass key is"));
      const size_t begin = text.find("\n\n") + 2, end = text.find("\n\nWhat");
      const size_t key = text.find("The pass key is " + prompt.key + ".");
      ASSERT_NE(key, std::string::npos);
      const double place = static_cast<double>(key - begin) / static_cast<double>(end - begin);
      EXPECT_GT(place, last);
      last = place;
      if (depth == 0) {
        EXPECT_EQ(key, begin);
      }
      if (depth == 0.5 && length == 700) {
        EXPECT_NEAR(place, 0.5, 0.06);
      }
      if (depth == 1) {
        EXPECT_TRUE(text.substr(0, end).ends_with(prompt.key + " is the pass key."));
      }
    }
  }
}

TEST(NeedlePrompt, DiffersByTrialAndNotByWhatElseIsMeasured) {
  NeedleOptions options = small_options();
  std::set<std::string> keys, texts;
  for (int64_t trial = 0; trial < 8; ++trial) {
    const NeedlePrompt prompt =
        make_needle_prompt(options, Haystack(), tokenizer(), nullptr, 160, 0.5, trial);
    keys.insert(prompt.key);
    texts.insert(tokenizer().decode(prompt.ids).substr(0, 160));
    EXPECT_EQ(prompt.key.size(), 3u);
    std::set<std::string> all(prompt.others.begin(), prompt.others.end());
    all.insert(prompt.key);
    EXPECT_EQ(all.size(), 4u);
  }
  EXPECT_GT(keys.size(), 6u);
  EXPECT_EQ(texts.size(), 8u);
  const auto before = make_needle_prompt(options, Haystack(), tokenizer(), nullptr, 160, 0.5, 2);
  options.lengths = {90, 160};
  options.trials = 10;
  EXPECT_EQ(make_needle_prompt(options, Haystack(), tokenizer(), nullptr, 160, 0.5, 2).ids,
            before.ids);
}

TEST(NeedlePrompt, IsAskedByTheChatTemplate) {
  const ChatTemplate chat = ChatTemplate::named("llama3", tokenizer());
  const std::string text = tokenizer().decode(
      make_needle_prompt(small_options(), Haystack(), tokenizer(), &chat, 160, 0.5, 0).ids);
  EXPECT_THAT(text, ::testing::HasSubstr("<|start_header_id|>user<|end_header_id|>"));
  EXPECT_TRUE(text.ends_with("assistant<|end_header_id|>\n\nThe pass key is"));
}

TEST(NeedlePrompt, OfALengthThatIsTooShortIsRefused) {
  EXPECT_THROW(make_needle_prompt(small_options(), Haystack(), tokenizer(), nullptr, 40, 0.5, 0),
               Error);
}

TEST(AnsweredKey, IsTheFirstRunOfDigits) {
  EXPECT_EQ(answered_key(" 48213. Remember 7"), "48213");
  EXPECT_EQ(answered_key(" **12**"), "12");
  EXPECT_EQ(answered_key("482135"), "482135");
  EXPECT_EQ(answered_key("none"), "");
}

TEST(Needle, CountsTheAnswersThatHoldTheKey) {
  const NeedleOptions options = small_options();
  const TokenId stop = *tokenizer().eos_id();
  // Says the key of the first question whose tokens are all different.
  std::vector<TokenId> chain;
  std::string said;
  for (int64_t trial = 0; trial < options.trials && said.empty(); ++trial) {
    const NeedlePrompt prompt =
        make_needle_prompt(options, Haystack(), tokenizer(), nullptr, 160, 0, trial);
    chain = key_tokens(prompt.key, tokenizer());
    chain.insert(chain.begin(), prompt.ids.back());
    chain.push_back(stop);
    if (std::set<TokenId>(chain.begin(), chain.end()).size() == chain.size()) said = prompt.key;
  }
  ASSERT_NE(said, "");
  const Model model = model_that_says(chain);
  const PackedWeights packed(model);
  const std::vector<NeedleCell> cells = run_needle({.model = model,
                                                    .packed = packed,
                                                    .tokenizer = tokenizer(),
                                                    .chat = nullptr,
                                                    .stop_ids = {stop},
                                                    .name = "needle"},
                                                   Haystack(), options);
  ASSERT_EQ(cells.size(), 2u);
  int64_t hits = 0;
  for (const NeedleCell& cell : cells) {
    ASSERT_EQ(std::ssize(cell.trials), options.trials);
    for (int64_t trial = 0; trial < options.trials; ++trial) {
      const NeedlePrompt prompt =
          make_needle_prompt(options, Haystack(), tokenizer(), nullptr, 160, cell.depth, trial);
      const NeedleTrial& found = cell.trials[trial];
      EXPECT_EQ(found.hit, prompt.key == said);
      EXPECT_EQ(found.prompt_tokens, std::ssize(prompt.ids));
      if (found.hit) {
        EXPECT_TRUE(found.ranked_first);
      }
      hits += found.hit ? 1 : 0;
    }
  }
  EXPECT_GE(hits, 1);
}

TEST(Needle, ALengthThatDoesNotFitIntoMemoryHasTheErrorInItsCells) {
  Model model = testing::random_model(tokenizer().vocab_size(), 5);
  const PackedWeights packed(model);
  model.config.attention.head_dim = int64_t{1} << 40;  // its cache: petabytes
  const std::vector<NeedleCell> cells = run_needle({.model = model,
                                                    .packed = packed,
                                                    .tokenizer = tokenizer(),
                                                    .chat = nullptr,
                                                    .stop_ids = {},
                                                    .name = "needle"},
                                                   Haystack(), small_options());
  ASSERT_EQ(cells.size(), 2u);
  for (const NeedleCell& cell : cells) {
    EXPECT_EQ(cell.length, 160);
    EXPECT_TRUE(cell.trials.empty());
    EXPECT_THAT(cell.error, ::testing::HasSubstr("160 tokens need"));
  }
}

TEST(KeyLikelihoods, AreThoseOfThePromptAndEachKeyRead) {
  const Model model = testing::random_model(tokenizer().vocab_size(), 5);
  const NeedleOptions options = small_options();
  std::vector<NeedlePrompt> prompts;
  for (int64_t trial = 0; trial < 3; ++trial) {
    prompts.push_back(make_needle_prompt(options, Haystack(), tokenizer(), nullptr,
                                         trial == 1 ? 110 : 160, 0.5, trial));
  }
  const auto nll_of = [&](const NeedlePrompt& prompt, const std::string& key) {
    std::vector<TokenId> ids = prompt.ids;
    const std::vector<TokenId> tokens = key_tokens(key, tokenizer());
    ids.insert(ids.end(), tokens.begin(), tokens.end());
    const at::Tensor log_p = testing::log_probabilities(model, ids);
    double sum = 0;
    for (size_t i = prompt.ids.size(); i < ids.size(); ++i) {
      sum -= log_p[static_cast<int64_t>(i) - 1][ids[i]].item<double>();
    }
    return sum;
  };
  const auto rows = make_model_rows(model, 3, 200, /*max_drafts=*/8);
  const std::vector<KeyLikelihood> found = key_likelihoods(*rows, prompts, tokenizer());
  ASSERT_EQ(found.size(), prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) {
    const double right = nll_of(prompts[i], prompts[i].key);
    const auto tokens = static_cast<double>(key_tokens(prompts[i].key, tokenizer()).size());
    EXPECT_NEAR(found[i].right_nll, right / tokens, 1e-4);
    const bool is_first = std::ranges::all_of(
        prompts[i].others, [&](const std::string& key) { return right < nll_of(prompts[i], key); });
    EXPECT_EQ(found[i].right_is_first, is_first);
  }
}

TEST(NeedleResult, TellsRatesByLengthAndWhatIsBeyondThePositions) {
  const NeedleTrial hit{.hit = true, .ranked_first = true, .key_nll = 1, .prompt_tokens = 100};
  const NeedleTrial miss{.hit = false, .ranked_first = true, .key_nll = 3, .prompt_tokens = 98};
  const std::vector<NeedleCell> cells = {
      {.length = 100, .depth = 0.5, .trials = {hit, hit}, .error = ""},
      {.length = 400, .depth = 0.5, .trials = {hit, miss}, .error = ""},
      {.length = 900, .depth = 0.5, .trials = {}, .error = "too large"}};
  const nlohmann::json json =
      to_json(cells, {.training_length = 100, .max_positions = 256, .likelihood = true});
  EXPECT_EQ(json["overall"]["n"], 4);
  EXPECT_EQ(json["overall"]["hits"], 3);
  EXPECT_EQ(json["within_training_length"]["rate"], 1.0);
  EXPECT_EQ(json["beyond_training_length"]["rate"], 0.5);
  EXPECT_EQ(json["beyond_training_length"]["stderr"], 0.5);
  EXPECT_EQ(json["beyond_training_length"]["key_nll"], 2.0);
  EXPECT_EQ(json["cells"][1]["prompt_tokens"], 99.0);
  EXPECT_FALSE(json["cells"][0].contains("beyond_positions"));
  EXPECT_EQ(json["cells"][1]["beyond_positions"], true);
  EXPECT_EQ(json["cells"][2]["n"], 0);
  EXPECT_EQ(json["cells"][2]["error"], "too large");
  EXPECT_FALSE(to_json(cells, {.training_length = 100})["overall"].contains("ranked_first"));
}

}  // namespace
}  // namespace mambify
