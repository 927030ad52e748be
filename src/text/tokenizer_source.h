// Where a tokenizer comes from: every format is brought into the terms of Hugging Face's files, so
// that one reader builds the tokenizer and one writer saves it.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/gguf.h"
#include "text/tokenizer.h"

namespace mambify {

// A special token as settings name it: by its text or by its id.
struct TokenReference {
  std::optional<std::string> text;
  std::optional<int64_t> id;
  std::string origin;  // the file and key, for messages

  bool named() const { return text || id; }
};

struct TokenizerSource {
  std::string origin;           // of the document, for messages
  nlohmann::json document;      // tokenizer.json
  std::optional<bool> add_bos;  // absent: the document's post-processor says
  TokenReference bos, eos;
  std::vector<TokenReference> stops;  // ends of a generation beside eos
  std::string chat_template;
  std::map<std::string, std::string> files;  // what Tokenizer::save writes, by name
};

TokenizerSource read_tokenizer_folder(const fs::path& folder);
TokenizerSource read_tokenizer_gguf(const GgufFile& gguf);

}  // namespace mambify
