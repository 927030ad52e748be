// Text as it grows, cut at the first stop string, and never shown before it is certain.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mambify {

class StopStrings {
 public:
  // Throws UsageError for an empty stop string.
  explicit StopStrings(std::vector<std::string> stops);

  // Appends text and returns what is certain now: all of it but the longest ending that may yet
  // become a stop string. Once stopped() it takes no more text.
  std::string push(std::string_view text);
  // No more text comes: returns what was held back.
  std::string finish();
  // A stop string was found. It and all behind it are not part of the text; of several the one
  // that is complete first counts, of those the longest, however the text was cut into pieces.
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string pending_;
  bool stopped_ = false;
};

}  // namespace mambify
