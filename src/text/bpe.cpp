#include "text/bpe.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/error.h"
#include "io/json_reader.h"
#include "text/byte_level.h"

namespace mambify {
namespace {

constexpr TokenId kNoToken = -1;
constexpr int32_t kNone = -1;

// The two parts of a merge, written as ["a", "b"] or, in older files, as "a b".
std::pair<std::string, std::string> merge_parts(const nlohmann::json& entry,
                                                const std::string& where) {
  if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
    return {entry[0].get<std::string>(), entry[1].get<std::string>()};
  }
  if (entry.is_string()) {
    const auto& text = entry.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  throw Error("{} is {}; expected \"a b\" or [\"a\", \"b\"]", where,
              entry.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 80));
}

}  // namespace

// A token in the making: a node of a doubly linked list inside a vector, so that a merge costs
// the same wherever it happens.
struct BytePairEncoder::Symbol {
  TokenId id;
  uint32_t bytes;  // 0: merged into its left neighbour
  int32_t previous, next;
};

// A pair that could be merged when it was seen; stale when its symbols have changed since.
struct BytePairEncoder::Candidate {
  int32_t rank, position;
  TokenId result;
  // std::push_heap keeps the largest on top: lowest rank first, then leftmost.
  bool operator<(const Candidate& other) const {
    return std::pair(rank, position) > std::pair(other.rank, other.position);
  }
};

BytePairEncoder::BytePairEncoder(const nlohmann::json& model, const std::string& origin) {
  const JsonReader reader(model, origin + ": model");
  const auto type = reader.get<std::string>("type", "BPE");
  if (type != "BPE") {
    throw Error("{}: type is {}; supported is BPE (byte-level)", reader.origin(), type);
  }
  if (reader.get("byte_fallback", false)) {
    throw Error("{}: byte_fallback is a SentencePiece vocabulary's; supported is byte-level BPE",
                reader.origin());
  }
  if (reader.get("dropout", 0.0) != 0.0) {
    throw Error("{}: dropout is {}; expected none", reader.origin(), model["dropout"].dump());
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto value = reader.get<std::string>(key, "");
    if (!value.empty()) {
      throw Error("{}: {} is \"{}\"; byte-level BPE has none", reader.origin(), key, value);
    }
  }
  ignore_merges_ = reader.get("ignore_merges", false);
  fuse_unknown_ = reader.get("fuse_unk", false);
  read_vocabulary(reader.object("vocab").json(), reader.origin());
  if (!reader.has("merges")) throw Error("{}: merges are missing", reader.origin());
  read_merges(model["merges"], reader.origin());
  if (const auto token = reader.find<std::string>("unk_token")) {
    const auto found = vocabulary_.find(*token);
    if (found == vocabulary_.end()) {
      throw Error("{}: unk_token \"{}\" is not in the vocabulary", reader.origin(), *token);
    }
    unknown_ = found->second;
  }
}

void BytePairEncoder::read_vocabulary(const nlohmann::json& vocab, const std::string& origin) {
  // Ids index tables: a file must not be able to ask for a table much larger than itself. Real
  // vocabularies have few holes.
  const int64_t limit = std::min<int64_t>(2 * static_cast<int64_t>(vocab.size()) + 1024,
                                          std::numeric_limits<TokenId>::max());
  vocabulary_.reserve(vocab.size());
  of_bytes_.reserve(vocab.size());
  of_byte_.fill(kNoToken);
  std::vector<bool> taken(static_cast<size_t>(limit));
  for (const auto& [piece, value] : vocab.items()) {
    if (!value.is_number_integer() || value.get<int64_t>() < 0 || value.get<int64_t>() >= limit) {
      throw Error("{}: vocab gives \"{}\" the id {}; expected an integer in [0, {})", origin, piece,
                  value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), limit);
    }
    const auto id = value.get<TokenId>();
    if (taken[static_cast<size_t>(id)]) {
      throw Error("{}: vocab gives the id {} to \"{}\" and to another token", origin, id, piece);
    }
    taken[static_cast<size_t>(id)] = true;
    vocabulary_.emplace(piece, id);
    if (auto bytes = from_byte_level(piece)) {
      if (bytes->size() == 1) of_byte_[static_cast<uint8_t>((*bytes)[0])] = id;
      of_bytes_.emplace(std::move(*bytes), id);
    }
  }
}

void BytePairEncoder::read_merges(const nlohmann::json& merges, const std::string& origin) {
  if (!merges.is_array()) throw Error("{}: merges are no list", origin);
  const auto id_of = [&](const std::string& piece, size_t rank) {
    const auto found = vocabulary_.find(piece);
    if (found == vocabulary_.end()) {
      throw Error("{}: merges[{}] needs \"{}\", which is not in the vocabulary", origin, rank,
                  piece);
    }
    return found->second;
  };
  merges_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto [left, right] =
        merge_parts(merges[rank], fmt::format("{}: merges[{}]", origin, rank));
    const TokenId left_id = id_of(left, rank), right_id = id_of(right, rank);
    merges_.insert_or_assign(pair_key(left_id, right_id),
                             Merge{static_cast<int32_t>(rank), id_of(left + right, rank)});
  }
}

std::vector<BytePairEncoder::Symbol> BytePairEncoder::initial_symbols(std::string_view word) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  uint32_t dropped = 0;  // bytes in front that no token covers
  bool after_unknown = false;
  for (const char c : word) {
    const TokenId known = of_byte_[static_cast<uint8_t>(c)];
    const bool joins = known == kNoToken && (!unknown_ || (fuse_unknown_ && after_unknown));
    if (joins) {
      ++(symbols.empty() ? dropped : symbols.back().bytes);
      continue;
    }
    after_unknown = known == kNoToken;
    const auto at = static_cast<int32_t>(symbols.size());
    symbols.push_back({after_unknown ? *unknown_ : known, 1 + dropped, at - 1, at + 1});
    dropped = 0;
  }
  if (!symbols.empty()) symbols.back().next = kNone;
  return symbols;
}

void BytePairEncoder::merge(std::vector<Symbol>& symbols) const {
  const auto at = [&](int32_t position) -> Symbol& {
    return symbols[static_cast<size_t>(position)];
  };
  const auto find = [&](const Symbol& left) -> const Merge* {
    const auto found = merges_.find(pair_key(left.id, at(left.next).id));
    return found == merges_.end() ? nullptr : &found->second;
  };
  std::vector<Candidate> heap;
  const auto consider = [&](int32_t position) {
    if (const Merge* merge = find(at(position))) {
      heap.push_back({merge->rank, position, merge->result});
      return true;
    }
    return false;
  };
  for (int32_t i = 0; i + 1 < static_cast<int32_t>(symbols.size()); ++i) consider(i);
  std::make_heap(heap.begin(), heap.end());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = at(best.position);
    if (left.bytes == 0 || left.next == kNone) continue;
    // The pair may have changed since; what counts is that it still merges to the same token.
    const Merge* merge = find(left);
    if (merge == nullptr || merge->result != best.result) continue;
    Symbol& right = at(left.next);
    left.id = best.result;
    left.bytes += std::exchange(right.bytes, 0);
    left.next = right.next;
    if (left.next != kNone) at(left.next).previous = best.position;
    if (left.previous != kNone && consider(left.previous)) {
      std::push_heap(heap.begin(), heap.end());
    }
    if (left.next != kNone && consider(best.position)) std::push_heap(heap.begin(), heap.end());
  }
}

void BytePairEncoder::encode(std::string_view word, std::vector<Piece>& pieces) const {
  if (word.size() >= std::numeric_limits<int32_t>::max()) {
    throw Error("a word of {} bytes is too long to encode", word.size());
  }
  if (ignore_merges_) {
    if (const auto found = of_bytes_.find(word); found != of_bytes_.end()) {
      pieces.push_back({found->second, static_cast<uint32_t>(word.size())});
      return;
    }
  }
  std::vector<Symbol> symbols = initial_symbols(word);
  if (symbols.size() > 1) merge(symbols);
  for (const Symbol& symbol : symbols) {
    if (symbol.bytes > 0) pieces.push_back({symbol.id, symbol.bytes});
  }
}

}  // namespace mambify
