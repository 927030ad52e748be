#include "text/unicode_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <utility>

#include "core/error.h"
#include "text/unicode_additions.h"

namespace mambify {
namespace {

// White_Space, which is what Oniguruma's \s means. PCRE2's \s also takes U+180E.
constexpr std::string_view kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff})"
    R"(\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";

constexpr std::string_view kCategories[] = {"L",  "Ll", "Lm", "Lo", "Lt", "Lu", "M",  "Mc", "Me",
                                            "Mn", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Pe",
                                            "Pf", "Pi", "Po", "Ps", "S",  "Sc", "Sk", "Sm", "So",
                                            "Z",  "Zl", "Zp", "Zs", "Cc", "Cf"};

bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }
bool is_hex_digit(char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; }
bool is_digit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }

// Rewrites a pattern character by character; what it does not know, it refuses, because an
// expression that quietly means something else would change tokens.
class Translator {
 public:
  Translator(std::string_view pattern, const std::string& origin)
      : pattern_(pattern), origin_(origin) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        escape();
      } else if (in_class_) {
        class_character(c);
      } else if (c == '[') {
        open_class();
      } else if (c == '(') {
        group();
      } else if (c == '}' && next() == '+' && closes_repeat()) {
        refuse("}+");  // possessive in PCRE2, a repeated repeat in Oniguruma
      } else {
        copy(1);
      }
    }
    return std::move(result_);
  }

 private:
  char next(size_t ahead = 1) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0';
  }

  void copy(size_t count) {
    result_ += pattern_.substr(at_, count);
    at_ += std::min(count, pattern_.size() - at_);
  }

  [[noreturn]] void refuse(std::string_view what) const {
    throw Error("{}: the expression {} uses \"{}\", which is not supported", origin_, pattern_,
                what);
  }

  bool closes_repeat() const {
    const size_t open = pattern_.rfind('{', at_);
    return open != std::string_view::npos && open + 1 < at_ && is_digit(pattern_[open + 1]);
  }

  void open_class() {
    in_class_ = true;
    copy(next() == '^' ? 2 : 1);
    if (at_ < pattern_.size() && pattern_[at_] == ']') refuse("[]");
  }

  void class_character(char c) {
    if (c == '[') refuse("[ inside [ ]");
    if (c == '&' && next() == '&') refuse("&&");
    if (c == ']') in_class_ = false;
    copy(1);
  }

  // Plain, non-capturing, atomic and look-around groups, and the flag i.
  void group() {
    if (next() == '*') refuse("(*");
    if (next() != '?') return copy(1);
    const char kind = next(2);
    if (kind == ':' || kind == '=' || kind == '!' || kind == '>') return copy(3);
    if (kind == '<' && (next(3) == '=' || next(3) == '!')) return copy(4);
    if (kind == 'i' && (next(3) == ':' || next(3) == ')')) return copy(4);
    refuse(pattern_.substr(at_, 4));
  }

  void escape() {
    const char c = next();
    if (c == 's' || c == 'S') {
      const std::string_view set = c == 's' ? kSpace : kNotSpace;
      if (!in_class_) result_ += '[';
      result_ += set;
      if (!in_class_) result_ += ']';
      at_ += 2;
    } else if (c == 'p' || c == 'P') {
      property();
    } else if (c == 'u') {
      const std::string_view digits = pattern_.substr(at_ + 2, 4);
      if (digits.size() < 4 || !std::all_of(digits.begin(), digits.end(), is_hex_digit)) {
        refuse("\\u");
      }
      (result_ += "\\x{") += digits;
      result_ += '}';
      at_ += 6;
    } else if (c == 'd' || c == 'D') {
      category(pattern_.substr(at_, 2), "Nd", c == 'D');
    } else if (c == 'x' && next(2) != '{') {
      refuse("\\x");  // a byte in Oniguruma, a character in PCRE2
    } else if (std::string_view("rntfx").find(c) != std::string_view::npos && c != '\0') {
      copy(2);
    } else if (c == '\0' || is_letter(c) || is_digit(c)) {
      refuse(pattern_.substr(at_, 2));
    } else {
      copy(2);
    }
  }

  // General categories only, completed by what is newer than PCRE2's tables. Scripts and derived
  // properties differ between the two; C (other) shrinks where the others grow.
  void property() {
    const size_t close = std::min(pattern_.find('}', at_), pattern_.size() - 1);
    const std::string_view whole = pattern_.substr(at_, close + 1 - at_);
    if (!whole.starts_with("\\p{") && !whole.starts_with("\\P{")) refuse(whole);
    category(whole, whole.substr(3, whole.size() - 4), whole[1] == 'P');
  }

  void category(std::string_view whole, std::string_view name, bool negated) {
    if (std::find(std::begin(kCategories), std::end(kCategories), name) == std::end(kCategories)) {
      refuse(whole);
    }
    if (negated && in_class_) refuse(fmt::format("{} inside [ ]", whole));
    if (!in_class_) result_ += negated ? "[^" : "[";
    result_ += fmt::format("\\p{{{}}}", name) + unicode_additions(name);
    if (!in_class_) result_ += ']';
    at_ += whole.size();
  }

  std::string_view pattern_;
  const std::string& origin_;
  std::string result_;
  size_t at_ = 0;
  bool in_class_ = false;
};

struct MatchWorkspace {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  MatchWorkspace() = default;
  MatchWorkspace(const MatchWorkspace&) = delete;
  MatchWorkspace& operator=(const MatchWorkspace&) = delete;
  ~MatchWorkspace() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
  }
};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

std::string translate_pattern(std::string_view pattern, const std::string& origin) {
  return Translator(pattern, origin).run();
}

struct UnicodeRegex::Code {
  pcre2_code* compiled = nullptr;
  std::string pattern, origin;
  ~Code() { pcre2_code_free(compiled); }
};

UnicodeRegex::UnicodeRegex(std::string_view pattern, const std::string& origin)
    : code_(raw(translate_pattern(pattern, origin), origin).code_) {}

UnicodeRegex UnicodeRegex::raw(std::string_view pattern, const std::string& origin) {
  auto code = std::make_shared<Code>();
  code->pattern = pattern;
  code->origin = origin;
  int error = 0;
  PCRE2_SIZE offset = 0;
  // MULTILINE: in Oniguruma's syntax ^ and $ always match at lines.
  code->compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                 PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                                 &error, &offset, nullptr);
  if (code->compiled == nullptr) {
    throw Error("{}: the expression {} does not compile: {}", origin, pattern,
                pcre2_message(error));
  }
  // Without a compiled form (a system that forbids writable code) PCRE2 interprets.
  pcre2_jit_compile(code->compiled, PCRE2_JIT_COMPLETE);
  return UnicodeRegex(std::shared_ptr<const Code>(std::move(code)));
}

std::optional<ByteRange> UnicodeRegex::find(std::string_view subject, size_t start) const {
  thread_local MatchWorkspace workspace;
  // Steps grow with the run of characters that a part of the expression crosses, so a fixed limit
  // would fail on a long run; this one still stops an expression that backtracks exponentially.
  const size_t limit = std::clamp<size_t>(subject.size() * 16, 10'000'000, UINT32_MAX);
  pcre2_set_match_limit(workspace.context, static_cast<uint32_t>(limit));
  const auto match = [&](uint32_t options) {
    return pcre2_match(code_->compiled, reinterpret_cast<PCRE2_SPTR>(subject.data()),
                       subject.size(), start, options | PCRE2_NO_UTF_CHECK, workspace.data,
                       workspace.context);
  };
  int result = match(0);
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);
  if (result == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (result < 0) {
    throw Error("{}: the expression {} fails on {} bytes of text: {}", code_->origin,
                code_->pattern, subject.size(), pcre2_message(result));
  }
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(workspace.data);
  return ByteRange{range[0], range[1]};
}

}  // namespace mambify
