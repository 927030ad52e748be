// Draft lengths on made-up machines, from the first pass to the last.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "decode/draft_length.h"
#include "draft_speed.h"

namespace mambify {
namespace {

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
