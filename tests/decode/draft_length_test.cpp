#include "decode/draft_length.h"

#include <gtest/gtest.h>

#include <utility>

#include "draft_speed.h"

namespace mambify {
namespace {

// Passes of 1 second and `guess` seconds for each guess, drafts of changing lengths.
DraftLengths timed(double guess) {
  DraftLengths lengths;
  for (int64_t i = 0; i < 100; ++i) {
    lengths.add_pass({.asked = i % 5,
                      .given = i % 5,
                      .right = i % 5,
                      .verify_seconds = 1 + guess * static_cast<double>(i % 5)});
  }
  return lengths;
}

constexpr int64_t kPatience = 8;

// Drafts of `guessed` tokens, as many as were wanted.
void add(DraftRecord& record, int64_t guessed, int64_t right) {
  record.add({.wanted = guessed, .given = guessed, .right = right}, kPatience, /*pause=*/0);
}

// A record of drafts of `guessed` tokens of which `right` were right each time.
DraftRecord record(int64_t guessed, int64_t right, int64_t passes = 200) {
  DraftRecord record;
  for (int64_t i = 0; i < passes; ++i) add(record, guessed, right);
  return record;
}

DraftPlan plan(const DraftLengths& lengths, const DraftRecord& record) {
  const DraftRecord* records[] = {&record};
  return lengths.choose(records, kMost);
}
int64_t choose(const DraftLengths& lengths, const DraftRecord& record) {
  return plan(lengths, record).lengths.front();
}

TEST(DraftRecord, ConvergesToTheShareOfRightGuesses) {
  EXPECT_NEAR(record(4, 4).acceptance(), 1, 0.02);
  EXPECT_NEAR(record(4, 0).acceptance(), 0, 0.05);
  EXPECT_NEAR(record(4, 1).acceptance(), 0.5, 0.02);  // one right, one wrong, two not looked at
}

TEST(DraftRecord, ForgetsWhatIsLongAgo) {
  DraftRecord changed = record(4, 4);
  for (int64_t i = 0; i < 60; ++i) add(changed, 4, 0);
  EXPECT_LT(changed.acceptance(), 0.25);
}

TEST(DraftRecord, ProbesLessOftenTheLongerGuessesAreWrong) {
  DraftRecord record;
  int64_t previous = 0;
  for (int64_t probe = 0; probe < 8; ++probe) {
    int64_t passes = 0;
    for (; !record.must_probe(); ++passes) add(record, 0, 0);
    EXPECT_GE(passes, previous);
    previous = passes;
    add(record, 1, 0);
  }
  EXPECT_EQ(previous, 256);
  add(record, 1, 1);  // things have changed
  for (int64_t i = 0; i < kPatience; ++i) add(record, 0, 0);
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
  while (!hopeless.must_probe()) add(hopeless, 0, 0);
  EXPECT_EQ(choose(timed(0.1), hopeless), 1);
}

TEST(DraftLengths, AreEachSequencesOwn) {
  const DraftRecord good = record(4, 4), bad = record(4, 0);
  const DraftRecord* records[] = {&bad, &good, &bad};
  const std::vector<int64_t> lengths = timed(0.1).choose(records, kMost).lengths;
  EXPECT_EQ(lengths[0], 0);
  EXPECT_GT(lengths[1], 4);
  EXPECT_EQ(lengths[2], 0);
}

TEST(DraftLengths, SurviveAPassThatWasHeldUp) {
  DraftLengths lengths = timed(0.05);
  const int64_t before = choose(lengths, record(4, 3));
  lengths.add_pass({.asked = 4, .given = 4, .verify_seconds = 500});
  EXPECT_NEAR(static_cast<double>(choose(lengths, record(4, 3))), static_cast<double>(before), 2);
}

TEST(DraftLengths, BeginWithAFewGuessesOnceAPassWithoutIsTimed) {
  DraftLengths lengths;
  EXPECT_EQ(choose(lengths, lengths.begin()), 0);
  lengths.add_pass({.verify_seconds = 1});
  const int64_t first = choose(lengths, lengths.begin());
  EXPECT_GE(first, 1);
  EXPECT_LE(first, 4);
}

TEST(DraftLengths, ExpectOfANewSequenceWhatOthersShowed) {
  DraftLengths good = timed(0.1), bad = timed(0.1);
  DraftRecord right = good.begin(), wrong = bad.begin();
  for (int64_t i = 0; i < 100; ++i) {
    good.add_outcome(right, {.wanted = 4, .given = 4, .right = 4});
    bad.add_outcome(wrong, {.wanted = 4, .given = 4, .right = 0});
  }
  EXPECT_GT(choose(good, good.begin()), choose(bad, bad.begin()) + 2);
  wrong = bad.begin();
  for (int64_t i = 0; i < 3; ++i) bad.add_outcome(wrong, {.wanted = 1, .given = 1, .right = 0});
  EXPECT_EQ(choose(bad, wrong), 0);
}

// A drafter that takes as long for a few tokens as the model for one, however few.
TEST(DraftLengths, CountWhatAnyGuessCosts) {
  DraftLengths lengths;
  for (int64_t i = 0; i < 100; ++i) {
    const int64_t guesses = i % 5;
    lengths.add_pass(
        {.asked = guesses,
         .given = guesses,
         .right = guesses,
         .verify_seconds = guesses == 0 ? 1 : 2.2 + 0.01 * static_cast<double>(guesses)});
  }
  EXPECT_EQ(choose(lengths, record(2, 1)), 0);  // at most 2 tokens in 2.2 seconds
  EXPECT_GT(choose(lengths, record(8, 7)), 4);
}

// A drafter that is asked for one guess and gives it in a share of the passes only.
TEST(DraftRecord, TellsHowOftenGuessesAreGiven) {
  DraftRecord some;
  for (int64_t i = 0; i < 200; ++i) {
    some.add({.wanted = 1, .given = i % 2, .right = i % 2}, kPatience, /*pause=*/0);
  }
  EXPECT_NEAR(some.given(), 0.5, 0.03);
  EXPECT_NEAR(some.acceptance(), 1, 0.03);
  // Of two that are wanted, the first is given and the drafter stops at the second.
  DraftRecord stops;
  for (int64_t i = 0; i < 200; ++i) stops.add({.wanted = 2, .given = 1}, kPatience, /*pause=*/0);
  EXPECT_NEAR(stops.given(), 0.5, 0.03);
}

TEST(DraftRecord, AsksAgainAtOnceWhereThatCostsNothingElseAfterAPause) {
  for (const int64_t pause : {0, 10}) {
    DraftRecord record;
    while (!record.must_probe()) add(record, 0, 0);
    record.add({.wanted = 1, .given = 0}, kPatience, pause);
    int64_t passes = 0;
    for (; !record.must_probe(); ++passes) add(record, 0, 0);
    EXPECT_EQ(passes, pause);
  }
}

// Guesses that are given are right often enough, but looking for them costs more than they bring.
TEST(DraftLengths, CountGuessesThatWereAskedForAndNotGiven) {
  DraftRecord rare;
  for (int64_t i = 0; i < 200; ++i) {
    rare.add({.wanted = 1, .given = i % 4 == 0, .right = i % 4 == 0}, kPatience, /*pause=*/0);
  }
  for (const double draft : {0.0, 0.05, 0.4}) {
    DraftLengths lengths;
    for (int64_t i = 0; i < 100; ++i) {
      const int64_t given = i % 4 == 0;
      lengths.add_pass({.asked = 1,
                        .given = given,
                        .right = given,
                        .draft_seconds = draft,
                        .verify_seconds = 1 + 0.2 * static_cast<double>(given)});
    }
    // A quarter of a token, or a little less, in draft + 0.05 seconds.
    EXPECT_EQ(choose(lengths, rare) > 0, draft < 0.2) << draft;
  }
}

TEST(DraftLengths, WantGuessesAsLikelyAsTheyCost) {
  const DraftRecord none = record(2, 0);
  EXPECT_NEAR(plan(timed(0.1), none).min_probability, 0.1, 0.02);
  EXPECT_NEAR(plan(timed(0.4), none).min_probability, 0.4, 0.04);
  // Where decoding is faster by other guesses, seconds are worth more.
  const DraftPlan fast = plan(timed(0.1), record(4, 4));
  EXPECT_GT(fast.min_probability, 0.3);
  // Guesses that seemed to cost more than a pass show anew what they cost.
  EXPECT_LT(plan(timed(3), none).min_probability, 1);
}

// A pass whose drafter gave nothing shows what one without guesses takes.
TEST(DraftLengths, NeedNoFurtherPassesWithoutGuessesToTimeWhereSomeHaveNone) {
  DraftLengths lengths;
  const DraftRecord good = record(4, 4);
  for (int64_t i = 0; i < 500; ++i) {
    if (i > 0) {
      EXPECT_GT(choose(lengths, good), 0) << i;
    }
    const int64_t given = i % 2;
    lengths.add_pass({.asked = 1,
                      .given = given,
                      .right = given,
                      .draft_seconds = 0.01,
                      .verify_seconds = 1 + 0.1 * static_cast<double>(given)});
  }
}

}  // namespace
}  // namespace mambify
