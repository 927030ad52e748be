#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "testing.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include "vocabulary.h"

namespace mambify {
namespace {

TEST(StreamDecoder, HoldsBackUnfinishedCharacters) {
  const Tokenizer tokenizer = testing::from_document(testing::byte_document());
  StreamDecoder decoder(tokenizer);
  std::vector<std::string> parts;
  for (const TokenId id :
       std::initializer_list<TokenId>{'a', 0xF0, 0x9F, 0x99, 0x82, 0xE2, 0x82, 'z', 0xC3}) {
    parts.push_back(decoder.push(id));
  }
  EXPECT_EQ(parts, (std::vector<std::string>{"a", "", "", "", "🙂", "", "", "\uFFFDz", ""}));
  EXPECT_EQ(decoder.finish(), "\uFFFD");
  EXPECT_EQ(decoder.finish(), "");
}

// Whatever the ids, the parts are valid text and together the decoded whole.
TEST(StreamDecoder, AddsUpToTheWholeForAnyTokens) {
  const Tokenizer bytes = testing::from_document(testing::byte_document());
  const Tokenizer words = Tokenizer::load(testing::fixtures() / "llama3-style-tokenizer");
  std::mt19937 random(7);
  for (const Tokenizer* tokenizer : {&bytes, &words}) {
    for (int trial = 0; trial < 300; ++trial) {
      std::vector<TokenId> ids(random() % 40);
      for (TokenId& id : ids) {
        id = static_cast<TokenId>(random() % static_cast<uint64_t>(tokenizer->vocab_size()));
      }
      StreamDecoder decoder(*tokenizer);
      std::string whole;
      for (const TokenId id : ids) {
        const std::string part = decoder.push(id);
        EXPECT_TRUE(is_valid_utf8(part));
        whole += part;
      }
      whole += decoder.finish();
      EXPECT_EQ(whole, tokenizer->decode(ids));
    }
  }
}

}  // namespace
}  // namespace mambify
