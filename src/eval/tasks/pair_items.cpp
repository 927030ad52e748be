#include "eval/tasks/pair_items.h"

#include <algorithm>

#include "core/error.h"
#include "eval/tasks/white_space.h"

namespace mambify {
namespace {

int64_t count_characters(std::string_view utf8) {
  return std::count_if(utf8.begin(), utf8.end(),
                       [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; });
}

}  // namespace

PairTemplate::PairTemplate(std::string_view text, std::string_view context,
                           std::string_view continuation, const std::string& origin) {
  const size_t at = text.find(context);
  if (!text.ends_with(continuation) || at == std::string_view::npos) {
    throw Error("{}: key 'template' is \"{}\", expected one that has {} and ends in {}", origin,
                text, context, continuation);
  }
  const size_t start = at + context.size();
  const std::string_view between = text.substr(start, text.size() - continuation.size() - start);
  before_ = text.substr(0, at);
  after_ = trim_end(between);
  space_ = between.substr(after_.size());
}

PairItem PairTemplate::fill(std::string_view given, const std::vector<std::string>& choices,
                            int64_t gold, const std::string& origin) const {
  PairItem item;
  item.context = before_ + std::string(trim_end(given)) + after_;
  for (const std::string& choice : choices) {
    if (choice.empty()) throw Error("{}: a choice is empty", origin);
    item.continuations.push_back(space_ + choice);
    item.characters.push_back(count_characters(choice));
  }
  item.gold = gold;
  return item;
}

}  // namespace mambify
