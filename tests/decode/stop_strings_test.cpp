// Stop strings found and text shown, however the text arrives in pieces.
#include "decode/stop_strings.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"

namespace mambify {
namespace {

struct Outcome {
  std::string text;
  bool stopped = false;
};

// The definition, on the whole text: the first place where a stop string is complete.
Outcome brute_force(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopStrings, FindTheFirstCompleteOneHoweverTheTextIsCut) {
  const std::vector<std::vector<std::string>> cases = {
      {}, {"ab"}, {"abab", "ba"}, {"aaa"}, {"b", "abc", "aab"}, {"cab", "ab"}, {"abcabcabd"}};
  const CounterRandom random(3, RandomPurpose::init);
  uint32_t position = 0;
  for (const std::vector<std::string>& stops : cases) {
    for (int repeat = 0; repeat < 400; ++repeat, ++position) {
      std::string text;
      for (uint32_t i = 0; i < 24; ++i)
        text += static_cast<char>('a' + random.bits(position, i) % 3);
      const Outcome expected = brute_force(text, stops);
      StopStrings matcher(stops);
      std::string shown;
      for (size_t begin = 0, piece = 0; begin < text.size() && !matcher.stopped(); ++piece) {
        const size_t length = 1 + random.bits(position, 100 + static_cast<uint32_t>(piece)) % 5;
        shown += matcher.push(text.substr(begin, length));
        begin += length;
        // What was shown can never be taken back.
        ASSERT_TRUE(expected.text.starts_with(shown)) << text << ": " << shown;
      }
      EXPECT_EQ(matcher.stopped(), expected.stopped) << text;
      if (!matcher.stopped()) shown += matcher.finish();
      EXPECT_EQ(shown, expected.text) << text;
    }
  }
}

TEST(StopStrings, HoldBackOnlyWhatMayBecomeOne) {
  StopStrings matcher({"###", "\n\nUser:"});
  EXPECT_EQ(matcher.push("Hello #"), "Hello ");
  EXPECT_EQ(matcher.push("1\n"), "#1");
  EXPECT_EQ(matcher.push("\nUs"), "");
  EXPECT_EQ(matcher.push("e it"), "\n\nUse it");
  EXPECT_EQ(matcher.push("\n\nUser: more"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.push("ignored"), "");
}

TEST(StopStrings, AnEmptyOneIsAUsageError) { EXPECT_THROW(StopStrings({"a", ""}), UsageError); }

}  // namespace
}  // namespace mambify
