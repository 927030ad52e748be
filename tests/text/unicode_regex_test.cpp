#include "text/unicode_regex.h"

#include <string>
#include <string_view>
#include <vector>

#include "errors.h"

namespace mambify {
namespace {

using ::testing::HasSubstr;

std::vector<std::string> matches(std::string_view pattern, std::string_view text) {
  const UnicodeRegex regex(pattern, "test");
  std::vector<std::string> found;
  size_t at = 0;
  while (const auto match = regex.find(text, at)) {
    found.emplace_back(text.substr(match->begin, match->end - match->begin));
    at = match->end;
  }
  return found;
}

using Strings = std::vector<std::string>;

TEST(UnicodeRegex, MatchesCharactersNotBytes) {
  EXPECT_EQ(matches(R"(\p{L}{1,3})", "größe日本"), (Strings{"grö", "ße日", "本"}));
  EXPECT_EQ(matches(R"([^\s\p{L}]+)", "a١२! b"), (Strings{"١२!"}));
  EXPECT_EQ(matches(R"(\u0061|\x{62}|\d)", "ab٣"), (Strings{"a", "b", "٣"}));
}

TEST(UnicodeRegex, TakesWhiteSpaceAsUnicodeDefinesIt) {
  // U+1680 and U+0085 are white space; U+180E was until Unicode 6.3, and is to PCRE2.
  EXPECT_EQ(matches(R"(\s+)", "a \u1680\u0085b\u180Ec"), (Strings{" \u1680\u0085"}));
  EXPECT_EQ(matches(R"(\S+)", "a b\u180Ec"), (Strings{"a", "b\u180Ec"}));
  EXPECT_EQ(matches(R"([^\S ]+)", "a \t b"), (Strings{"\t"}));
}

TEST(UnicodeRegex, KnowsCharactersOfUnicode16) {
  // U+10D40 is a digit and U+323AF a letter since Unicode 15 and 16.
  EXPECT_EQ(matches(R"(\p{N})", "a\U00010D40"), (Strings{"\U00010D40"}));
  EXPECT_EQ(matches(R"([^\p{N}]+)", "a\U00010D40z"), (Strings{"a", "z"}));
  EXPECT_EQ(matches(R"(\p{L}+)", "a\U000323AF\U00010D40"), (Strings{"a\U000323AF"}));
  EXPECT_EQ(matches(R"(\P{L}+)", "a\U000323AF\U00010D40"), (Strings{"\U00010D40"}));
}

TEST(UnicodeRegex, FoldsCaseBeyondAscii) {
  EXPECT_EQ(matches(R"((?i:'s|'LL))", "'S 'll 'lL '\u017F"),
            (Strings{"'S", "'ll", "'lL", "'\u017F"}));
}

TEST(UnicodeRegex, RefusesWhatMeansSomethingElseToOniguruma) {
  for (const char* pattern :
       {R"(\w+)",    R"(\bx)",     R"(\h)",      R"([a[bc]])", R"([a&&b])",  R"(\p{Han})",
        R"(\p{^L})", R"(\pL)",     R"(\p{L)",    R"(\p{Cn})",  R"([\P{L}])", R"(x{1,3}+)",
        R"((?m:.))", R"((?<n>x))", R"((*FAIL))", R"((a)\1)",   R"(\xE9)",    R"(\u12)",
        R"([]a])",   R"(\)",       R"((?)",      R"((?R))"}) {
    EXPECT_ERROR(UnicodeRegex(pattern, "model/tokenizer.json"), HasSubstr("model/tokenizer.json"),
                 HasSubstr("not supported"), HasSubstr(pattern));
  }
}

TEST(UnicodeRegex, NamesAPatternThatDoesNotCompile) {
  EXPECT_ERROR(UnicodeRegex("(a", "model"), HasSubstr("(a does not compile"));
  EXPECT_ERROR(UnicodeRegex("[a", "model"), HasSubstr("[a does not compile"));
  EXPECT_ERROR(UnicodeRegex("\xFF", "model"), HasSubstr("does not compile"));
}

TEST(UnicodeRegex, StopsAnExpressionThatBacktracksForEver) {
  const UnicodeRegex regex("(a+)+(a+)+$", "model");
  EXPECT_ERROR(regex.find(std::string(5000, 'a') + "!", 0), HasSubstr("(a+)+"),
               HasSubstr("5001 bytes"));
}

TEST(UnicodeRegex, CrossesLongRuns) {
  const std::string spaces(3'000'000, ' ');
  const auto found = UnicodeRegex(R"(\s*[\r\n]+|\s+(?!\S)|\s+)", "model").find(spaces + "x", 0);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->end, spaces.size() - 1);
}

}  // namespace
}  // namespace mambify
