// How many tokens are worth guessing, and how certain a guess must be: as makes decoding fastest,
// going by how often guesses were right and by what drafting and passes took; no tokens where that
// is slower than decoding without.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mambify {

// What became of the guesses on one sequence in a pass.
struct DraftOutcome {
  int64_t wanted = 0;  // most guesses
  int64_t given = 0;   // by the drafter, which may stop where it is not certain enough
  int64_t right = 0;   // of these

  // Guesses that the drafter looked for: the one that it did not give, too.
  int64_t asked() const { return given < wanted ? given + 1 : given; }
};

// How often guesses on one sequence were right; what happened lately counts most.
class DraftRecord {
 public:
  // Begins with what is expected of the sequence, as if one guess had shown it. patience: how many
  // passes without a guess make one worth it, to see how things stand.
  explicit DraftRecord(double acceptance = 0.5, double given = 1, int64_t patience = 8)
      : right_(acceptance), given_(given), patience_(patience) {}

  // least_patience: that after a right guess. pause: passes before the drafter is asked again that
  // was to show how things stand and gave nothing.
  void add(const DraftOutcome& outcome, int64_t least_patience, int64_t pause);

  // The probability that the next guess is right, when it is given and all before it in the draft
  // were right.
  double acceptance() const { return right_ / tried_; }
  // The probability that a guess that the drafter is asked for is given.
  double given() const { return given_ / asked_; }
  bool must_probe() const { return passes_without_ >= patience_; }
  // Whether the drafter was asked in the last pass, so that it has little to catch up with.
  bool was_asked() const { return was_asked_; }

 private:
  double tried_ = 1, right_, asked_ = 1, given_;
  int64_t passes_without_ = 0, patience_;
  bool was_asked_ = false;
};

// A pass over all sequences, as it was timed.
struct TimedPass {
  int64_t sequences = 1;
  // Guesses that the drafter looked for; 0 also where it had more to read than follows from the
  // pass before, whose time tells nothing about the next.
  int64_t asked = 0;
  int64_t given = 0;
  int64_t right = 0;  // guesses that became tokens
  double draft_seconds = 0, verify_seconds = 0;
};

// What a drafter is to do in a pass.
struct DraftPlan {
  std::vector<int64_t> lengths;  // most tokens on each sequence
  // That a guess and all before it in the draft are right, for it to pay.
  double min_probability = 0;
};

class DraftLengths {
 public:
  // A record for a sequence that begins.
  DraftRecord begin() const;
  void add_pass(const TimedPass& pass);
  void add_outcome(DraftRecord& record, const DraftOutcome& outcome);
  // For the sequences of these records; at most `most` tokens on each.
  DraftPlan choose(std::span<const DraftRecord* const> records, int64_t most) const;

 private:
  // Seconds of verifying no guess; of verifying some, as far as it does not depend on how many; of
  // each of these; what one has added on average; and of looking for a guess.
  struct Cost {
    double plain = 1, pass = 1, guess = 0, mean_guess = 0, draft = 0;
  };
  Cost cost() const;
  Cost verify_cost() const;
  // Passes of which an attempt on each sequence that takes so long is little.
  int64_t passes_worth(double seconds, const Cost& cost) const;
  int64_t least_patience(const Cost& cost) const;
  bool must_time_a_plain_pass() const;
  void add_savings(const TimedPass& pass, const Cost& expected);
  bool has_lost_too_much(const Cost& cost) const;

  int64_t sequences_ = 1;  // of the last pass
  // Weighted sums of passes in which no guess was verified: 1 and seconds.
  double plain_weight_ = 0, plain_seconds_ = 0;
  int64_t plain_passes_ = 0, passes_since_plain_ = 0;
  // Of those in which some were: 1, guesses, their squares, seconds and seconds times guesses.
  double weight_ = 0, guesses_ = 0, squares_ = 0, seconds_ = 0, products_ = 0;
  // Of those for which a drafter was asked: guesses that it looked for, and seconds.
  double drafts_ = 0, draft_seconds_ = 0;
  // Seconds of all passes, and what guesses have saved since they last had saved nothing: less than
  // nothing, or 0.
  double all_seconds_ = 0, saved_seconds_ = 0;
  // Of all sequences.
  double tried_ = 1, right_ = 0.5, asked_ = 1, given_ = 1;
};

}  // namespace mambify
