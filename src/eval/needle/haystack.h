// The text in which a needle is hidden: sentences, written here or taken from a file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/random.h"

namespace mambify {

class Haystack {
 public:
  // Short neutral sentences without a digit, made from lists of words; hundreds of thousands
  // differ.
  Haystack() = default;
  // The sentences of a text, white space between them and in them as one space each. A sentence
  // that is very long is cut. Throws Error for a text without any. origin: what messages call it.
  Haystack(std::string_view text, const std::string& origin);

  // Sentence i of a haystack. What is written here depends on the random numbers and i; a file is
  // read on from a sentence that depends on the random numbers, and from its beginning after its
  // end.
  std::string sentence(const CounterRandom& random, int64_t i) const;

 private:
  std::vector<std::string> sentences_;  // of a file; empty: written here
};

}  // namespace mambify
