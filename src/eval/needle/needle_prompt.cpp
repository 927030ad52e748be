#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "eval/needle/needle.h"

namespace mambify {
namespace {

constexpr const char* kBefore =
    "A pass key is hidden in the text below. Find it and remember it.\n\n";
constexpr const char* kQuestion = "\n\nWhat is the pass key?";
constexpr const char* kAnswer = "The pass key is";

std::string needle_of(const std::string& key) {
  return fmt::format("The pass key is {0}. Remember it. {0} is the pass key.", key);
}

// A key of so many digits, the first of which is not 0.
std::string draw_key(const CounterRandom& random, uint32_t position, int64_t digits) {
  std::string key;
  for (int64_t i = 0; i < digits; ++i) {
    const uint32_t bits = random.bits(position, static_cast<uint32_t>(i));
    key += static_cast<char>(i == 0 ? '1' + bits % 9 : '0' + bits % 10);
  }
  return key;
}

std::vector<TokenId> tokens_of(const std::string& text, const Tokenizer& tokenizer,
                               const ChatTemplate* chat) {
  const std::string user = kBefore + text + kQuestion;
  if (chat == nullptr) return tokenizer.encode_prompt(user + " " + kAnswer);
  return tokenizer.encode(chat->render({{"user", user}}, /*add_generation_prompt=*/true) + kAnswer);
}

// The first sentences, with the needle between two of them, as near to its depth as it can stand.
// ends[i]: tokens of the first i + 1 sentences.
std::string hidden(const std::vector<std::string>& sentences, const std::vector<int64_t>& ends,
                   size_t count, double depth, const std::string& needle) {
  const auto position = static_cast<int64_t>(
      std::llround(depth * static_cast<double>(count == 0 ? 0 : ends[count - 1])));
  size_t before = 0;  // sentences
  const auto distance = [&](size_t i) { return std::abs((i == 0 ? 0 : ends[i - 1]) - position); };
  while (before < count && distance(before + 1) <= distance(before)) ++before;
  std::string text;
  for (size_t i = 0; i <= count; ++i) {
    if (i == before) text += (text.empty() ? "" : " ") + needle;
    if (i < count) text += (text.empty() ? "" : " ") + sentences[i];
  }
  return text;
}

}  // namespace

NeedlePrompt make_needle_prompt(const NeedleOptions& options, const Haystack& haystack,
                                const Tokenizer& tokenizer, const ChatTemplate* chat,
                                int64_t length, double depth, int64_t trial) {
  // Random numbers of this question alone: of its length by the sequence, of its depth and trial by
  // a seed of their own.
  const CounterRandom of_length(options.seed, RandomPurpose::sample, static_cast<uint32_t>(length));
  const auto [low, high, unused_a, unused_b] = of_length.four_bits(
      static_cast<uint32_t>(std::lround(depth * 1e6)), static_cast<uint32_t>(trial));
  const uint64_t own_seed = (uint64_t{high} << 32) | low;
  const CounterRandom keys(own_seed, RandomPurpose::sample), text(own_seed, RandomPurpose::shuffle);

  NeedlePrompt prompt;
  prompt.key = draw_key(keys, 0, options.key_digits);
  for (uint32_t i = 1; std::ssize(prompt.others) + 1 < options.candidates; ++i) {
    std::string other = draw_key(keys, i, options.key_digits);
    if (other == prompt.key || std::ranges::count(prompt.others, other) > 0) continue;
    prompt.others.push_back(std::move(other));
  }

  const std::string needle = needle_of(prompt.key);
  const auto without = static_cast<int64_t>(tokens_of(needle, tokenizer, chat).size());
  std::vector<std::string> sentences;
  std::vector<int64_t> ends;
  while (true) {
    std::string sentence = haystack.sentence(text, std::ssize(sentences));
    const int64_t tokens = (ends.empty() ? 0 : ends.back()) +
                           static_cast<int64_t>(tokenizer.encode(" " + sentence).size());
    if (without + tokens > length) break;
    ends.push_back(tokens);
    sentences.push_back(std::move(sentence));
  }
  // Tokens may join differently than they were counted.
  for (size_t count = sentences.size(); count > 0; --count) {
    prompt.ids = tokens_of(hidden(sentences, ends, count, depth, needle), tokenizer, chat);
    if (static_cast<int64_t>(prompt.ids.size()) <= length) return prompt;
  }
  throw Error(
      "a length of {} tokens is too short: the question and the needle alone take {}, and a "
      "sentence of the haystack does not fit beside them",
      length, without);
}

std::string answered_key(std::string_view answer) {
  constexpr std::string_view kDigits = "0123456789";
  const size_t begin = std::min(answer.find_first_of(kDigits), answer.size());
  const size_t end = std::min(answer.find_first_not_of(kDigits, begin), answer.size());
  return std::string(answer.substr(begin, end - begin));
}

}  // namespace mambify
