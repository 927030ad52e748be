// A draft that guesses among the most frequent tokens only: most of a shallow draft's step is the
// product with its output matrix, of which it then needs few rows (Zhao et al., "FR-Spec", 2025,
// arXiv 2502.14856). A token outside the set is never guessed; the target draws it all the same.
#pragma once

#include <span>
#include <vector>

#include "core/file.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace mambify {

// Where a draft's folder has its set, if it has one.
inline constexpr const char* kDraftVocabularyFile = "draft_vocabulary.json";

// Ids of the `size` most frequent tokens, ascending; of equally frequent ones the lowest. counts:
// of each token in a text. Always among them are the tokens that end a text and special ones that
// occur, perhaps the only ones; never another token that does not occur.
std::vector<TokenId> most_frequent_tokens(std::span<const int64_t> counts, int64_t size,
                                          const Tokenizer& tokenizer);

// The set as a file {"tokens": [ids]}.
void write_draft_vocabulary(const fs::path& file, std::span<const TokenId> tokens);
// Ids in any order, given back ascending. Throws Error where there are none, and naming one that is
// there twice or is none of a model's vocab_size tokens.
std::vector<TokenId> read_draft_vocabulary(const fs::path& file, int64_t vocab_size);

// Leaves of the model's output matrix the rows of these tokens. What decodes with it must be told
// them.
void keep_outputs(Model& model, std::span<const TokenId> tokens);

}  // namespace mambify
