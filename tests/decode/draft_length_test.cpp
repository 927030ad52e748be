#include "decode/draft_length.h"

#include <gtest/gtest.h>

namespace mambify {
namespace {

constexpr int64_t kMost = 15;

// Passes of 1 second and `guess` seconds for each guess, drafts of changing lengths.
DraftLengths timed(double guess) {
  DraftLengths lengths;
  for (int64_t i = 0; i < 100; ++i) {
    lengths.add_pass(i % 5, 1 + guess * static_cast<double>(i % 5));
  }
  return lengths;
}

// A record of drafts of `guessed` tokens of which `right` were right each time.
DraftRecord record(int64_t guessed, int64_t right, int64_t passes = 200) {
  DraftRecord record;
  for (int64_t i = 0; i < passes; ++i) record.add(guessed, right);
  return record;
}

int64_t choose(const DraftLengths& lengths, const DraftRecord& record) {
  const DraftRecord* records[] = {&record};
  return lengths.choose(records, kMost).front();
}

// Tokens per second of one sequence that always guesses so many tokens.
double speed(double acceptance, double guess, int64_t length) {
  double tokens = 1, right = acceptance;
  for (int64_t i = 0; i < length; ++i, right *= acceptance) tokens += right;
  return tokens / (1 + guess * static_cast<double>(length));
}

TEST(DraftRecord, ConvergesToTheShareOfRightGuesses) {
  EXPECT_NEAR(record(4, 4).acceptance(), 1, 0.02);
  EXPECT_NEAR(record(4, 0).acceptance(), 0, 0.05);
  EXPECT_NEAR(record(4, 1).acceptance(), 0.5, 0.02);  // one right, one wrong, two not looked at
}

TEST(DraftRecord, ForgetsWhatIsLongAgo) {
  DraftRecord changed = record(4, 4);
  for (int64_t i = 0; i < 60; ++i) changed.add(4, 0);
  EXPECT_LT(changed.acceptance(), 0.25);
}

TEST(DraftRecord, ProbesLessOftenTheLongerGuessesAreWrong) {
  DraftRecord record;
  int64_t previous = 0;
  for (int64_t probe = 0; probe < 6; ++probe) {
    int64_t passes = 0;
    for (; !record.must_probe(); ++passes) record.add(0, 0);
    EXPECT_GE(passes, previous);
    previous = passes;
    record.add(1, 0);
  }
  EXPECT_EQ(previous, 64);
  record.add(1, 1);  // things have changed
  for (int64_t i = 0; i < 8; ++i) record.add(0, 0);
  EXPECT_TRUE(record.must_probe());
}

// To 3 %: what a guess costs is drawn towards what it is believed to before any was timed.
TEST(DraftLengths, AreThoseOfTheGreatestSpeed) {
  for (const double guess : {0.02, 0.06, 0.2, 0.5}) {
    const DraftLengths lengths = timed(guess);
    for (const auto& [guessed, right] : {std::pair(1, 1), {8, 7}, {4, 3}, {4, 2}, {4, 1}, {4, 0}}) {
      const DraftRecord seen = record(guessed, right);
      const double chosen = speed(seen.acceptance(), guess, choose(lengths, seen));
      for (int64_t length = 0; length <= kMost; ++length) {
        EXPECT_GE(chosen, speed(seen.acceptance(), guess, length) * 0.97)
            << length << " guesses at " << guess << ", " << right << " of " << guessed << " right";
      }
    }
  }
}

TEST(DraftLengths, AreNoneWhereGuessesDoNotPay) {
  EXPECT_EQ(choose(timed(0.1), record(2, 0)), 0);
  EXPECT_EQ(choose(timed(0.9), record(2, 1)), 0);
}

TEST(DraftLengths, AreAtLeastOneWhenItIsTimeToProbe) {
  DraftRecord hopeless = record(2, 0);
  while (!hopeless.must_probe()) hopeless.add(0, 0);
  EXPECT_EQ(choose(timed(0.1), hopeless), 1);
}

TEST(DraftLengths, AreEachSequencesOwn) {
  const DraftRecord good = record(4, 4), bad = record(4, 0);
  const DraftRecord* records[] = {&bad, &good, &bad};
  const std::vector<int64_t> lengths = timed(0.1).choose(records, kMost);
  EXPECT_EQ(lengths[0], 0);
  EXPECT_GT(lengths[1], 4);
  EXPECT_EQ(lengths[2], 0);
}

TEST(DraftLengths, SurviveAPassThatWasHeldUp) {
  DraftLengths lengths = timed(0.05);
  const int64_t before = choose(lengths, record(4, 3));
  lengths.add_pass(4, 500);
  EXPECT_NEAR(static_cast<double>(choose(lengths, record(4, 3))), static_cast<double>(before), 2);
}

TEST(DraftLengths, BeginWithAFewGuesses) {
  const int64_t first = choose(DraftLengths(), DraftRecord());
  EXPECT_GE(first, 1);
  EXPECT_LE(first, 4);
}

}  // namespace
}  // namespace mambify
