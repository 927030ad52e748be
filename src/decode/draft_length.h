// How many tokens are worth guessing: as many as make decoding fastest, going by how often guesses
// were right and by what passes took; none where that is slower than decoding without.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mambify {

// How often guesses on one sequence were right; what happened lately counts most.
class DraftRecord {
 public:
  // Begins with what is expected of the sequence, as if `tried` guesses had shown it. patience: how
  // many passes without a guess make one worth it, to see how things stand.
  explicit DraftRecord(double acceptance = 0.5, double tried = 1, int64_t patience = 8)
      : tried_(tried), right_(acceptance * tried), patience_(patience) {}

  // A pass verified `guessed` tokens, of which the first `right` were right. least: the patience
  // after a right guess.
  void add(int64_t guessed, int64_t right, int64_t least_patience);

  // The probability that the next guess is right, when all before it in the draft were.
  double acceptance() const { return right_ / tried_; }
  bool must_probe() const { return passes_without_ >= patience_; }

 private:
  double tried_, right_;
  int64_t passes_without_ = 0, patience_;
};

class DraftLengths {
 public:
  // A record for a sequence that begins.
  DraftRecord begin() const;
  // A pass with so many guesses, of all sequences, took so long, drafting included.
  void add_pass(int64_t guesses, double seconds);
  // What became of the guesses on one sequence in a pass.
  void add_guesses(DraftRecord& record, int64_t guessed, int64_t right);
  // For each sequence, at most `most` tokens.
  std::vector<int64_t> choose(std::span<const DraftRecord* const> records, int64_t most) const;

 private:
  // Seconds of a pass without a guess; of one with guesses, as far as it does not depend on how
  // many; and of each guess.
  struct Cost {
    double plain = 1, pass = 1, guess = 0;
  };
  Cost cost() const;
  int64_t least_patience() const;
  bool must_time_a_plain_pass() const;

  // Weighted sums of passes without a guess: 1 and seconds.
  double plain_weight_ = 0, plain_seconds_ = 0;
  int64_t plain_passes_ = 0, passes_since_plain_ = 0;
  // Of those with guesses: 1, guesses, their squares, seconds and seconds times guesses.
  double weight_ = 0, guesses_ = 0, squares_ = 0, seconds_ = 0, products_ = 0;
  // Of all sequences.
  double tried_ = 1, right_ = 0.5;
};

}  // namespace mambify
