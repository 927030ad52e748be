// Drafters guess the next tokens of sequences; the engine verifies many guesses in the time of one
// token. A wrong guess costs time and never changes a token.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "decode/sampler.h"
#include "decode/token_distribution.h"
#include "model/model.h"

namespace mambify {

// A sequence to guess on.
struct DraftRequest {
  int64_t row = 0;                  // of the engine; tells a drafter with memory which it is
  std::span<const TokenId> tokens;  // all so far
  int64_t length = 0;               // most tokens wanted, at least 1
  // That a guess and all before it in the draft are right, as the drafter sees it: it stops before
  // a guess of which this is less likely. One that knows no probabilities pays no heed to it.
  double min_probability = 0;
  // What the next tokens are drawn with. A drafter that draws with the same numbers agrees often.
  SamplingOptions sampling = {};
  uint32_t sequence = 0;
  bool wants_distributions = false;
};

// What a drafter guesses to follow a sequence.
struct Draft {
  std::vector<TokenId> tokens;
  // What each token was drawn from, where the request wants to know; none where the drafter does
  // not draw but gives the same token always.
  std::vector<TokenDistribution> distributions;
};

class Drafter {
 public:
  virtual ~Drafter() = default;
  // For each request at most `length` tokens, perhaps none.
  virtual std::vector<Draft> draft(std::span<const DraftRequest> requests) = 0;
};

struct NgramOptions {
  int64_t longest = 4;  // tokens at the end of the text that are looked for further up
  int64_t shortest = 2;
};

// Looks for the end of the text further up in it, the longest match and among these the latest, and
// guesses that it goes on as it did there (prompt lookup decoding).
std::unique_ptr<Drafter> ngram_drafter(const NgramOptions& options = {});

// Another model with the same vocabulary decodes ahead, one token at a time. Its state is taken
// back to what the target kept as the target's own is. rows, context: the engine's. The model must
// outlive the drafter, and so must `packed`, its weights; null: the drafter packs its own. tokens:
// what it guesses among where keep_outputs has left it some tokens only.
std::unique_ptr<Drafter> model_drafter(const Model& model, int64_t rows, int64_t context,
                                       int64_t max_length, const PackedWeights* packed = nullptr,
                                       std::vector<TokenId> tokens = {});

}  // namespace mambify
