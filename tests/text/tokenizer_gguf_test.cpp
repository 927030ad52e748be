#include <string>
#include <vector>

#include "errors.h"
#include "testing.h"
#include "text/byte_level.h"
#include "text/tokenizer.h"
#include "vocabulary.h"

namespace mambify {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Strings = std::vector<std::string>;
using Integers = std::vector<int64_t>;

// The 256 bytes, "ab" (256), "1a" (257) and the control token <s> (258).
GgufFile small_gguf() {
  GgufFile gguf;
  gguf.path = "model.gguf";
  Strings tokens;
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(to_byte_level(std::string(1, static_cast<char>(byte))));
  }
  tokens.insert(tokens.end(), {"ab", "1a", "<s>"});
  Integers types(tokens.size(), 1);
  types.back() = 3;
  gguf.metadata = {{"tokenizer.ggml.model", std::string("gpt2")},
                   {"tokenizer.ggml.pre", std::string("smollm")},
                   {"tokenizer.ggml.tokens", tokens},
                   {"tokenizer.ggml.token_type", types},
                   {"tokenizer.ggml.merges", Strings{"1 a", "a b"}},
                   {"tokenizer.ggml.bos_token_id", int64_t{258}},
                   {"tokenizer.ggml.eos_token_id", int64_t{258}}};
  return gguf;
}

Strings pieces_with(const char* pre, const char* text) {
  GgufFile gguf = small_gguf();
  gguf.metadata["tokenizer.ggml.pre"] = std::string(pre);
  return testing::pieces(Tokenizer::from_gguf(gguf), text);
}

TEST(GgufTokenizer, CutsWordsAsItsPreTokenizerDoes) {
  const Strings apart = {"1", "ab"};
  EXPECT_EQ(pieces_with("smollm", "1ab"), apart);
  EXPECT_EQ(pieces_with("gpt-2", "1ab"), apart);
  EXPECT_EQ(pieces_with("llama-bpe", "1ab"), apart);
  EXPECT_EQ(pieces_with("smollm", "<s>1ab<s>"), (Strings{"<s>", "1", "ab", "<s>"}));
}

TEST(GgufTokenizer, AddsBosWhereTheFileOrItsPreTokenizerSaysSo) {
  GgufFile gguf = small_gguf();
  EXPECT_THAT(Tokenizer::from_gguf(gguf).encode_prompt("a"), ElementsAre('a'));
  gguf.metadata["tokenizer.ggml.add_bos_token"] = true;
  EXPECT_THAT(Tokenizer::from_gguf(gguf).encode_prompt("a"), ElementsAre(258, 'a'));
  gguf.metadata["tokenizer.ggml.pre"] = std::string("llama3");
  gguf.metadata.erase("tokenizer.ggml.add_bos_token");
  EXPECT_THAT(Tokenizer::from_gguf(gguf).encode_prompt("a"), ElementsAre(258, 'a'));
}

TEST(GgufTokenizer, SavesWhetherBosIsAdded) {
  for (const bool adds : {false, true}) {
    GgufFile gguf = small_gguf();
    gguf.metadata["tokenizer.ggml.add_bos_token"] = adds;
    const testing::ScratchFolder folder;
    Tokenizer::from_gguf(gguf).save(folder.path());
    // Without tokenizer_config.json the post-processor of tokenizer.json decides.
    for (const char* decides : {"tokenizer_config.json", "tokenizer.json"}) {
      const auto ids = Tokenizer::load(folder.path()).encode_prompt("a");
      EXPECT_EQ(ids, adds ? (std::vector<TokenId>{258, 'a'}) : (std::vector<TokenId>{'a'}))
          << decides;
      fs::remove(folder / "tokenizer_config.json");
    }
  }
}

TEST(GgufTokenizer, StopsAtTheEndOfATurn) {
  GgufFile gguf = small_gguf();
  gguf.metadata["tokenizer.ggml.eot_token_id"] = int64_t{65};
  EXPECT_THAT(Tokenizer::from_gguf(gguf).stop_ids(), ElementsAre(258, 65));
}

TEST(GgufTokenizer, RefusesFaultyMetadata) {
  const auto expect = [](const char* key, const GgufValue& value, const char* found) {
    GgufFile gguf = small_gguf();
    gguf.metadata[key] = value;
    EXPECT_ERROR(Tokenizer::from_gguf(gguf), HasSubstr("model.gguf"), HasSubstr(found));
  };
  expect("tokenizer.ggml.model", std::string("llama"), "gpt2");
  expect("tokenizer.ggml.pre", std::string("tekken"), "gpt-2, default, smollm, llama-bpe");
  expect("tokenizer.ggml.pre", std::string(""), "supported are");
  expect("tokenizer.ggml.pre", int64_t{3}, "tokenizer.ggml.pre");
  expect("tokenizer.ggml.tokens", Strings{}, "tokenizer.ggml");
  expect("tokenizer.ggml.tokens", Integers{1, 2}, "tokenizer.ggml.tokens");
  expect("tokenizer.ggml.tokens", Strings{"a", "b", "a"}, "tokenizer.ggml");
  expect("tokenizer.ggml.token_type", Integers{1, 1}, "259 tokens");
  expect("tokenizer.ggml.merges", Strings{"a zz"}, "\"zz\"");
  expect("tokenizer.ggml.merges", Strings{"ab"}, "merges[0]");
  expect("tokenizer.ggml.merges", Strings{"\xFF a"}, "UTF-8");
  expect("tokenizer.chat_template", std::string("\xFF"), "tokenizer.chat_template");
  expect("tokenizer.ggml.bos_token_id", int64_t{259}, "bos_token_id is 259");
  expect("tokenizer.ggml.eos_token_id", int64_t{-1}, "eos_token_id is -1");
  expect("tokenizer.ggml.eot_token_id", int64_t{1} << 40, "eot_token_id");

  const auto expect_token = [](size_t index, const char* token, const char* found) {
    GgufFile gguf = small_gguf();
    std::get<Strings>(gguf.metadata["tokenizer.ggml.tokens"])[index] = token;
    EXPECT_ERROR(Tokenizer::from_gguf(gguf), HasSubstr("model.gguf"), HasSubstr(found));
  };
  expect_token(66, "A", "tokenizer.ggml.tokens[66] is \"A\", which is also the token 65");
  expect_token(66, "\xC3", "tokenizer.ggml.tokens[66] is not valid UTF-8");

  for (const char* key :
       {"tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"}) {
    GgufFile gguf = small_gguf();
    gguf.metadata.erase(key);
    EXPECT_ERROR(Tokenizer::from_gguf(gguf), HasSubstr("model.gguf"), HasSubstr(key));
  }
}

}  // namespace
}  // namespace mambify
