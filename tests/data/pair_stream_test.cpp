#include "data/pair_stream.h"

#include <algorithm>
#include <set>

#include "errors.h"
#include "testing.h"

namespace mambify {
namespace {

using ::testing::HasSubstr;

// The text of the tokens that a document counts.
std::string counted_text(const Document& document, const Tokenizer& tokenizer) {
  std::vector<TokenId> counted;
  for (size_t i = 0; i < document.ids.size(); ++i) {
    if (document.counts[i]) counted.push_back(document.ids[i]);
  }
  return tokenizer.decode(counted);
}

class TokenizedPairs : public ::testing::Test {
 protected:
  const Tokenizer tokenizer_ = Tokenizer::load(testing::fixtures() / "llama3-style-tokenizer");
  const std::vector<PreferencePair> pairs_ = {
      {{{"user", "Hi"}, {"assistant", "Hello!"}, {"user", "And now?"}},
       {{"assistant", "Good evening."}},
       {{"assistant", "No."}}},
      {{{"user", "Same?"}}, {{"assistant", "Yes"}}, {{"assistant", "Yes"}}}};
};

TEST_F(TokenizedPairs, CountTheAnswersAlone) {
  const PairDataset dataset = tokenize_pairs(pairs_, tokenizer_, "", 1000);
  ASSERT_EQ(dataset.pairs.size(), 1u);
  EXPECT_EQ(dataset.equal, 1);
  const std::string end =
      tokenizer_.decode(ChatTemplate::recognise(tokenizer_).turn_end_ids(tokenizer_));
  const DocumentPair& pair = dataset.pairs[0];
  EXPECT_EQ(counted_text(pair.chosen, tokenizer_), "Good evening." + end);
  EXPECT_EQ(counted_text(pair.rejected, tokenizer_), "No." + end);
  // Whole conversations in front of them.
  EXPECT_EQ(pair.chosen.ids.front(), pair.rejected.ids.front());
  EXPECT_GT(pair.chosen.ids.size(), 15u);
}

TEST_F(TokenizedPairs, AreLeftOutWhereTheyAreTooLong) {
  const auto longest = std::ssize(tokenize_pairs(pairs_, tokenizer_, "", 1000).pairs[0].chosen.ids);
  EXPECT_EQ(tokenize_pairs(pairs_, tokenizer_, "", longest).too_long, 0);
  EXPECT_ERROR(tokenize_pairs(pairs_, tokenizer_, "", longest - 1), HasSubstr("of 2 pairs none"),
               HasSubstr("1 have an answer"), HasSubstr("1 have two equal"));
}

// Pair p holds the tokens 100 p + i and 100 p + 50 + i; the last three of each side count.
PairDataset numbered(const std::vector<std::pair<int, int>>& lengths) {
  PairDataset dataset;
  for (size_t p = 0; p < lengths.size(); ++p) {
    const auto side = [&](int length, int from) {
      Document document;
      for (int i = 0; i < length; ++i) {
        document.ids.push_back(static_cast<TokenId>(100 * p + from + i));
        document.counts.push_back(i >= length - 3);
      }
      return document;
    };
    dataset.pairs.push_back({side(lengths[p].first, 0), side(lengths[p].second, 50)});
  }
  return dataset;
}

TEST(PairStream, ABatchHoldsWholePairsAsNeighbours) {
  const PairDataset dataset = numbered({{8, 12}, {20, 5}, {7, 7}, {30, 10}});
  PairStream stream(dataset, /*seed=*/1);
  for (int64_t position = 0; position < 8;) {
    const Batch batch = stream.batch(position, 60);
    EXPECT_LE(batch.tokens(), 60);
    const int64_t documents = batch.segments.documents();
    EXPECT_EQ(documents, 2 * (batch.next - position));
    for (int64_t d = 0; d < documents; ++d) {
      const int64_t begin = batch.segments.starts[d], end = batch.segments.starts[d + 1];
      const DocumentPair& pair = dataset.pairs[batch.ids[begin] / 100];
      const Document& side = d % 2 == 0 ? pair.chosen : pair.rejected;
      ASSERT_EQ(end - begin, std::ssize(side.ids));
      EXPECT_TRUE(std::equal(side.ids.begin(), side.ids.end(), batch.ids.begin() + begin));
      EXPECT_EQ(std::count(batch.weights.begin() + begin, batch.weights.begin() + end, 1.0f), 3);
      EXPECT_EQ(batch.labels[end - 2], batch.ids[end - 1]);
      EXPECT_EQ(batch.weights[end - 1], 0.0f);
      if (d % 2 == 1) {
        EXPECT_EQ(batch.ids[begin] / 100, batch.ids[batch.segments.starts[d - 1]] / 100);
      }
    }
    position = batch.next;
  }
}

TEST(PairStream, GivesEveryPairOncePerEpochInItsOwnOrder) {
  const PairDataset dataset = numbered(std::vector<std::pair<int, int>>(12, {5, 6}));
  PairStream stream(dataset, /*seed=*/2), jumping(dataset, /*seed=*/2);
  std::vector<std::vector<int64_t>> epochs(2);
  for (int64_t position = 0; position < 24; ++position) {
    const Batch batch = stream.batch(position, 11);
    ASSERT_EQ(batch.next, position + 1);
    epochs[position / 12].push_back(batch.ids[0] / 100);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  for (const auto& epoch : epochs) {
    EXPECT_EQ(std::set<int64_t>(epoch.begin(), epoch.end()).size(), 12u);
  }
  for (const int64_t position : {20, 3, 13}) {
    EXPECT_EQ(jumping.batch(position, 11).ids[0] / 100, epochs[position / 12][position % 12]);
  }
}

TEST(PairStream, APairThatDoesNotFitIsAnError) {
  const PairDataset dataset = numbered({{20, 20}});
  PairStream stream(dataset, /*seed=*/3);
  EXPECT_ERROR(stream.batch(0, 39), HasSubstr("40 tokens"), HasSubstr("39"));
}

}  // namespace
}  // namespace mambify
