// How many tokens are worth guessing: as many as make decoding fastest, going by how often guesses
// were right and by what passes took.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mambify {

// How often guesses on one sequence were right; what happened lately counts most.
class DraftRecord {
 public:
  // A pass verified `guessed` tokens, of which the first `right` were right.
  void add(int64_t guessed, int64_t right);

  // The probability that the next guess is right, when all before it in the draft were.
  double acceptance() const;
  // Whether so many passes went by without a guess that one is worth it, to see how things stand.
  bool must_probe() const { return passes_without_ >= patience_; }

 private:
  double tried_ = 0, right_ = 0;
  int64_t passes_without_ = 0, patience_ = kLeastPatience;
  static constexpr int64_t kLeastPatience = 8, kMostPatience = 64;
};

class DraftLengths {
 public:
  // A pass with so many guesses, of all sequences, took so long, drafting included.
  void add_pass(int64_t guesses, double seconds);
  // For each sequence, at most `most` tokens.
  std::vector<int64_t> choose(std::span<const DraftRecord* const> records, int64_t most) const;

 private:
  // Seconds of a pass without a guess, and of each guess more.
  struct Cost {
    double pass = 0, guess = 0;
  };
  Cost cost() const;

  // Weighted sums of 1, guesses, their squares, seconds and seconds times guesses.
  double weight_ = 0, guesses_ = 0, squares_ = 0, seconds_ = 0, products_ = 0;
};

}  // namespace mambify
