// Any text as a tokenizer.json: a tokenizer that holds its promises, or an Error, and nothing else.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace {

using mambify::Encoding;
using mambify::TokenId;
using mambify::Tokenizer;

void require(bool holds) {
  if (!holds) std::abort();
}

void use(const Tokenizer& tokenizer, std::string_view text) {
  const Encoding encoding = tokenizer.encode_with_ends(text);
  require(encoding.ends.size() == encoding.ids.size());
  size_t end = 0;
  for (const size_t next : encoding.ends) {
    require(next >= end && next <= 3 * text.size());  // U+FFFD is three bytes for one
    end = next;
  }
  require(tokenizer.encode(text) == encoding.ids);

  mambify::StreamDecoder decoder(tokenizer);
  std::string parts;
  for (const TokenId id : encoding.ids) parts += decoder.push(id);
  parts += decoder.finish();
  require(mambify::is_valid_utf8(parts));
  require(parts == tokenizer.decode(encoding.ids));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const Tokenizer tokenizer = Tokenizer::from_json(text, "input");
    tokenizer.vocabulary_hash();
    for (const char* sample :
         {"", "aab ab  abb\n\n1234 ½ größe \u3000x<s> <s>", "it's \xF0\x9F\x99 \xFF a\x80"}) {
      try {
        use(tokenizer, sample);
        tokenizer.encode_prompt(sample);
      } catch (const mambify::Error&) {  // an expression that backtracks too much
      }
    }
    use(tokenizer, text.substr(0, 200));
  } catch (const mambify::Error&) {
  }
  return 0;
}
