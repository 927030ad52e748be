#include "eval/passes.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "random_model.h"

namespace mambify {
namespace {

using Ids = std::vector<TokenId>;

std::vector<TokenSpan> spans(const std::vector<Ids>& documents) {
  return {documents.begin(), documents.end()};
}

TEST(Passes, HoldWholeDocumentsInOrder) {
  const std::vector<Ids> documents = {Ids(3, 1), Ids(4, 2), Ids(9, 3), Ids(2, 4), Ids(1, 5)};
  const std::vector<Pass> passes = make_passes(spans(documents), 7);
  ASSERT_EQ(passes.size(), 3u);
  EXPECT_EQ(passes[0].segments.starts, (std::vector<int64_t>{0, 3, 7}));
  EXPECT_EQ(passes[1].first_document, 2);  // longer than a pass, so alone
  EXPECT_EQ(passes[1].segments.starts, (std::vector<int64_t>{0, 9}));
  EXPECT_EQ(passes[2].first_document, 3);
  EXPECT_TRUE(at::equal(passes[2].ids, at::tensor({4, 4, 5}, at::kLong)));
}

TEST(Passes, RefuseAnEmptyDocument) {
  const std::vector<Ids> documents = {Ids(3, 1), Ids()};
  EXPECT_THROW(make_passes(spans(documents)), Error);
}

TEST(Passes, RefuseAnIdOutsideTheVocabulary) {
  const Model model = testing::random_model(20, 1);
  for (const TokenId bad : {20, -1}) {
    const std::vector<Ids> documents = {{3, bad, 4}};
    EXPECT_THROW(pass_hidden(model, make_passes(spans(documents))[0], at::arange(2)), Error);
  }
}

TEST(Passes, RefuseASequenceLongerThanTheModelTakes) {
  const Model model = testing::random_model(20, 1);
  const std::vector<Ids> documents = {Ids(2, 1), Ids(256, 1), Ids(257, 1)};
  const std::vector<Pass> passes = make_passes(spans(documents), 258);
  EXPECT_NO_THROW(pass_hidden(model, passes[0], at::arange(2)));
  EXPECT_THROW(pass_hidden(model, passes[1], at::arange(2)), Error);
}

TEST(Passes, PredictWhatCountsWithinDocuments) {
  const std::vector<Ids> documents = {{10, 11, 12}, {13, 14}, {15}};
  const Pass pass = make_passes(spans(documents))[0];
  const Predictions all = predictions(pass, [](int64_t, int64_t) { return true; });
  EXPECT_TRUE(at::equal(all.rows, at::tensor({0, 1, 3}, at::kLong)));
  EXPECT_TRUE(at::equal(all.labels, at::tensor({11, 12, 14}, at::kLong)));
  const Predictions some = predictions(
      pass, [](int64_t document, int64_t token) { return document == 0 && token == 2; });
  EXPECT_TRUE(at::equal(some.rows, at::tensor({1}, at::kLong)));
  EXPECT_TRUE(at::equal(some.labels, at::tensor({12}, at::kLong)));
}

TEST(Passes, SlicedLogitsAreTheWholeLogits) {
  Model model = testing::random_model(40, 1);
  // a vocabulary so large that 64 MB hold few rows
  model.embedding = model.lm_head = at::randn({1'000'000, 32});
  model.config.vocab_size = 1'000'000;
  const at::Tensor hidden = at::randn({logits_rows(model.config) * 2 + 1, 32});
  ASSERT_LT(hidden.size(0), 40);
  int64_t rows = 0;
  for_each_logits(model, hidden, [&](int64_t first, const at::Tensor& slice) {
    EXPECT_EQ(first, rows);
    EXPECT_LE(slice.numel() * 4, int64_t{64} << 20);
    rows += slice.size(0);
  });
  EXPECT_EQ(rows, hidden.size(0));
}

TEST(Passes, ScoresAreNegativeLogProbabilities) {
  const Model model = testing::random_model(20, 1);
  const std::vector<Ids> documents = {{3, 1, 4, 1, 5}, {9, 2, 6}};
  const Pass pass = make_passes(spans(documents))[0];
  const Predictions next = predictions(pass, [](int64_t, int64_t) { return true; });
  const TokenScores scores = score_tokens(model, pass_hidden(model, pass, next.rows), next.labels);
  int64_t row = 0;
  for (const Ids& ids : documents) {
    const at::Tensor expected = testing::log_probabilities(model, ids);
    for (size_t t = 1; t < ids.size(); ++t, ++row) {
      const at::Tensor line = expected[static_cast<int64_t>(t) - 1];
      EXPECT_NEAR(scores.nll[row].item<double>(), -line[ids[t]].item<double>(), 1e-5);
      EXPECT_EQ(scores.is_first[row].item<bool>(), line.argmax().item<int64_t>() == ids[t]);
    }
  }
  EXPECT_EQ(row, scores.nll.numel());
}

}  // namespace
}  // namespace mambify
