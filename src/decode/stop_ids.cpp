#include "decode/stop_ids.h"

namespace mambify {

std::vector<TokenId> generation_stop_ids(const Tokenizer& tokenizer, const ChatTemplate* chat) {
  std::vector<TokenId> ids = tokenizer.stop_ids();
  if (chat != nullptr) {
    const std::vector<TokenId> ends = chat->turn_end_ids(tokenizer);
    ids.insert(ids.end(), ends.begin(), ends.end());
  }
  return ids;
}

}  // namespace mambify
