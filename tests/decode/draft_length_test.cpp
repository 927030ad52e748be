#include "decode/draft_length.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

namespace mambify {
namespace {

constexpr int64_t kMost = 15;

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

// A made-up machine, on which plain decoding of a token takes a second, and a drafter.
struct Machine {
  double guess = 0.1;   // seconds of verifying a guess on each sequence
  double there = 1;     // share of passes in which the drafter has guesses
  double right = 0.5;   // of the guesses
  double draft = 0;     // seconds of looking for a guess on each sequence
  double catch_up = 0;  // and of reading a token that it has not looked behind, as of the prompt
  // Guesses are right with different probabilities, which the drafter knows.
  bool knows = false;
};

// What decoding with guesses gains over decoding without.
class Simulation {
 public:
  explicit Simulation(const Machine& machine) : machine_(machine) {}

  double speed_up(int64_t batch, int64_t sequences) {
    std::vector<DraftRecord> records(batch, lengths_.begin());
    std::vector<int64_t> left(batch, kTokens), unread(batch, kPromptTokens);
    int64_t waiting = sequences - batch;
    double seconds = 0;
    while (true) {
      std::vector<int64_t> active;
      std::vector<const DraftRecord*> active_records;
      for (int64_t i = 0; i < batch; ++i) {
        if (left[i] == 0 && waiting > 0) {
          --waiting;
          left[i] = kTokens;
          unread[i] = kPromptTokens;
          records[i] = lengths_.begin();
        }
        if (left[i] == 0) continue;
        active.push_back(i);
        active_records.push_back(&records[i]);
      }
      const auto share = static_cast<double>(active.size()) / static_cast<double>(batch);
      if (active.empty()) break;
      const DraftPlan plan = lengths_.choose(active_records, kMost);
      TimedPass pass{.sequences = std::ssize(active)};
      std::vector<DraftOutcome> outcomes;
      int64_t caught_up = 0;
      bool goes_on = true;
      for (size_t i = 0; i < active.size(); ++i) {
        const int64_t wanted = std::min(plan.lengths[i], left[active[i]] - 1);
        outcomes.push_back(draft(wanted, plan.min_probability));
        pass.asked += outcomes[i].asked();
        pass.given += outcomes[i].given;
        pass.right += outcomes[i].right;
        if (wanted == 0) continue;
        goes_on = goes_on && active_records[i]->was_asked();
        caught_up += std::exchange(unread[active[i]], 0);
      }
      const auto each = [&](double cost, int64_t guesses) {
        return cost * static_cast<double>(guesses) / static_cast<double>(active.size());
      };
      const double draft_seconds =
          each(machine_.draft, pass.asked) + each(machine_.catch_up, caught_up);
      if (!goes_on) pass.asked = 0;
      const double verify_seconds = 1 + each(machine_.guess, pass.given);
      seconds += share * (draft_seconds + verify_seconds);  // the last few would share with others
      const double noise = (1 + 0.05 * uniform()) * (chance(0.02) ? 2 : 1);
      pass.draft_seconds = draft_seconds * noise;
      pass.verify_seconds = verify_seconds * noise;
      lengths_.add_pass(pass);
      for (size_t i = 0; i < active.size(); ++i) {
        left[active[i]] -= outcomes[i].right + 1;
        if (outcomes[i].wanted == 0) ++unread[active[i]];
        lengths_.add_outcome(records[active[i]], outcomes[i]);
      }
    }
    return static_cast<double>(kTokens * sequences) / static_cast<double>(batch) / seconds;
  }

  // The power of a number from 0 to 1 that is how likely a guess is, `right` on average.
  static double power(double right) { return 1 / right - 1; }

 private:
  DraftOutcome draft(int64_t wanted, double min_probability) {
    DraftOutcome outcome{.wanted = wanted};
    if (!machine_.knows) {
      outcome.given = chance(machine_.there) ? wanted : 0;
      while (outcome.right < outcome.given && chance(machine_.right)) ++outcome.right;
      return outcome;
    }
    bool is_right = true;
    for (double certainty = 1; outcome.given < wanted; ++outcome.given) {
      const double probability = std::pow(uniform(), power(machine_.right));
      certainty *= probability;
      if (certainty < min_probability) break;
      is_right = is_right && chance(probability);
      outcome.right += is_right;
    }
    return outcome;
  }

  double uniform() { return std::uniform_real_distribution<double>(0, 1)(engine_); }
  bool chance(double probability) { return uniform() < probability; }

  static constexpr int64_t kTokens = 128, kPromptTokens = 64;
  Machine machine_;
  DraftLengths lengths_;
  std::mt19937_64 engine_{1};
};

TEST(DraftLengths, CostLittleWhereGuessesDoNotPayAndGainWhereTheyDo) {
  for (const int64_t batch : {1, 8}) {
    for (const double guess : {0.02, 0.1, 0.2, 0.35, 0.6, 1.0}) {
      for (const double there : {0.3, 1.0}) {
        for (const double right : {0.0, 0.1, 0.3, 0.5, 0.7, 0.9}) {
          const double gained =
              Simulation({.guess = guess, .there = there, .right = right}).speed_up(batch, 80);
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

// The drafter takes its time, and knows which of its guesses are likely.
TEST(DraftLengths, CostLittleAndGainWithADrafterThatKnowsItsChances) {
  for (const int64_t batch : {1, 8}) {
    for (const double draft : {0.02, 0.1, 0.3}) {
      for (const double guess : {0.02, 0.1, 0.35, 1.0}) {
        for (const double right : {0.1, 0.3, 0.45, 0.7, 0.9}) {
          const double gained =
              Simulation({.guess = guess, .right = right, .draft = draft, .knows = true})
                  .speed_up(batch, 80);
          const double power = Simulation::power(right);
          // One guess at a time, of those above the bound that is best.
          double best = 1;
          for (double bound = 0; bound < 1; bound += 0.05) {
            const double given = 1 - std::pow(bound, 1 / power);
            const double tokens = 1 + right * (1 - std::pow(bound, 1 + 1 / power));
            best = std::max(best, tokens / (1 + draft + guess * given));
          }
          EXPECT_GT(gained, 0.97) << "batch " << batch << ", drafting " << draft << ", a guess "
                                  << guess << " of a pass, " << right << " right";
          EXPECT_GT(gained - 1, 0.6 * (best - 1) - 0.065)
              << "batch " << batch << ", drafting " << draft << ", a guess " << guess
              << " of a pass, " << right << " right";
        }
      }
    }
  }
}

// A drafter that has been left behind reads what it has missed before it guesses.
TEST(DraftLengths, CostLittleWithADrafterThatMustCatchUp) {
  for (const int64_t batch : {1, 8}) {
    for (const double catch_up : {0.02, 0.05, 0.1}) {
      for (const double guess : {0.1, 0.35, 1.0}) {
        for (const double right : {0.1, 0.3, 0.45, 0.7, 0.9}) {
          const Machine machine{
              .guess = guess, .right = right, .draft = 0.1, .catch_up = catch_up, .knows = true};
          EXPECT_GT(Simulation(machine).speed_up(batch, 80), 0.97)
              << "batch " << batch << ", catching up " << catch_up << ", a guess " << guess
              << " of a pass, " << right << " right";
        }
      }
      // Where guesses pay, it is worth reading the prompt.
      const Machine good{
          .guess = 0.1, .right = 0.9, .draft = 0.1, .catch_up = catch_up, .knows = true};
      EXPECT_GT(Simulation(good).speed_up(batch, 80), 1.2) << "catching up " << catch_up;
    }
  }
}

}  // namespace
}  // namespace mambify
