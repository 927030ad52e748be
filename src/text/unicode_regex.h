// Regular expressions as tokenizer.json writes them (Oniguruma's syntax), run by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace mambify {

// A half-open range of bytes.
struct ByteRange {
  size_t begin, end;
};

class UnicodeRegex {
 public:
  // Takes the part of Oniguruma's syntax that means the same in PCRE2 or can be rewritten to:
  // anything else is an Error that shows the pattern and calls it `origin`.
  UnicodeRegex(std::string_view pattern, const std::string& origin);
  // The same with a pattern in PCRE2's own syntax.
  static UnicodeRegex raw(std::string_view pattern, const std::string& origin);

  // The first match at or after `start`. The subject must be valid UTF-8.
  std::optional<ByteRange> find(std::string_view subject, size_t start) const;

 private:
  struct Code;
  explicit UnicodeRegex(std::shared_ptr<const Code> code) : code_(std::move(code)) {}
  std::shared_ptr<const Code> code_;
};

// The pattern in PCRE2's syntax. Exposed for its tests.
std::string translate_pattern(std::string_view pattern, const std::string& origin);

}  // namespace mambify
