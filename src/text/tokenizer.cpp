#include "text/tokenizer.h"

#include <algorithm>
#include <map>
#include <utility>

#include "core/error.h"
#include "io/json_reader.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/byte_level.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer_document.h"
#include "text/tokenizer_source.h"
#include "text/utf8.h"

namespace mambify {
namespace {

// Ends of a turn in the chat templates that the program knows. Settings often name the end of a
// text only.
constexpr const char* kTurnEnds[] = {"<|im_end|>", "<|eot_id|>"};

// Words longer than this are hardly ever seen twice.
constexpr size_t kLongestCachedWord = 64;

void add_once(std::vector<TokenId>& ids, TokenId id) {
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(TokenizerSource source);

  // What one id is. A hole in the vocabulary has no literal and no bytes.
  struct Token {
    std::string literal;  // as the vocabulary writes it
    std::string bytes;
    bool special = false;
  };

  void set_token(TokenId id, const std::string& literal, std::string bytes, bool special);
  TokenId resolve(const TokenReference& reference) const;
  std::optional<TokenId> find(std::string_view literal) const;
  const Token& at(TokenId id) const;
  Encoding encode(std::string_view text) const;

  std::string origin;
  BytePairEncoder bpe;
  PreTokenizer pre_tokenizer;
  std::vector<AddedToken> added;
  AddedTokenFinder first_added, normalized_added;
  std::vector<Token> tokens;
  TokenIndex added_index;
  std::vector<TokenId> prompt_prefix;
  std::optional<TokenId> bos, eos;
  std::vector<TokenId> stops;
  std::string chat_template;
  std::map<std::string, std::string> files;
};

namespace {

std::vector<AddedToken> only(const std::vector<AddedToken>& tokens, bool normalized) {
  std::vector<AddedToken> result;
  std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(result),
               [&](const AddedToken& token) { return token.normalized == normalized; });
  return result;
}

}  // namespace

Tokenizer::Impl::Impl(TokenizerSource source)
    : origin(source.origin),
      bpe(required_entry(source.document, "model", origin), origin),
      pre_tokenizer(optional_entry(source.document, "pre_tokenizer", origin), origin),
      added(read_added_tokens(source.document, bpe.vocabulary(), origin)),
      first_added(only(added, /*normalized=*/false)),
      normalized_added(only(added, /*normalized=*/true)),
      chat_template(std::move(source.chat_template)),
      files(std::move(source.files)) {
  check_normalizer_and_decoder(source.document, origin);
  for (const auto& [literal, id] : bpe.vocabulary()) {
    set_token(id, literal, from_byte_level(literal).value_or(literal), false);
  }
  for (const AddedToken& token : added) {
    set_token(token.id, token.content, token.content, token.special);
    added_index.emplace(token.content, token.id);
  }
  if (tokens.empty()) throw Error("{}: the vocabulary is empty", origin);

  if (source.bos.named()) bos = resolve(source.bos);
  if (source.eos.named()) stops.push_back(*(eos = resolve(source.eos)));
  for (const TokenReference& stop : source.stops) add_once(stops, resolve(stop));
  for (const char* end : kTurnEnds) {
    const auto id = find(end);
    if (id && chat_template.find(end) != std::string::npos) add_once(stops, *id);
  }
  if (!source.add_bos) {
    prompt_prefix = read_prompt_prefix(source.document, origin);
    for (const TokenId id : prompt_prefix) at(id);
  } else if (*source.add_bos && bos) {
    prompt_prefix = {*bos};
  }
}

void Tokenizer::Impl::set_token(TokenId id, const std::string& literal, std::string bytes,
                                bool special) {
  if (static_cast<size_t>(id) >= tokens.size()) tokens.resize(static_cast<size_t>(id) + 1);
  tokens[static_cast<size_t>(id)] = {literal, std::move(bytes), special};
}

TokenId Tokenizer::Impl::resolve(const TokenReference& reference) const {
  if (reference.text) {
    if (const auto id = find(*reference.text)) return *id;
    throw Error("{} is \"{}\", which is not in the vocabulary", reference.origin, *reference.text);
  }
  if (*reference.id < 0 || *reference.id >= static_cast<int64_t>(tokens.size())) {
    throw Error("{} is {}; the vocabulary's ids end at {}", reference.origin, *reference.id,
                tokens.size() - 1);
  }
  return static_cast<TokenId>(*reference.id);
}

std::optional<TokenId> Tokenizer::Impl::find(std::string_view literal) const {
  for (const TokenIndex* index : {&added_index, &bpe.vocabulary()}) {
    if (const auto found = index->find(literal); found != index->end()) return found->second;
  }
  return std::nullopt;
}

const Tokenizer::Impl::Token& Tokenizer::Impl::at(TokenId id) const {
  if (id < 0 || static_cast<size_t>(id) >= tokens.size()) {
    throw Error("{}: there is no token {}; ids are 0 to {}", origin, id, tokens.size() - 1);
  }
  return tokens[static_cast<size_t>(id)];
}

Encoding Tokenizer::Impl::encode(std::string_view text) const {
  std::string replaced;
  if (!is_valid_utf8(text)) text = replaced = to_valid_utf8(text);

  Encoding encoding;
  const auto emit = [&](TokenId id, size_t end) {
    encoding.ids.push_back(id);
    encoding.ends.push_back(end);
  };
  // Pieces of all words seen; a word is a range of them.
  std::vector<BytePairEncoder::Piece> pieces;
  std::unordered_map<std::string_view, std::pair<size_t, size_t>> seen;
  const auto encode_word = [&](const PreToken& token, size_t offset) {
    const size_t shift = token.word.size() - (token.range.end - token.range.begin);
    // The key is the text's own bytes: a pre-tokenizer's copy lives only as long as this call.
    const std::string_view key = text.substr(offset + token.range.begin, token.word.size());
    const bool cacheable = shift == 0 && key.size() <= kLongestCachedWord;
    std::pair<size_t, size_t> range{pieces.size(), pieces.size()};
    bool known = false;
    if (cacheable) {
      const auto [entry, is_new] = seen.try_emplace(key, range);
      if (!(known = !is_new)) {
        bpe.encode(token.word, pieces);
        entry->second.second = pieces.size();
      }
      range = entry->second;
    } else {
      bpe.encode(token.word, pieces);
      range.second = pieces.size();
    }
    size_t end = 0;
    for (size_t i = range.first; i < range.second; ++i) {
      end += pieces[i].bytes;
      emit(pieces[i].id, offset + token.range.begin + (end > shift ? end - shift : 0));
    }
  };
  const auto encode_plain = [&](size_t begin, size_t end) {
    pre_tokenizer.split(text.substr(begin, end - begin),
                        [&](const PreToken& token) { encode_word(token, begin); });
  };
  first_added.split(text, [&](std::optional<TokenId> id, ByteRange outer) {
    if (id) return emit(*id, outer.end);
    normalized_added.split(text.substr(outer.begin, outer.end - outer.begin),
                           [&](std::optional<TokenId> inner_id, ByteRange inner) {
                             const size_t begin = outer.begin + inner.begin;
                             const size_t end = outer.begin + inner.end;
                             inner_id ? emit(*inner_id, end) : encode_plain(begin, end);
                           });
  });
  return encoding;
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::load(const fs::path& model) {
  if (!fs::is_directory(model)) {
    if (is_gguf(model)) return from_gguf(open_gguf(model));
    throw Error("{} is neither a GGUF file nor a folder with a tokenizer.json", model.string());
  }
  return Tokenizer(std::make_unique<Impl>(read_tokenizer_folder(model)));
}

Tokenizer Tokenizer::from_gguf(const GgufFile& gguf) {
  return Tokenizer(std::make_unique<Impl>(read_tokenizer_gguf(gguf)));
}

Tokenizer Tokenizer::from_json(std::string_view tokenizer_json, const std::string& origin) {
  TokenizerSource source;
  source.origin = origin;
  source.document = parse_json(tokenizer_json, origin);
  source.files["tokenizer.json"] = tokenizer_json;
  return Tokenizer(std::make_unique<Impl>(std::move(source)));
}

std::vector<TokenId> Tokenizer::encode(std::string_view text) const {
  return std::move(impl_->encode(text).ids);
}

Encoding Tokenizer::encode_with_ends(std::string_view text) const { return impl_->encode(text); }

std::vector<TokenId> Tokenizer::encode_prompt(std::string_view text) const {
  std::vector<TokenId> ids = impl_->prompt_prefix;
  const std::vector<TokenId> rest = encode(text);
  ids.insert(ids.end(), rest.begin(), rest.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const TokenId> ids) const {
  std::string bytes;
  for (const TokenId id : ids) bytes += impl_->at(id).bytes;
  return is_valid_utf8(bytes) ? bytes : to_valid_utf8(bytes);
}

std::string Tokenizer::token_bytes(TokenId id) const { return impl_->at(id).bytes; }

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(impl_->tokens.size()); }
std::optional<TokenId> Tokenizer::bos_id() const { return impl_->bos; }
std::optional<TokenId> Tokenizer::eos_id() const { return impl_->eos; }
const std::vector<TokenId>& Tokenizer::stop_ids() const { return impl_->stops; }
bool Tokenizer::is_special(TokenId id) const { return impl_->at(id).special; }

std::optional<TokenId> Tokenizer::find_token(std::string_view token) const {
  return impl_->find(token);
}

std::string Tokenizer::bos_token() const {
  return impl_->bos ? impl_->at(*impl_->bos).literal : "";
}

const std::string& Tokenizer::origin() const { return impl_->origin; }
const std::string& Tokenizer::chat_template_source() const { return impl_->chat_template; }

uint64_t Tokenizer::vocabulary_hash() const {
  // FNV-1a over each id's length and bytes.
  uint64_t hash = 0xCBF29CE484222325;
  const auto mix = [&](uint8_t byte) { hash = (hash ^ byte) * 0x100000001B3; };
  for (const Impl::Token& token : impl_->tokens) {
    for (size_t length = token.bytes.size(), i = 0; i < 4; ++i) {
      mix(static_cast<uint8_t>(length >> 8 * i));
    }
    for (const char byte : token.bytes) mix(static_cast<uint8_t>(byte));
  }
  return hash;
}

void Tokenizer::save(const fs::path& folder) const {
  fs::create_directories(folder);
  for (const auto& [name, content] : impl_->files) write_file_atomically(folder / name, content);
}

std::string StreamDecoder::push(TokenId id) {
  pending_ += tokenizer_->token_bytes(id);
  const size_t complete = complete_utf8_length(pending_);
  std::string text = to_valid_utf8(std::string_view(pending_).substr(0, complete));
  pending_.erase(0, complete);
  return text;
}

std::string StreamDecoder::finish() { return to_valid_utf8(std::exchange(pending_, "")); }

}  // namespace mambify
