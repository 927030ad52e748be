// The option that a generated answer to a lettered multiple-choice question names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mambify {

// Options are lettered A, B, ... in order.
char option_letter(int64_t position);
inline constexpr int64_t kMostOptions = 26;

// The position that an answer names, by the first of these that finds one:
//   1. a letter that begins the answer and stands for itself: "B", "b.", "(B) two", "**B**: two";
//   2. the last letter behind the word "answer": "... so the answer is (B)", "Answer: B";
//   3. letters behind "option" or "choice", or in parentheses, when they are all the same;
//   4. options whose text the answer holds, whatever its case, when that is one; an option that is
//      part of a longer one that is there does not count.
// Nothing when none does: an answer that weighs several options and names none is not guessed at.
std::optional<int64_t> chosen_option(std::string_view answer,
                                     const std::vector<std::string>& options);

}  // namespace mambify
