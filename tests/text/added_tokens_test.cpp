#include "text/added_tokens.h"

#include <string>
#include <string_view>
#include <vector>

#include "errors.h"
#include "vocabulary.h"

namespace mambify {
namespace {

using testing::added_token;
using ::testing::HasSubstr;
using Strings = std::vector<std::string>;

// The parts of a text: tokens as "[content]", text between them as it is.
Strings parts(std::vector<AddedToken> tokens, std::string_view text) {
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i].id = static_cast<TokenId>(i);
  Strings found;
  AddedTokenFinder(tokens).split(text, [&](std::optional<TokenId> id, ByteRange range) {
    const std::string part(text.substr(range.begin, range.end - range.begin));
    found.push_back(id ? "[" + part + "]" : part);
  });
  return found;
}

// The expected parts of this file are those of Hugging Face tokenizers.
TEST(AddedTokens, TakesTheLongestAtTheLeftmostPlace) {
  EXPECT_EQ(parts({{.content = "<a>"}, {.content = "<a>b"}}, "x<a>bc<a>"),
            (Strings{"x", "[<a>b]", "c", "[<a>]"}));
  EXPECT_EQ(parts({{.content = "bc"}, {.content = "abd"}}, "abcabd"),
            (Strings{"a", "[bc]", "[abd]"}));
  EXPECT_EQ(parts({{.content = ""}}, "x"), (Strings{"x"}));
  EXPECT_EQ(parts({{.content = "a"}}, ""), (Strings{}));
}

TEST(AddedTokens, KeepsSingleWordsOutOfWords) {
  EXPECT_EQ(parts({{.content = "ab", .single_word = true}}, "ab abc cab ab_ ab-ab éab ab"),
            (Strings{"[ab]", " abc cab ab_ ", "[ab]", "-", "[ab]", " éab ", "[ab]"}));
}

TEST(AddedTokens, TakesWhiteSpaceAlong) {
  EXPECT_EQ(
      parts({{.content = "<m>", .lstrip = true, .rstrip = true}}, "x \u3000<m> \n y <m>  <m>z"),
      (Strings{"x", "[ \u3000<m> \n ]", "y", "[ <m>  ]", "[<m>]", "z"}));
}

TEST(AddedTokens, LooksForNormalizedTokensLast) {
  nlohmann::json document = testing::byte_document();
  document["added_tokens"] = {
      {{"content", "<n>"}, {"id", 256}, {"normalized", true}},
      {{"content", "n>"}, {"id", 257}, {"normalized", false}},
  };
  EXPECT_EQ(testing::pieces(testing::from_document(document), "x<n>y"),
            (Strings{"x", "<", "n>", "y"}));
}

TEST(AddedTokens, StandForTheirOwnCharacters) {
  nlohmann::json document = testing::byte_document();
  document["added_tokens"] = nlohmann::json::array({added_token("é <", 256)});
  const Tokenizer tokenizer = testing::from_document(document);
  EXPECT_EQ(tokenizer.token_bytes(256), "é <");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("aé <b")), "aé <b");
  EXPECT_TRUE(tokenizer.is_special(256));
  EXPECT_FALSE(tokenizer.is_special(255));
}

TEST(AddedTokens, RefusesIdsThatLie) {
  const auto expect = [](const nlohmann::json& added, const char* found) {
    nlohmann::json document = testing::byte_document();
    document["added_tokens"] = added;
    EXPECT_ERROR(testing::from_document(document), HasSubstr("test.json"), HasSubstr(found));
  };
  using nlohmann::json;
  const auto one = [](const json& token) { return json::array({token}); };
  expect(one(added_token("<a>", 65)), "the id 65 of \"<a>\" is also that of \"A\"");
  expect(one(added_token("A", 300)), "\"A\" has the id 300 here and 65 elsewhere");
  expect(json::array({added_token("<a>", 256), added_token("<b>", 256)}), "256");
  expect(json::array({added_token("<a>", 256), added_token("<a>", 257)}), "257");
  expect(one(added_token("<a>", 2'000'000'000)), "2000000000");
  expect(one(added_token("<a>", -1)), "-1");
  expect(one({{"content", "<a>"}}), "id");
  expect(one({{"id", 256}}), "content");
  expect(one("<a>"), "object");
  expect("<a>", "list");
}

}  // namespace
}  // namespace mambify
