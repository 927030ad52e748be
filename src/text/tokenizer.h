// Byte-level BPE as Hugging Face `tokenizers` does it, from tokenizer.json or GGUF metadata.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "io/gguf.h"

namespace mambify {

using TokenId = int32_t;

// Tokens and where they lie: token i covers the bytes [ends[i - 1], ends[i]) of the text.
struct Encoding {
  std::vector<TokenId> ids;
  std::vector<size_t> ends;
};

class Tokenizer {
 public:
  // A folder with tokenizer.json (tokenizer_config.json, generation_config.json and config.json
  // beside it give the special ids) or a GGUF file. Throws Error.
  static Tokenizer load(const fs::path& model);
  static Tokenizer from_gguf(const GgufFile& gguf);
  // The content of a tokenizer.json alone. origin: what messages call it.
  static Tokenizer from_json(std::string_view tokenizer_json, const std::string& origin);

  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Special and added tokens in the text are recognised; none is added. What is not valid UTF-8 is
  // read as U+FFFD, one for each maximal invalid sequence.
  std::vector<TokenId> encode(std::string_view text) const;
  // The same, with positions. They refer to the text as given when that is valid UTF-8.
  Encoding encode_with_ends(std::string_view text) const;
  // The same, with a beginning-of-sequence token where the tokenizer's own settings add one.
  std::vector<TokenId> encode_prompt(std::string_view text) const;

  // Text of the ids, special tokens included; bytes that are no valid UTF-8 become U+FFFD.
  std::string decode(std::span<const TokenId> ids) const;
  // The raw bytes one token stands for. This and all that takes ids throws Error for an id outside
  // [0, vocab_size()); an unused id inside stands for no bytes.
  std::string token_bytes(TokenId id) const;

  int64_t vocab_size() const;  // largest id + 1
  std::optional<TokenId> bos_id() const;
  std::optional<TokenId> eos_id() const;
  // Every id that ends a generation: eos, plus end-of-turn ids the settings name.
  const std::vector<TokenId>& stop_ids() const;
  bool is_special(TokenId id) const;
  std::optional<TokenId> find_token(std::string_view token) const;  // the literal piece
  std::string bos_token() const;  // its text, "" when there is none

  const std::string& origin() const;  // the file it came from, for messages

  // The checkpoint's own Jinja chat template, "" when it has none.
  const std::string& chat_template_source() const;
  // Equal for two tokenizers exactly when they map ids to the same bytes: a draft must match.
  uint64_t vocabulary_hash() const;

  // Writes into a folder what Hugging Face loads as the same tokenizer: the files a folder had
  // (tokenizer.json, tokenizer_config.json, generation_config.json for the stop ids,
  // chat_template.jinja), or the same made from GGUF metadata.
  void save(const fs::path& folder) const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Turns ids into text as they come, holding back the bytes of an unfinished character.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  std::string push(TokenId id);  // text that is complete now, may be ""
  std::string finish();          // what is left, invalid bytes as U+FFFD

 private:
  const Tokenizer* tokenizer_;
  std::string pending_;
};

}  // namespace mambify
