#include "eval/agreement.h"

#include <gtest/gtest.h>

#include "convert/convert.h"
#include "core/error.h"
#include "eval/greedy_match.h"
#include "eval/statistics.h"
#include "random_model.h"

namespace mambify {
namespace {

Document document(std::vector<TokenId> ids, std::vector<bool> counts) {
  return {std::move(ids), std::move(counts)};
}

std::vector<Document> documents() {
  return {document({3, 14, 15, 9, 26, 5}, {false, false, false, true, true, false}),
          document({27, 18, 28, 18}, {true, true, true, true}),
          document({4, 5, 9, 0, 4, 5, 2, 3}, {true, false, true, true, false, true, false, true})};
}

std::vector<TokenId> greedy_alone(const Model& model, std::vector<TokenId> ids, int64_t tokens) {
  std::vector<TokenId> written;
  for (int64_t i = 0; i < tokens; ++i) {
    const at::Tensor log_p = testing::log_probabilities(model, ids);
    const auto next = static_cast<TokenId>(log_p[log_p.size(0) - 1].argmax().item<int64_t>());
    ids.push_back(next);
    written.push_back(next);
  }
  return written;
}

TEST(Agreement, OfAModelWithItselfIsPerfect) {
  const Model model = testing::random_model(30, 1);
  const AgreementResult result = agreement(model, model, documents(), {.greedy_tokens = 12});
  EXPECT_EQ(result.kl, 0);
  EXPECT_EQ(result.top1, 1);
  EXPECT_EQ(result.tokens, 2 + 3 + 4);
  EXPECT_EQ(result.greedy_match, 12);
  EXPECT_EQ(result.greedy_prompts, 3);
}

TEST(Agreement, IsTheMeanOverCountedTokens) {
  const Model teacher = testing::random_model(30, 1), student = testing::random_model(30, 2);
  double kl = 0;
  int64_t same = 0, tokens = 0;
  for (const Document& d : documents()) {
    const at::Tensor log_p = testing::log_probabilities(teacher, d.ids);
    const at::Tensor log_q = testing::log_probabilities(student, d.ids);
    for (size_t t = 1; t < d.ids.size(); ++t) {
      if (!d.counts[t]) continue;
      const at::Tensor p = log_p[static_cast<int64_t>(t) - 1];
      const at::Tensor q = log_q[static_cast<int64_t>(t) - 1];
      kl += (p.exp() * (p - q)).sum().item<double>();
      same += p.argmax().item<int64_t>() == q.argmax().item<int64_t>();
      ++tokens;
    }
  }
  const AgreementResult result = agreement(student, teacher, documents(), {.greedy_prompts = 0});
  EXPECT_GT(kl, 0.1);
  EXPECT_NEAR(result.kl, kl / static_cast<double>(tokens), 1e-5);
  EXPECT_NEAR(result.top1, static_cast<double>(same) / static_cast<double>(tokens), 1e-12);
  EXPECT_EQ(result.greedy_prompts, 0);
}

TEST(Agreement, ErrorsAreThoseOverDocuments) {
  const Model teacher = testing::random_model(30, 1), student = testing::random_model(30, 2);
  std::vector<double> kl, same, tokens;
  for (const Document& one : documents()) {
    const AgreementResult alone =
        agreement(student, teacher, std::vector<Document>{one}, {.greedy_prompts = 0});
    tokens.push_back(static_cast<double>(alone.tokens));
    kl.push_back(alone.kl * tokens.back());
    same.push_back(alone.top1 * tokens.back());
    EXPECT_EQ(alone.kl_error, 0);
  }
  const AgreementResult all = agreement(student, teacher, documents(), {.greedy_prompts = 0});
  EXPECT_NEAR(all.kl_error, estimate_ratio(kl, tokens).error, 1e-6);
  EXPECT_GT(all.kl_error, 0);
  EXPECT_NEAR(all.top1_error, estimate_ratio(same, tokens).error, 1e-12);
}

TEST(Agreement, StopsAfterMaxTokensAndRefusesNothingToCompare) {
  const Model model = testing::random_model(30, 1);
  EXPECT_EQ(agreement(model, model, documents(), {.max_tokens = 7, .greedy_prompts = 0}).tokens, 5);
  const std::vector<Document> none = {document({1, 2, 3}, {true, false, false})};
  EXPECT_THROW(agreement(model, model, none, {}), Error);
  EXPECT_THROW(agreement(model, testing::random_model(31, 1), documents(), {}), Error);
}

TEST(Agreement, GreedyPromptIsWhatStandsBeforeTheAnswer) {
  // teacher and student differ, so the match depends on which prompt is continued
  const Model teacher = testing::random_model(30, 1);
  const Model student = convert(teacher, {.attention_layers = {0, 1}});
  const std::vector<std::vector<TokenId>> prompts = {{3, 14, 15}, {27, 18}, {4, 5}};
  double sum = 0;
  for (const auto& prompt : prompts) {
    const auto expected = greedy_alone(teacher, prompt, 20),
               found = greedy_alone(student, prompt, 20);
    int64_t length = 0;
    while (length < 20 && expected[length] == found[length]) ++length;
    sum += static_cast<double>(length);
  }
  const AgreementResult result = agreement(student, teacher, documents(), {.greedy_tokens = 20});
  EXPECT_NEAR(result.greedy_match, sum / 3, 1e-12);
}

TEST(GreedyContinuations, EqualThoseOfEachPromptAlone) {
  const Model attention = testing::random_model(30, 1);
  const std::vector<std::vector<TokenId>> prompts = {{3, 14, 15, 9}, {27}, {4, 5, 9, 0, 4, 5, 2}};
  for (const Model& model :
       {attention, convert(attention, {.attention_layers = {1}}),
        convert(attention, {.attention_layers = {}, .mixer = MixerKind::mamba1})}) {
    const auto continuations = greedy_continuations(model, prompts, 10);
    for (size_t i = 0; i < prompts.size(); ++i) {
      EXPECT_EQ(continuations[i], greedy_alone(model, prompts[i], 10)) << i;
    }
  }
}

}  // namespace
}  // namespace mambify
