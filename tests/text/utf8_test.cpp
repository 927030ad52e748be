#include "text/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace mambify {
namespace {

using namespace std::string_literals;

constexpr const char* kReplacement = "\xEF\xBF\xBD";

TEST(Utf8, KeepsWhatIsValid) {
  for (const std::string& text :
       {""s, "abc"s, "\0\x7F"s, "\xC2\x80"s, "\xDF\xBF"s, "\xE0\xA0\x80"s, "\xED\x9F\xBF"s,
        "\xEE\x80\x80"s, "\xF0\x90\x80\x80"s, "\xF4\x8F\xBF\xBF"s}) {
    EXPECT_TRUE(is_valid_utf8(text));
    EXPECT_EQ(to_valid_utf8(text), text);
  }
}

// One U+FFFD for each maximal subpart: table 3-8 of the Unicode standard and its neighbours.
TEST(Utf8, ReplacesEachMaximalInvalidSequenceOnce) {
  const auto expect = [](const std::string& bytes, const std::string& pattern) {
    std::string expected;
    for (const char c : pattern)
      expected += c == '?' ? std::string(kReplacement) : std::string(1, c);
    EXPECT_FALSE(is_valid_utf8(bytes));
    EXPECT_EQ(to_valid_utf8(bytes), expected) << pattern;
  };
  expect("a\x80z", "a?z");
  expect("\xC0\xAF", "??");                 // overlong
  expect("\xE0\x80\xAF", "???");            // overlong
  expect("\xED\xA0\x80", "???");            // a surrogate
  expect("\xF4\x90\x80\x80", "????");       // past U+10FFFF
  expect("\xF5\x80", "??");                 // no lead byte
  expect("\xE1\x80z", "?z");                // cut off by another character
  expect("\xF1\x80\x80z", "?z");            //
  expect("\xF1\x80\xE1\x80\xC2z", "???z");  //
  expect("z\xF0\x9F\x99", "z?");            // cut off by the end
  expect("z\xE2", "z?");
}

TEST(Utf8, FindsTheEndOfTheLastCompleteCharacter) {
  const std::string character = "\xF0\x9F\x99\x82";
  EXPECT_EQ(complete_utf8_length(""), 0u);
  EXPECT_EQ(complete_utf8_length("ab"), 2u);
  EXPECT_EQ(complete_utf8_length("ab" + character), 6u);
  for (size_t bytes = 1; bytes < character.size(); ++bytes) {
    EXPECT_EQ(complete_utf8_length("ab" + character.substr(0, bytes)), 2u) << bytes;
  }
  // Nothing that follows could complete these.
  EXPECT_EQ(complete_utf8_length("ab\x80"), 3u);
  EXPECT_EQ(complete_utf8_length("ab\xE0\x80"), 4u);
  EXPECT_EQ(complete_utf8_length("ab\xED\xA0"), 4u);
}

TEST(Utf8, WritesWhatItReads) {
  for (const char32_t code : {0x0u, 0x7Fu, 0x80u, 0x7FFu, 0x800u, 0xFFFFu, 0x10000u, 0x10FFFFu}) {
    std::string text;
    append_utf8(text, code);
    const Utf8Char next = next_utf8(text);
    EXPECT_EQ(next.kind, Utf8Char::Kind::valid);
    EXPECT_EQ(next.code, code);
    EXPECT_EQ(next.length, text.size());
  }
}

}  // namespace
}  // namespace mambify
