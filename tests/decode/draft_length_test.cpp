#include "decode/draft_length.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

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

constexpr int64_t kPatience = 8;

// A record of drafts of `guessed` tokens of which `right` were right each time.
DraftRecord record(int64_t guessed, int64_t right, int64_t passes = 200) {
  DraftRecord record;
  for (int64_t i = 0; i < passes; ++i) record.add(guessed, right, kPatience);
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
  for (int64_t i = 0; i < 60; ++i) changed.add(4, 0, kPatience);
  EXPECT_LT(changed.acceptance(), 0.25);
}

TEST(DraftRecord, ProbesLessOftenTheLongerGuessesAreWrong) {
  DraftRecord record;
  int64_t previous = 0;
  for (int64_t probe = 0; probe < 8; ++probe) {
    int64_t passes = 0;
    for (; !record.must_probe(); ++passes) record.add(0, 0, kPatience);
    EXPECT_GE(passes, previous);
    previous = passes;
    record.add(1, 0, kPatience);
  }
  EXPECT_EQ(previous, 256);
  record.add(1, 1, kPatience);  // things have changed
  for (int64_t i = 0; i < kPatience; ++i) record.add(0, 0, kPatience);
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
  while (!hopeless.must_probe()) hopeless.add(0, 0, kPatience);
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

TEST(DraftLengths, BeginWithAFewGuessesOnceAPassWithoutIsTimed) {
  DraftLengths lengths;
  EXPECT_EQ(choose(lengths, lengths.begin()), 0);
  lengths.add_pass(0, 1);
  const int64_t first = choose(lengths, lengths.begin());
  EXPECT_GE(first, 1);
  EXPECT_LE(first, 4);
}

TEST(DraftLengths, ExpectOfANewSequenceWhatOthersShowed) {
  DraftLengths good = timed(0.1), bad = timed(0.1);
  DraftRecord right = good.begin(), wrong = bad.begin();
  for (int64_t i = 0; i < 100; ++i) {
    good.add_guesses(right, 4, 4);
    bad.add_guesses(wrong, 4, 0);
  }
  EXPECT_GT(choose(good, good.begin()), choose(bad, bad.begin()) + 2);
  wrong = bad.begin();
  for (int64_t i = 0; i < 3; ++i) bad.add_guesses(wrong, 1, 0);
  EXPECT_EQ(choose(bad, wrong), 0);
}

// A drafter that takes as long for a few tokens as the model for one, however few.
TEST(DraftLengths, CountWhatAnyGuessCosts) {
  DraftLengths lengths;
  for (int64_t i = 0; i < 100; ++i) {
    const int64_t guesses = i % 5;
    lengths.add_pass(guesses, guesses == 0 ? 1 : 2.2 + 0.01 * static_cast<double>(guesses));
  }
  EXPECT_EQ(choose(lengths, record(2, 1)), 0);  // at most 2 tokens in 2.2 seconds
  EXPECT_GT(choose(lengths, record(8, 7)), 4);
}

// What decoding with guesses gains over decoding without, on a made-up machine: guesses are there
// in some passes, are right by chance, and a pass takes longer by `guess` for one of each sequence.
class Simulation {
 public:
  Simulation(double guess, double there, double right)
      : guess_(guess), there_(there), right_(right) {}

  double speed_up(int64_t batch, int64_t sequences) {
    std::vector<DraftRecord> records(batch, lengths_.begin());
    std::vector<int64_t> left(batch, kTokens);
    int64_t waiting = sequences - batch;
    double seconds = 0;
    while (true) {
      std::vector<int64_t> active;
      std::vector<const DraftRecord*> active_records;
      for (int64_t i = 0; i < batch; ++i) {
        if (left[i] == 0 && waiting > 0) {
          --waiting;
          left[i] = kTokens;
          records[i] = lengths_.begin();
        }
        if (left[i] == 0) continue;
        active.push_back(i);
        active_records.push_back(&records[i]);
      }
      const auto share = static_cast<double>(active.size()) / static_cast<double>(batch);
      if (active.empty()) break;
      std::vector<int64_t> guessed = lengths_.choose(active_records, kMost);
      int64_t all = 0;
      for (size_t i = 0; i < active.size(); ++i) {
        guessed[i] = chance(there_) ? std::min(guessed[i], left[active[i]] - 1) : 0;
        all += guessed[i];
      }
      const double pass =
          1 + guess_ * static_cast<double>(all) / static_cast<double>(active.size());
      seconds += share * pass;  // the last few sequences would share with others
      lengths_.add_pass(all, pass * (1 + 0.05 * uniform()) * (chance(0.02) ? 2 : 1));
      for (size_t i = 0; i < active.size(); ++i) {
        int64_t right = 0;
        while (right < guessed[i] && chance(right_)) ++right;
        left[active[i]] -= right + 1;
        lengths_.add_guesses(records[active[i]], guessed[i], right);
      }
    }
    return static_cast<double>(kTokens * sequences) / static_cast<double>(batch) / seconds;
  }

 private:
  double uniform() { return std::uniform_real_distribution<double>(0, 1)(engine_); }
  bool chance(double probability) { return uniform() < probability; }

  static constexpr int64_t kTokens = 128;
  double guess_, there_, right_;
  DraftLengths lengths_;
  std::mt19937_64 engine_{1};
};

TEST(DraftLengths, CostLittleWhereGuessesDoNotPayAndGainWhereTheyDo) {
  for (const int64_t batch : {1, 8}) {
    for (const double guess : {0.02, 0.1, 0.2, 0.35, 0.6, 1.0}) {
      for (const double there : {0.3, 1.0}) {
        for (const double right : {0.0, 0.1, 0.3, 0.5, 0.7, 0.9}) {
          const double gained = Simulation(guess, there, right).speed_up(batch, 80);
          EXPECT_GT(gained, 0.97) << "batch " << batch << ", a guess " << guess << " of a pass, "
                                  << there << " there, " << right << " right";
          // Of what the best fixed length gains, most.
          double best = 1;
          for (int64_t length = 1; length <= kMost; ++length) {
            const double pass = 1 + guess * static_cast<double>(length);
            const double tokens = speed(right, guess, length) * pass;
            best = std::max(best, (there * tokens + 1 - there) / (there * pass + 1 - there));
          }
          EXPECT_GT(gained - 1, 0.6 * (best - 1) - 0.06)
              << "batch " << batch << ", a guess " << guess << " of a pass, " << there << " there, "
              << right << " right";
        }
      }
    }
  }
}

}  // namespace
}  // namespace mambify
