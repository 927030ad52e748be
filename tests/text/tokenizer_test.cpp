#include "text/tokenizer.h"

#include <algorithm>
#include <string>
#include <vector>

#include "errors.h"
#include "io/json_reader.h"
#include "teacher.h"
#include "testing.h"
#include "vocabulary.h"

namespace mambify {
namespace {

using testing::added_token;
using testing::byte_document;
using ::testing::ElementsAre;
using testing::fixtures;
using testing::from_document;
using ::testing::HasSubstr;
using testing::ScratchFolder;

// Every case of a list of {"text", "ids", "decoded"}.
void expect_cases(const Tokenizer& tokenizer, const nlohmann::json& cases) {
  ASSERT_FALSE(cases.empty());
  for (const auto& entry : cases) {
    const auto text = entry["text"].get<std::string>();
    const auto ids = entry["ids"].get<std::vector<TokenId>>();
    EXPECT_EQ(tokenizer.encode(text), ids) << text;
    EXPECT_EQ(tokenizer.decode(ids), entry["decoded"].get<std::string>()) << text;
  }
}

// A folder with a byte tokenizer of two special tokens, <s> (256) and <e> (257).
class FolderTest : public ::testing::Test {
 protected:
  FolderTest() { document_["added_tokens"] = {added_token("<s>", 256), added_token("<e>", 257)}; }
  Tokenizer load() {
    write_file_atomically(folder_ / "tokenizer.json", document_.dump());
    return Tokenizer::load(folder_.path());
  }
  void write(const std::string& name, const nlohmann::json& content) {
    write_file_atomically(folder_ / name, content.dump());
  }

  ScratchFolder folder_;
  nlohmann::json document_ = byte_document();
};

TEST(Tokenizer, EncodesAndDecodesTheLlama3Cases) {
  const Tokenizer tokenizer = Tokenizer::load(fixtures() / "llama3-style-tokenizer");
  expect_cases(tokenizer, read_json(fixtures() / "llama3-style-tokenizer/cases.json")["texts"]);
}

TEST(Tokenizer, EncodesAndDecodesTheTeachersCases) {
  const auto teacher = testing::teacher_path();
  if (!teacher) GTEST_SKIP() << "MAMBIFY_TEACHER is unset";
  const Tokenizer tokenizer = Tokenizer::load(*teacher);
  expect_cases(tokenizer, read_json(fixtures() / "smollm2-tokenizer-cases.json"));
  EXPECT_EQ(tokenizer.vocab_size(), 49152);
  EXPECT_EQ(tokenizer.bos_token(), "<|im_start|>");
  EXPECT_THAT(tokenizer.stop_ids(), ElementsAre(2));
  EXPECT_EQ(tokenizer.encode_prompt("Hello"), tokenizer.encode("Hello"));
}

TEST(Tokenizer, LoadsWhatItSaves) {
  std::vector<fs::path> models = {fixtures() / "llama3-style-tokenizer"};
  if (const auto teacher = testing::teacher_path()) models.push_back(*teacher);
  for (const fs::path& model : models) {
    const ScratchFolder folder;
    const Tokenizer first = Tokenizer::load(model);
    first.save(folder / "saved");
    const Tokenizer second = Tokenizer::load(folder / "saved");
    EXPECT_EQ(second.vocabulary_hash(), first.vocabulary_hash());
    EXPECT_EQ(second.vocab_size(), first.vocab_size());
    EXPECT_EQ(second.bos_id(), first.bos_id());
    EXPECT_EQ(second.eos_id(), first.eos_id());
    EXPECT_EQ(second.stop_ids(), first.stop_ids());
    EXPECT_EQ(second.chat_template_source(), first.chat_template_source());
    const std::string text = "<|eot_id|>It's 1234 ½ größer\r\n\t  日本 🙂<|im_end|>";
    EXPECT_EQ(second.encode(text), first.encode(text));
    EXPECT_EQ(second.encode_prompt(text), first.encode_prompt(text));
  }
}

TEST(Tokenizer, ReadsInvalidTextAsReplacementCharacters) {
  const Tokenizer tokenizer = from_document(byte_document());
  EXPECT_EQ(tokenizer.encode("a\xE2\x82 \xFF"), tokenizer.encode("a\uFFFD \uFFFD"));
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{'a', 0xE2, 0x82, ' ', 0xFF}), "a\uFFFD \uFFFD");
}

TEST(Tokenizer, GivesTheSameTokensWhateverWasSeenBefore) {
  const Tokenizer tokenizer = Tokenizer::load(fixtures() / "llama3-style-tokenizer");
  const std::string text = " hello world hello";
  const std::vector<TokenId> once = tokenizer.encode(text);
  std::vector<TokenId> thrice;
  for (int i = 0; i < 3; ++i) thrice.insert(thrice.end(), once.begin(), once.end());
  EXPECT_EQ(tokenizer.encode(text + text + text), thrice);
}

// What the pre-tokenizer put a space in front of is a copy, which must not be remembered.
TEST(Tokenizer, PutsASpaceInFrontOfTextBetweenAddedTokens) {
  nlohmann::json document = byte_document();
  document["added_tokens"] = {added_token("<s>", 256)};
  document["pre_tokenizer"] = {
      {"type", "ByteLevel"}, {"add_prefix_space", true}, {"use_regex", true}};
  const Tokenizer tokenizer = from_document(document);
  std::vector<TokenId> expected;
  std::string text;
  for (const std::string part : {"the first of some words", "the last of other words"}) {
    const std::vector<TokenId> ids = tokenizer.encode(part);
    EXPECT_EQ(tokenizer.decode(ids), " " + part);
    expected.insert(expected.end(), ids.begin(), ids.end());
    expected.push_back(256);
    text += part + "<s>";
  }
  EXPECT_EQ(tokenizer.encode(text), expected);
}

TEST(Tokenizer, SaysWhereTokensEnd) {
  const Tokenizer tokenizer = Tokenizer::load(fixtures() / "llama3-style-tokenizer");
  const std::string text = "def f(x):<|eot_id|> größe\n\n";
  const Encoding encoding = tokenizer.encode_with_ends(text);
  ASSERT_EQ(encoding.ends.size(), encoding.ids.size());
  size_t begin = 0;
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    EXPECT_EQ(text.substr(begin, encoding.ends[i] - begin), tokenizer.token_bytes(encoding.ids[i]));
    begin = encoding.ends[i];
  }
  EXPECT_EQ(begin, text.size());
}

TEST(Tokenizer, RefusesIdsOutsideTheVocabulary) {
  nlohmann::json document = byte_document();
  document["added_tokens"] = nlohmann::json::array({added_token("<e>", 300)});
  const Tokenizer tokenizer = from_document(document);
  EXPECT_EQ(tokenizer.vocab_size(), 301);
  EXPECT_EQ(tokenizer.token_bytes(299), "");  // a hole
  EXPECT_ERROR(tokenizer.token_bytes(301), HasSubstr("301"), HasSubstr("300"));
  EXPECT_ERROR(tokenizer.decode(std::vector<TokenId>{-1}), HasSubstr("-1"));
  EXPECT_ERROR(tokenizer.is_special(1 << 30), HasSubstr("1073741824"));
}

TEST(Tokenizer, FindsTokensByTheirText) {
  const Tokenizer tokenizer = Tokenizer::load(fixtures() / "llama3-style-tokenizer");
  EXPECT_EQ(tokenizer.find_token("<|eot_id|>"), 4);
  EXPECT_EQ(tokenizer.token_bytes(*tokenizer.find_token("Ġt")), " t");
  EXPECT_EQ(tokenizer.find_token("<|nothing|>"), std::nullopt);
}

TEST(Tokenizer, HashesTheMapFromIdsToBytes) {
  const auto hash = [](const nlohmann::json& document) {
    return from_document(document).vocabulary_hash();
  };
  nlohmann::json document = byte_document({{"a", "b"}, {"c", "d"}});
  const uint64_t first = hash(document);
  nlohmann::json merged_otherwise = document;
  merged_otherwise["pre_tokenizer"]["use_regex"] = false;
  EXPECT_EQ(hash(merged_otherwise), first);
  std::swap(document["model"]["vocab"]["ab"], document["model"]["vocab"]["cd"]);
  EXPECT_NE(hash(document), first);
  EXPECT_NE(hash(byte_document({{"a", "b"}})), first);
}

TEST(Tokenizer, RefusesFaultyDocuments) {
  const std::string text = byte_document({{"a", "b"}}).dump();
  for (const size_t length : {size_t{0}, size_t{1}, text.size() / 2, text.size() - 1}) {
    EXPECT_ERROR(Tokenizer::from_json(text.substr(0, length), "t.json"), HasSubstr("t.json"));
  }
  EXPECT_ERROR(Tokenizer::from_json(std::string(100'000, '['), "t.json"), HasSubstr("t.json"));
  EXPECT_ERROR(Tokenizer::from_json("[]", "t.json"), HasSubstr("object"));
  EXPECT_ERROR(Tokenizer::from_json("{}", "t.json"), HasSubstr("model is missing"));
  const auto expect = [](const char* key, const nlohmann::json& value, const char* found) {
    nlohmann::json document = byte_document();
    document[key] = value;
    EXPECT_ERROR(from_document(document), HasSubstr("test.json"), HasSubstr(found));
  };
  expect("normalizer", {{"type", "NFC"}}, "NFC");
  expect("normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}},
         "Lowercase");
  expect("decoder", {{"type", "WordPiece"}}, "WordPiece");
  expect("decoder", nullptr, "found none");
  expect("post_processor", {{"type", "BertProcessing"}}, "BertProcessing");
  expect("post_processor",
         {{"type", "TemplateProcessing"}, {"single", {{{"SpecialToken", {{"id", "<s>"}}}}}}},
         "special_tokens");
}

TEST_F(FolderTest, AddsBosWhereThePostProcessorSaysSo) {
  EXPECT_EQ(load().encode_prompt("a"), (std::vector<TokenId>{'a'}));
  const nlohmann::json part = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const nlohmann::json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  nlohmann::json processor = {{"type", "TemplateProcessing"},
                              {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {256}}}}}}};
  processor["single"] = {part, text};
  document_["post_processor"] = {{"type", "Sequence"}};
  document_["post_processor"]["processors"] = {{{"type", "ByteLevel"}}, processor};
  EXPECT_EQ(load().encode_prompt("a"), (std::vector<TokenId>{256, 'a'}));
  EXPECT_EQ(load().encode("a"), (std::vector<TokenId>{'a'}));
  write("tokenizer_config.json", {{"add_bos_token", false}, {"bos_token", "<s>"}});
  EXPECT_EQ(load().encode_prompt("a"), (std::vector<TokenId>{'a'}));
}

TEST_F(FolderTest, AddsBosWhereTheSettingsSaySo) {
  write("tokenizer_config.json", {{"add_bos_token", true}, {"bos_token", {{"content", "<s>"}}}});
  const Tokenizer tokenizer = load();
  EXPECT_EQ(tokenizer.encode_prompt("a"), (std::vector<TokenId>{256, 'a'}));
  EXPECT_EQ(tokenizer.bos_token(), "<s>");
}

TEST_F(FolderTest, StopsAtWhatTheSettingsName) {
  write("tokenizer_config.json", {{"eos_token", "<e>"}});
  write("config.json", {{"eos_token_id", 66}});
  EXPECT_THAT(load().stop_ids(), ElementsAre(257, 66));
  write("generation_config.json", {{"eos_token_id", {65, 257}}});
  EXPECT_THAT(load().stop_ids(), ElementsAre(257, 65));
  document_["added_tokens"].push_back(added_token("<|im_end|>", 258));
  EXPECT_THAT(load().stop_ids(), ElementsAre(257, 65));
  write("tokenizer_config.json", {{"eos_token", "<e>"}, {"chat_template", "{{'<|im_end|>'}}"}});
  EXPECT_THAT(load().stop_ids(), ElementsAre(257, 65, 258));
}

TEST_F(FolderTest, TakesSpecialIdsFromTheModelsConfigWhereTheTokenizersIsSilent) {
  write("config.json", {{"bos_token_id", 256}, {"eos_token_id", 257}});
  EXPECT_EQ(load().bos_id(), 256);
  EXPECT_EQ(load().eos_id(), 257);
  write("tokenizer_config.json", {{"bos_token", nullptr}});
  EXPECT_EQ(load().bos_id(), std::nullopt);
}

TEST_F(FolderTest, PrefersTheTemplateOfItsOwnFile) {
  write("tokenizer_config.json",
        {{"chat_template",
          {{{"name", "tool_use"}, {"template", "T"}}, {{"name", "default"}, {"template", "D"}}}}});
  EXPECT_EQ(load().chat_template_source(), "D");
  write_file_atomically(folder_ / "chat_template.jinja", "J");
  EXPECT_EQ(load().chat_template_source(), "J");
}

TEST_F(FolderTest, NamesSettingsThatDoNotFit) {
  write("tokenizer_config.json", {{"eos_token", "<none>"}});
  EXPECT_ERROR(load(), HasSubstr("tokenizer_config.json"), HasSubstr("<none>"));
  write("tokenizer_config.json", {{"eos_token", 7}});
  EXPECT_ERROR(load(), HasSubstr("tokenizer_config.json"), HasSubstr("eos_token"));
  write("tokenizer_config.json", nlohmann::json::object());
  write("generation_config.json", {{"eos_token_id", {257, 99999}}});
  EXPECT_ERROR(load(), HasSubstr("generation_config.json"), HasSubstr("99999"));
  write("generation_config.json", {{"eos_token_id", "</s>"}});
  EXPECT_ERROR(load(), HasSubstr("generation_config.json"), HasSubstr("eos_token_id"));
}

TEST_F(FolderTest, NamesWhatIsMissing) {
  EXPECT_ERROR(Tokenizer::load(folder_.path()), HasSubstr("tokenizer.json"));
  EXPECT_ERROR(Tokenizer::load(folder_ / "nothing"), HasSubstr("nothing"));
}

}  // namespace
}  // namespace mambify
