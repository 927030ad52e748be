// Cuts text into the words that byte-pair merges never cross.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "text/unicode_regex.h"

namespace mambify {

// One word: `word` are the bytes to merge; they stand for text[range], and are longer than it by
// a prefix space that a pre-tokenizer put in front.
struct PreToken {
  std::string_view word;
  ByteRange range;
};

using PreTokenSink = std::function<void(const PreToken&)>;

class PreTokenizer {
 public:
  // The `pre_tokenizer` entry of a tokenizer.json: ByteLevel, alone or as the last of a Sequence
  // with Split and Digits. Throws Error naming what is not supported.
  PreTokenizer(const nlohmann::json& description, const std::string& origin);

  // text must be valid UTF-8.
  void split(std::string_view text, const PreTokenSink& sink) const;

 private:
  // What becomes of a match; Hugging Face's SplitDelimiterBehavior.
  enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

  struct Step {
    std::vector<UnicodeRegex> pattern;  // one, or none for a step that only adds the prefix
    Behavior behavior = Behavior::isolated;
    bool invert = false;        // what is between the matches counts as the match
    bool prefix_space = false;  // put a space in front of what does not start with one
  };

  struct Segment {
    ByteRange range;
    bool match;
  };

  void add(const nlohmann::json& description, const std::string& origin, bool last);
  Step read_split(const nlohmann::json& description, const std::string& origin) const;
  static std::vector<Segment> segments(const Step& step, std::string_view text);
  void run(size_t step, const PreToken& piece, const PreTokenSink& sink) const;

  std::vector<Step> steps_;
};

}  // namespace mambify
