// The contract of Acceptance::distribution: whatever a drafter guesses, sequences are distributed
// as the target's own. Held to it by a chi-squared test of whole sequences through the engine.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "convert/convert.h"
#include "decode/draft_vocabulary.h"
#include "decode/engine.h"
#include "random_model.h"

namespace mambify {
namespace {

// Every sequence: one token behind the prompt, then a pass with two guesses and what follows them.
constexpr int64_t kVocabulary = 7, kTokens = 4, kGuesses = 2;
// Half a million draws.
constexpr uint32_t kSequences = 125'000;
constexpr int64_t kRows = 250;
constexpr TokenId kPrompt = 3;

struct Filter {
  std::string name;
  SamplingOptions sampling;
};

// For the names of tests.
void PrintTo(const Filter& filter, std::ostream* out) { *out << filter.name; }

// By sequence of kTokens tokens.
using Counts = std::map<std::vector<TokenId>, double>;

// softmax of what the filters keep
std::map<TokenId, double> probabilities(std::span<const float> logits,
                                        const SamplingOptions& sampling) {
  std::map<TokenId, double> kept;
  double total = 0;
  for (const Candidate& candidate : filter_logits(logits, sampling)) {
    total += kept[candidate.id] = std::exp(candidate.score);
  }
  for (auto& [token, probability] : kept) probability /= total;
  return kept;
}

// How often each sequence is expected among `count`.
void expect_behind(const Model& target, const SamplingOptions& sampling,
                   std::vector<int32_t> tokens, double count, Counts& expected) {
  if (static_cast<int64_t>(tokens.size()) == 1 + kTokens) {
    expected[{tokens.begin() + 1, tokens.end()}] = count;
    return;
  }
  const at::Tensor logits =
      testing::log_probabilities(target, tokens).select(0, tokens.size() - 1).to(at::kFloat);
  const std::span<const float> row(logits.const_data_ptr<float>(), kVocabulary);
  for (const auto& [token, probability] : probabilities(row, sampling)) {
    tokens.push_back(token);
    expect_behind(target, sampling, tokens, count * probability, expected);
    tokens.pop_back();
  }
}

struct Observed {
  Counts counts;
  double acceptance = 0;
  double drafted = 0;  // guesses of each sequence
};

Observed observe(const Model& target, Drafter& drafter, const SamplingOptions& sampling,
                 double min_probability) {
  Engine engine(target, /*tokenizer=*/nullptr,
                {.rows = kRows,
                 .context = 1 + kTokens,
                 .min_prefill = kRows,
                 .drafter = &drafter,
                 .draft_length = kGuesses,
                 .min_draft_probability = min_probability,
                 .acceptance = Acceptance::distribution});
  Observed observed;
  double drafted = 0, accepted = 0;
  for (uint32_t sequence = 0; sequence < kSequences; ++sequence) {
    GenerationRequest request;
    request.prompt = {kPrompt};
    request.max_tokens = kTokens;
    request.sampling = sampling;
    request.sequence = sequence;
    request.on_finish = [&](const GenerationResult& result) {
      observed.counts[result.ids] += 1;
      drafted += static_cast<double>(result.drafted);
      accepted += static_cast<double>(result.accepted);
    };
    engine.submit(std::move(request));
  }
  engine.run();
  observed.acceptance = accepted / drafted;
  observed.drafted = drafted / kSequences;
  return observed;
}

// How many standard deviations chi squared lies above its mean, by the approximation of Wilson and
// Hilferty; 3.09 is p = 0.001. Cells that expect fewer than 5 are taken together.
double deviation(const Counts& observed, const Counts& expected) {
  double chi_squared = 0, cells = 0, rare_expected = 0, rare_observed = 0;
  const auto add = [&](double seen, double mean) {
    chi_squared += (seen - mean) * (seen - mean) / mean;
    cells += 1;
  };
  for (const auto& [tokens, mean] : expected) {
    const auto found = observed.find(tokens);
    const double seen = found != observed.end() ? found->second : 0;
    if (mean >= 5) {
      add(seen, mean);
    } else {
      rare_expected += mean;
      rare_observed += seen;
    }
  }
  if (rare_expected > 0) add(rare_observed, rare_expected);
  const double freedom = cells - 1, spread = 2 / (9 * freedom);
  return (std::cbrt(chi_squared / freedom) - (1 - spread)) / std::sqrt(spread);
}

// One that gives every token some chance, so that two of them agree now and then.
Model undecided_model(uint64_t seed) {
  Model model = testing::random_model(kVocabulary, seed);
  model.final_norm *= 0.3;
  return model;
}

// least: share of the guesses that are accepted; at most 0.8 are. Returns how many guesses there
// were of each sequence.
double expect_the_targets(Drafter& drafter, const SamplingOptions& sampling, double least,
                          double min_probability = 0) {
  // Attention and Mamba-2 layers.
  const Model target = convert(undecided_model(1), {.attention_layers = {1}});
  Counts expected;
  expect_behind(target, sampling, {kPrompt}, kSequences, expected);
  const Observed observed = observe(target, drafter, sampling, min_probability);
  for (const auto& [tokens, count] : observed.counts) {
    EXPECT_TRUE(expected.contains(tokens)) << count << " sequences that the filters rule out";
  }
  EXPECT_GT(observed.acceptance, least);
  EXPECT_LT(observed.acceptance, 0.8);
  EXPECT_LT(deviation(observed.counts, expected), 3.09);
  return observed.drafted;
}

class Distribution : public ::testing::TestWithParam<Filter> {};

TEST_P(Distribution, IsTheTargetsWithAModelsGuesses) {
  const Model draft = undecided_model(2);
  const auto drafter = model_drafter(draft, kRows, 1 + kTokens, kGuesses);
  expect_the_targets(*drafter, GetParam().sampling, 0.2);
}

// Drafts of two tokens, of one, and of none.
TEST_P(Distribution, IsTheTargetsWithGuessesThatADraftIsCertainOf) {
  const Model draft = undecided_model(5);
  const auto drafter = model_drafter(draft, kRows, 1 + kTokens, kGuesses);
  const double drafted = expect_the_targets(*drafter, GetParam().sampling, 0.2, 0.3);
  EXPECT_GT(drafted, 0.3);
  EXPECT_LT(drafted, 1.7);  // where it never stops, 2 or more
}

// Tokens outside the set are not guessed and have their share of what is drawn all the same.
TEST_P(Distribution, IsTheTargetsWithGuessesAmongSomeTokens) {
  Model draft = undecided_model(2);
  const std::vector<TokenId> tokens{0, 2, 3, 6};
  keep_outputs(draft, tokens);
  const auto drafter = model_drafter(draft, kRows, 1 + kTokens, kGuesses, nullptr, tokens);
  expect_the_targets(*drafter, GetParam().sampling, 0.1);
}

// Guesses that no distribution comes with: always the same in the same place.
class FixedDrafter : public Drafter {
 public:
  std::vector<Draft> draft(std::span<const DraftRequest> requests) override {
    std::vector<Draft> drafts;
    for (const DraftRequest& request : requests) {
      Draft& draft = drafts.emplace_back();
      TokenId token = request.tokens.back();
      for (int64_t i = 0; i < request.length; ++i) {
        draft.tokens.push_back(token = static_cast<TokenId>((3 * token + 1) % kVocabulary));
      }
    }
    return drafts;
  }
};

TEST(DistributionOfFixedGuesses, IsTheTargets) {
  FixedDrafter drafter;
  expect_the_targets(drafter, {.temperature = 1, .seed = 16}, 0.1);
}

INSTANTIATE_TEST_SUITE_P(
    Filters, Distribution,
    ::testing::Values(Filter{"None", {.temperature = 1, .seed = 11}},
                      Filter{"Temperature", {.temperature = 1.7, .seed = 12}},
                      Filter{"TopK", {.temperature = 1, .top_k = 4, .seed = 13}},
                      Filter{"TopP", {.temperature = 1, .top_p = 0.9, .seed = 14}},
                      Filter{"MinP", {.temperature = 1, .min_p = 0.1, .seed = 15}}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace mambify
