#include "data/packing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace mambify {
namespace {

// Document d holds the tokens 100 d, 100 d + 1, ..., so that a token tells where it is from. In odd
// documents every second token counts.
Dataset numbered(const std::vector<int>& lengths) {
  Dataset dataset;
  for (size_t d = 0; d < lengths.size(); ++d) {
    Document document;
    for (int i = 0; i < lengths[d]; ++i) {
      document.ids.push_back(static_cast<TokenId>(100 * d + i));
      document.counts.push_back(d % 2 == 0 || i % 2 == 0);
    }
    dataset.documents.push_back(document);
  }
  return dataset;
}

TEST(PackedStream, GivesEveryTokenOncePerEpoch) {
  const Dataset dataset = numbered({3, 40, 1, 7, 12});
  PackedStream stream(dataset, 16, /*seed=*/1);
  std::map<int64_t, int> seen;
  for (int64_t position = 0; position < 2 * 63; position += 9) {
    for (int64_t id : stream.batch(position, 9).ids) ++seen[id];
  }
  EXPECT_EQ(seen.size(), 63u);
  for (const auto& [id, count] : seen) EXPECT_EQ(count, 2) << id;
}

TEST(PackedStream, LabelsAreTheNextTokenOfTheSameDocument) {
  const Dataset dataset = numbered({3, 40, 1, 7, 12});
  PackedStream stream(dataset, 16, /*seed=*/2);
  for (int64_t position = 0; position < 126; position += 21) {
    const Batch batch = stream.batch(position, 21);
    ASSERT_EQ(batch.tokens(), 21);
    for (int64_t i = 0; i < 21; ++i) {
      const int64_t document = batch.ids[i] / 100, index = batch.ids[i] % 100;
      const bool last = index + 1 == std::ssize(dataset.documents[document].ids);
      EXPECT_EQ(batch.labels[i], last ? 0 : batch.ids[i] + 1);
      const bool counts = !last && (document % 2 == 0 || (index + 1) % 2 == 0);
      EXPECT_EQ(batch.weights[i], counts ? 1.0f : 0.0f);
    }
  }
}

TEST(PackedStream, SegmentsFollowDocumentsAndTheirPieces) {
  const Dataset dataset = numbered({40, 5, 3});
  PackedStream stream(dataset, 16, /*seed=*/3);
  const Batch batch = stream.batch(0, 48);
  std::vector<int64_t> expected;
  for (int64_t i = 0; i < 48; ++i) {
    if (batch.ids[i] % 100 % 16 == 0) expected.push_back(i);
  }
  expected.push_back(48);
  EXPECT_EQ(batch.segments.starts, expected);
  EXPECT_EQ(batch.segments.documents(), 5);
}

TEST(PackedStream, IsAFunctionOfThePosition) {
  const Dataset dataset = numbered({30, 20, 11, 9, 17});
  PackedStream forward(dataset, 8, /*seed=*/4), jumping(dataset, 8, /*seed=*/4);
  std::vector<int64_t> ids;
  for (int64_t position = 0; position < 400; position += 10) {
    const Batch batch = forward.batch(position, 10);
    ids.insert(ids.end(), batch.ids.begin(), batch.ids.end());
  }
  for (int64_t position : {350, 0, 87, 86, 200}) {
    const Batch batch = jumping.batch(position, 50);
    EXPECT_TRUE(std::equal(batch.ids.begin(), batch.ids.end(), ids.begin() + position));
  }
}

TEST(PackedStream, EpochsAndSeedsHaveOrdersOfTheirOwn) {
  const Dataset dataset = numbered(std::vector<int>(20, 4));
  PackedStream one(dataset, 8, /*seed=*/5), other(dataset, 8, /*seed=*/6);
  const auto first = one.batch(0, 80).ids, second = one.batch(80, 80).ids;
  EXPECT_NE(first, second);
  EXPECT_NE(first, other.batch(0, 80).ids);
  EXPECT_TRUE(std::is_permutation(first.begin(), first.end(), second.begin()));
}

TEST(PackedStream, OneTokenDocumentsTeachNothing) {
  const Dataset dataset = numbered({1, 1, 1});
  PackedStream stream(dataset, 8, /*seed=*/7);
  const Batch batch = stream.batch(0, 6);
  EXPECT_EQ(batch.total_weight(), 0);
  EXPECT_EQ(batch.segments.documents(), 6);
}

}  // namespace
}  // namespace mambify
