#include "eval/tasks/extract_choice.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "eval/tasks/white_space.h"

namespace mambify {
namespace {

constexpr std::string_view kOpening = "([{*_\"'`";
constexpr std::string_view kBetween = ": \n*_";
constexpr std::string_view kClosing = ")]}*_\"'`.:";

bool is_word(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return std::isalnum(byte) != 0 || byte >= 0x80;  // letters beyond ASCII, too
}

char upper(char c) { return static_cast<char>(std::toupper(static_cast<unsigned char>(c))); }

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

// Lower case, and one space for each stretch of white space.
std::string plain(std::string_view text) {
  std::string result;
  for (const char c : lower(trim(text))) {
    const bool space = kWhiteSpace.find(c) != std::string_view::npos;
    if (!space) {
      result += c;
    } else if (!result.ends_with(' ')) {
      result += ' ';
    }
  }
  return result;
}

std::string_view skip(std::string_view text, std::string_view characters) {
  return text.substr(std::min(text.find_first_not_of(characters), text.size()));
}

// "A marsh" and "I think" begin with a word; "A is right" does not.
bool begins_with_word(std::string_view text) {
  if (text.size() < 2 || (text[0] != 'A' && text[0] != 'I') || text[1] != ' ') return false;
  const std::string_view next = skip(text.substr(1), " ");
  return !next.empty() && is_word(next[0]) && !next.starts_with("is ");
}

// A capital letter of an option at the beginning of a text that is no part of a word.
std::optional<int64_t> leading_letter(std::string_view text, int64_t options) {
  if (text.empty() || text[0] < 'A' || text[0] >= 'A' + options) return std::nullopt;
  if (text.size() > 1 && is_word(text[1])) return std::nullopt;
  if (text.size() > 2 && text[1] == '\'' && is_word(text[2])) return std::nullopt;
  return text[0] - 'A';
}

// "... and (B)", "... or C"
bool goes_on_with_another(std::string_view text, int64_t options) {
  text = skip(text, " ");
  for (const std::string_view word : {"and ", "or "}) {
    if (text.starts_with(word)) {
      return leading_letter(skip(text.substr(word.size()), kOpening), options).has_value();
    }
  }
  return false;
}

std::optional<int64_t> first_letter(std::string_view answer, int64_t options) {
  const std::string_view text = skip(answer, kOpening);
  if (text.empty()) return std::nullopt;
  const std::string_view rest = skip(text.substr(1), kClosing);
  // Alone it may be in lower case.
  if (rest.empty()) return leading_letter(std::string(1, upper(text[0])), options);
  if (begins_with_word(text) || goes_on_with_another(rest, options)) return std::nullopt;
  return leading_letter(text, options);
}

// The letters behind each place where a word stands, in order.
std::vector<int64_t> letters_behind(std::string_view answer, std::string_view word,
                                    int64_t options) {
  const std::string lowered = lower(answer);
  std::vector<int64_t> letters;
  for (size_t at = lowered.find(word); at != std::string::npos; at = lowered.find(word, at + 1)) {
    if (at > 0 && is_word(lowered[at - 1])) continue;
    std::string_view rest = skip(answer.substr(at + word.size()), kBetween);
    bool is_named = word != "answer";  // "option A" is no article
    for (const std::string_view next : {"is", "option", "choice", "letter"}) {
      if (lower(rest.substr(0, next.size())) != next) continue;
      if (rest.size() > next.size() && is_word(rest[next.size()])) continue;
      rest = skip(rest.substr(next.size()), kBetween);
      is_named = is_named || next != "is";
    }
    const auto letter = leading_letter(skip(rest, kOpening), options);
    if (letter && (is_named || !begins_with_word(rest))) letters.push_back(*letter);
  }
  return letters;
}

std::vector<int64_t> letters_in_parentheses(std::string_view answer, int64_t options) {
  std::vector<int64_t> letters;
  for (size_t at = answer.find('('); at != std::string_view::npos; at = answer.find('(', at + 1)) {
    const auto letter = leading_letter(answer.substr(at + 1), options);
    if (letter && answer.substr(at + 2).starts_with(')')) letters.push_back(*letter);
  }
  return letters;
}

bool holds(std::string_view text, std::string_view part) {
  for (size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1)) {
    const size_t end = at + part.size();
    const bool begins = at == 0 || !is_word(text[at - 1]) || !is_word(part.front());
    const bool ends = end == text.size() || !is_word(text[end]) || !is_word(part.back());
    if (begins && ends) return true;
  }
  return false;
}

std::optional<int64_t> option_text(std::string_view answer,
                                   const std::vector<std::string>& options) {
  const std::string text = plain(answer);
  std::vector<std::string> parts;
  std::vector<int64_t> found;
  for (const std::string& option : options) {
    const std::string_view given = trim(option);
    parts.push_back(plain(given.ends_with('.') ? given.substr(0, given.size() - 1) : given));
    if (!parts.back().empty() && holds(text, parts.back())) {
      found.push_back(static_cast<int64_t>(parts.size()) - 1);
    }
  }
  const std::vector<int64_t> all = found;
  std::erase_if(found, [&](int64_t one) {
    return std::ranges::any_of(all, [&](int64_t other) {
      return parts[other].size() > parts[one].size() && holds(parts[other], parts[one]);
    });
  });
  return found.size() == 1 ? std::optional(found.front()) : std::nullopt;
}

}  // namespace

char option_letter(int64_t position) { return static_cast<char>('A' + position); }

std::optional<int64_t> chosen_option(std::string_view answer,
                                     const std::vector<std::string>& options) {
  answer = trim(answer);
  const auto count = static_cast<int64_t>(options.size());
  if (const auto letter = first_letter(answer, count)) return letter;
  if (const auto letters = letters_behind(answer, "answer", count); !letters.empty()) {
    return letters.back();
  }
  std::vector<int64_t> letters = letters_in_parentheses(answer, count);
  for (const std::string_view word : {"option", "choice"}) {
    std::ranges::copy(letters_behind(answer, word, count), std::back_inserter(letters));
  }
  const std::set<int64_t> distinct(letters.begin(), letters.end());
  if (distinct.size() == 1) return *distinct.begin();
  return option_text(answer, options);
}

}  // namespace mambify
