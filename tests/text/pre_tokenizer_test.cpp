#include "text/pre_tokenizer.h"

#include <string>
#include <string_view>
#include <vector>

#include "errors.h"
#include "text/byte_level.h"

namespace mambify {
namespace {

using ::testing::HasSubstr;
using Strings = std::vector<std::string>;

const nlohmann::json kPlainBytes = {
    {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};

nlohmann::json sequence(const nlohmann::json& first, const nlohmann::json& last = kPlainBytes) {
  nlohmann::json list = nlohmann::json::array();
  list.push_back(first);
  list.push_back(last);
  return {{"type", "Sequence"}, {"pretokenizers", list}};
}

nlohmann::json split(const char* kind, const char* pattern, const char* behavior, bool invert) {
  return {{"type", "Split"},
          {"pattern", {{kind, pattern}}},
          {"behavior", behavior},
          {"invert", invert}};
}

Strings words(const nlohmann::json& description, std::string_view text) {
  Strings found;
  PreTokenizer(description, "test").split(text, [&](const PreToken& token) {
    found.emplace_back(token.word);
  });
  return found;
}

Strings split_words(const char* behavior, bool invert) {
  return words(sequence(split("String", "-", behavior, invert)), "-a--b-c--");
}

// The expected words of this file are those of Hugging Face tokenizers.
TEST(PreTokenizer, RegroupsMatchesByBehavior) {
  EXPECT_EQ(split_words("Removed", false), (Strings{"a", "b", "c"}));
  EXPECT_EQ(split_words("Removed", true), (Strings{"-", "-", "-", "-", "-", "-"}));
  const Strings isolated = {"-", "a", "-", "-", "b", "-", "c", "-", "-"};
  EXPECT_EQ(split_words("Isolated", false), isolated);
  EXPECT_EQ(split_words("Isolated", true), isolated);
  const Strings with_previous = {"-", "a-", "-", "b-", "c-", "-"};
  const Strings with_next = {"-a", "-", "-b", "-c", "-", "-"};
  EXPECT_EQ(split_words("MergedWithPrevious", false), with_previous);
  EXPECT_EQ(split_words("MergedWithPrevious", true), with_next);
  EXPECT_EQ(split_words("MergedWithNext", false), with_next);
  EXPECT_EQ(split_words("MergedWithNext", true), with_previous);
  const Strings contiguous = {"-", "a", "--", "b", "-", "c", "--"};
  EXPECT_EQ(split_words("Contiguous", false), contiguous);
  EXPECT_EQ(split_words("Contiguous", true), contiguous);
}

TEST(PreTokenizer, TakesAStringAsItIs) {
  EXPECT_EQ(words(sequence(split("String", "a.", "Isolated", false)), "a.ab a."),
            (Strings{"a.", "ab ", "a."}));
}

TEST(PreTokenizer, GoesOnBehindEmptyMatches) {
  EXPECT_EQ(words(sequence(split("Regex", R"(\s*)", "Isolated", false)), "a é  c"),
            (Strings{"a", " ", "é", "  ", "c"}));
}

TEST(PreTokenizer, CutsDigits) {
  const auto digits = [](bool each) {
    return sequence({{"type", "Digits"}, {"individual_digits", each}});
  };
  EXPECT_EQ(words(digits(false), "ab12 3٣c"), (Strings{"ab", "12", " ", "3٣", "c"}));
  EXPECT_EQ(words(digits(true), "ab12 3٣c"), (Strings{"ab", "1", "2", " ", "3", "٣", "c"}));
  // U+16FF4 is a number since Unicode 17.
  EXPECT_EQ(words(digits(true), "a\U00016FF4\U00016FF5"),
            (Strings{"a", "\U00016FF4", "\U00016FF5"}));
}

TEST(PreTokenizer, FollowsGpt2ByDefault) {
  const nlohmann::json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  EXPECT_EQ(words(bytes, "I'll  say\n\n it's 42!? "),
            (Strings{"I", "'ll", " ", " say", "\n\n", " it", "'s", " 42", "!?", " "}));
}

TEST(PreTokenizer, PutsASpaceInFrontOfEveryPiece) {
  const nlohmann::json description =
      sequence({{"type", "Digits"}, {"individual_digits", true}}, {{"type", "ByteLevel"}});
  EXPECT_EQ(words(description, "ab12 c"), (Strings{" ab", " 1", " 2", " c"}));
}

TEST(PreTokenizer, SaysWhereAWordStandsInTheText) {
  const nlohmann::json description =
      sequence({{"type", "Digits"}, {"individual_digits", true}}, {{"type", "ByteLevel"}});
  std::vector<size_t> bounds;
  PreTokenizer(description, "test").split("ab1 c", [&](const PreToken& token) {
    bounds.insert(bounds.end(), {token.range.begin, token.range.end});
  });
  EXPECT_EQ(bounds, (std::vector<size_t>{0, 2, 2, 3, 3, 5}));
}

TEST(PreTokenizer, NamesWhatIsNotSupported) {
  const auto expect = [](const nlohmann::json& description, const char* found) {
    EXPECT_ERROR(PreTokenizer(description, "f.json"), HasSubstr("f.json"), HasSubstr(found));
  };
  expect(nullptr, "no pre_tokenizer");
  expect({{"type", "Metaspace"}}, "Metaspace");
  expect({{"type", "Digits"}}, "byte-level");
  expect(sequence(kPlainBytes), "found ByteLevel");
  expect(sequence({{"type", "Punctuation"}}), "Punctuation");
  expect(sequence(split("Regex", "x", "Halved", false)), "Halved");
  expect(sequence(split("Regex", R"(\w)", "Isolated", false)), R"(\w)");
  expect(sequence(split("Glob", "x", "Isolated", false)), "String");
  expect({{"type", "Sequence"}, {"pretokenizers", nlohmann::json::array()}}, "at least one");
  expect("ByteLevel", "object");
}

}  // namespace
}  // namespace mambify
