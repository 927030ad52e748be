#include "decode/stop_strings.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace mambify {

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) {
    if (stop.empty()) throw UsageError("a stop string is empty");
  }
}

std::string StopStrings::push(std::string_view text) {
  if (stopped_) return "";
  pending_ += text;
  size_t first_end = std::string::npos, cut = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t begin = pending_.find(stop);
    if (begin == std::string::npos) continue;
    if (begin + stop.size() < first_end || (begin + stop.size() == first_end && begin < cut)) {
      first_end = begin + stop.size();
      cut = begin;
    }
  }
  if (cut != std::string::npos) {
    stopped_ = true;
    pending_.resize(cut);
    return std::exchange(pending_, "");
  }
  size_t held = 0;
  for (const std::string& stop : stops_) {
    for (size_t length = std::min(stop.size() - 1, pending_.size()); length > held; --length) {
      if (std::string_view(pending_).ends_with(std::string_view(stop).substr(0, length))) {
        held = length;
      }
    }
  }
  std::string certain = pending_.substr(0, pending_.size() - held);
  pending_.erase(0, certain.size());
  return certain;
}

std::string StopStrings::finish() { return std::exchange(pending_, ""); }

}  // namespace mambify
