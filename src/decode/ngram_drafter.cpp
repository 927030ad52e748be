#include <algorithm>

#include "decode/drafter.h"

namespace mambify {
namespace {

class NgramDrafter : public Drafter {
 public:
  explicit NgramDrafter(const NgramOptions& options) : options_(options) {}

  std::vector<Draft> draft(std::span<const DraftRequest> requests) override {
    std::vector<Draft> drafts;
    for (const DraftRequest& request : requests) {
      drafts.push_back({.tokens = guess(request), .distributions = {}});
    }
    return drafts;
  }

 private:
  std::vector<TokenId> guess(const DraftRequest& request) const {
    const std::span<const TokenId> tokens = request.tokens;
    const auto count = static_cast<int64_t>(tokens.size());
    int64_t best = 0, best_end = 0;
    // `end`: where an earlier occurrence would end, and what followed it begins.
    for (int64_t end = count - 1; end >= options_.shortest && best < options_.longest; --end) {
      int64_t same = 0;
      while (same < options_.longest && same < end &&
             tokens[end - 1 - same] == tokens[count - 1 - same])
        ++same;
      if (same > best) {
        best = same;
        best_end = end;
      }
    }
    if (best < options_.shortest) return {};
    const int64_t length = std::min(request.length, count - best_end);
    return {tokens.begin() + best_end, tokens.begin() + best_end + length};
  }

  NgramOptions options_;
};

}  // namespace

std::unique_ptr<Drafter> ngram_drafter(const NgramOptions& options) {
  return std::make_unique<NgramDrafter>(options);
}

}  // namespace mambify
