#include "eval/tasks/likelihood.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "testing.h"

namespace mambify {
namespace {

TEST(EncodePair, EncodesContextAndContinuationTogether) {
  const Tokenizer tokenizer = Tokenizer::load(testing::fixtures() / "llama3-style-tokenizer");
  const ScoredText text = encode_pair(tokenizer, "The quick", " brown fox", 0);
  EXPECT_EQ(text.ids, tokenizer.encode_prompt("The quick brown fox"));
  EXPECT_EQ(text.scored_from, static_cast<int64_t>(tokenizer.encode_prompt("The quick").size()));

  const auto total = static_cast<int64_t>(text.ids.size());
  const ScoredText cut = encode_pair(tokenizer, "The quick", " brown fox", total - 1);
  EXPECT_EQ(cut.ids, std::vector<TokenId>(text.ids.begin() + 1, text.ids.end()));
  EXPECT_EQ(cut.scored_from, text.scored_from - 1);
  EXPECT_THROW(encode_pair(tokenizer, "The quick", " brown fox", total - text.scored_from), Error);

  const ScoredText bare = encode_pair(tokenizer, "", "fox", 0);
  EXPECT_EQ(bare.scored_from, 1);
  EXPECT_EQ(bare.ids.front(), *tokenizer.bos_id());
}

}  // namespace
}  // namespace mambify
