#include "eval/needle/haystack.h"

#include <fmt/format.h>

#include <array>

#include "core/error.h"

namespace mambify {
namespace {

constexpr std::array<const char*, 20> kAdjectives = {
    "old",     "young",    "quiet", "small",  "tall",   "friendly", "careful",
    "tired",   "cheerful", "busy",  "clever", "slow",   "gentle",   "early",
    "patient", "curious",  "local", "shy",    "honest", "brave"};
constexpr std::array<const char*, 24> kPeople = {
    "farmer",  "teacher", "baker",   "sailor", "painter",  "doctor",   "gardener",  "driver",
    "student", "writer",  "tailor",  "singer", "miller",   "engineer", "carpenter", "librarian",
    "cook",    "nurse",   "visitor", "child",  "neighbor", "traveler", "musician",  "shepherd"};
constexpr std::array<const char*, 20> kActions = {
    "walked slowly",       "waited for a friend",  "read a long letter",  "told a story",
    "looked at the sky",   "drank some tea",       "sang an old song",    "counted the birds",
    "took a short rest",   "listened to the rain", "watched the clouds",  "ate a piece of bread",
    "drew a picture",      "thought about home",   "picked some flowers", "spoke with the others",
    "cleaned the windows", "carried a basket",     "fed the horses",      "wrote in a notebook"};
constexpr std::array<const char*, 24> kPlaces = {
    "near the river",      "by the lake",         "in the garden",     "behind the house",
    "at the market",       "under a tree",        "on the hill",       "beside the road",
    "in the library",      "at the station",      "in the village",    "near the bridge",
    "outside the school",  "in the kitchen",      "at the harbor",     "along the shore",
    "in front of the inn", "on the wooden bench", "across the field",  "in the small shop",
    "next to the mill",    "close to the forest", "inside the museum", "around the corner"};
constexpr std::array<const char*, 12> kTimes = {
    "in the morning",    "after lunch",    "before sunset",  "during the winter",
    "on a warm day",     "in the evening", "for a while",    "that afternoon",
    "when it was quiet", "every spring",   "late in autumn", "until it was dark"};

// A sentence of a file is cut behind a word from kLong bytes on, and behind any character from
// kLongest on.
constexpr size_t kLong = 250, kLongest = 400;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool begins_character(char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }

// One of a list; part tells the choices of one sentence apart.
template <size_t n>
const char* chosen(const std::array<const char*, n>& list, const CounterRandom& random, int64_t i,
                   uint32_t part) {
  return list[random.bits(static_cast<uint32_t>(i), part) % n];
}

}  // namespace

Haystack::Haystack(std::string_view text, const std::string& origin) {
  std::string sentence;
  const auto end_sentence = [&] {
    if (!sentence.empty()) sentences_.push_back(std::move(sentence));
    sentence.clear();
  };
  bool space_before = false;
  for (const char c : text) {
    if (is_space(c)) {
      const bool ends = !sentence.empty() &&
                        std::string_view(".!?").find(sentence.back()) != std::string_view::npos;
      if (ends || sentence.size() >= kLong) end_sentence();
      space_before = true;
      continue;
    }
    if (sentence.size() >= kLongest && begins_character(c)) end_sentence();
    if (space_before && !sentence.empty()) sentence += ' ';
    space_before = false;
    sentence += c;
  }
  end_sentence();
  if (sentences_.empty()) throw Error("{}: no text in this file to hide a needle in", origin);
}

std::string Haystack::sentence(const CounterRandom& random, int64_t i) const {
  if (!sentences_.empty()) {
    constexpr uint32_t kStart = 0xFFFFFFFF;  // a position that no sentence has
    const auto count = static_cast<int64_t>(sentences_.size());
    return sentences_[(random.bits(kStart, 0) % count + i) % count];
  }
  return fmt::format("The {} {} {} {} {}.", chosen(kAdjectives, random, i, 0),
                     chosen(kPeople, random, i, 1), chosen(kActions, random, i, 2),
                     chosen(kPlaces, random, i, 3), chosen(kTimes, random, i, 4));
}

}  // namespace mambify
