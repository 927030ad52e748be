// A drafter for tests, which knows what is right.
#pragma once

#include <cstdint>
#include <iterator>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "decode/drafter.h"

namespace mambify {

// What a scripted drafter guesses of a sequence whose tokens are known.
enum class Guesses { right, wrong_at_first, wrong_later, wrong_always, none, changing };
inline constexpr Guesses kAllGuesses[] = {Guesses::right,       Guesses::wrong_at_first,
                                          Guesses::wrong_later, Guesses::wrong_always,
                                          Guesses::none,        Guesses::changing};

// Guesses from the sequences' true tokens, some of them made wrong.
class ScriptedDrafter : public Drafter {
 public:
  // truth: by sequence number, prompt included.
  ScriptedDrafter(std::map<uint32_t, std::vector<TokenId>> truth, int64_t vocabulary)
      : truth_(std::move(truth)), vocabulary_(vocabulary) {}

  std::vector<Draft> draft(std::span<const DraftRequest> requests) override {
    std::vector<Draft> drafts;
    for (const DraftRequest& request : requests) {
      drafts.push_back({.tokens = guess(request), .distributions = {}});
    }
    ++calls_;
    return drafts;
  }

 private:
  std::vector<TokenId> guess(const DraftRequest& request) const {
    const std::vector<TokenId>& truth = truth_.at(request.sequence);
    const auto begin = static_cast<int64_t>(request.tokens.size());
    const Guesses kind = kAllGuesses[request.sequence % std::size(kAllGuesses)];
    std::vector<TokenId> guess;
    const int64_t length = kind == Guesses::none ? 0
                           : kind == Guesses::changing
                               ? (calls_ + request.sequence) % (request.length + 1)
                               : request.length;
    for (int64_t i = 0; i < length; ++i) {
      const TokenId right = begin + i < static_cast<int64_t>(truth.size()) ? truth[begin + i] : 0;
      const bool wrong = kind == Guesses::wrong_always ||
                         (kind == Guesses::wrong_at_first && i == 0) ||
                         (kind == Guesses::wrong_later && i == calls_ % length) ||
                         (kind == Guesses::changing && (begin + i) % 3 == 0);
      guess.push_back(wrong ? static_cast<TokenId>((right + 1 + calls_ % 5) % vocabulary_) : right);
    }
    return guess;
  }

  std::map<uint32_t, std::vector<TokenId>> truth_;
  int64_t vocabulary_;
  int64_t calls_ = 0;
};

}  // namespace mambify
