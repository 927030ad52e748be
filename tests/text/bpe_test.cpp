#include "text/bpe.h"

#include <string>
#include <vector>

#include "errors.h"
#include "vocabulary.h"

namespace mambify {
namespace {

using testing::byte_document;
using testing::from_document;
using ::testing::HasSubstr;
using testing::pieces;
using Strings = std::vector<std::string>;

TEST(BytePairEncoding, MergesByRankThenFromTheLeft) {
  const auto merged = [](const std::vector<std::pair<std::string, std::string>>& merges,
                         const char* text) {
    return pieces(from_document(byte_document(merges)), text);
  };
  EXPECT_EQ(merged({{"b", "c"}, {"a", "b"}}, "abc"), (Strings{"a", "bc"}));
  EXPECT_EQ(merged({{"a", "b"}, {"b", "c"}}, "abc"), (Strings{"ab", "c"}));
  EXPECT_EQ(merged({{"a", "a"}}, "aaaaa"), (Strings{"aa", "aa", "a"}));
  EXPECT_EQ(merged({{"a", "a"}, {"aa", "aa"}, {"aaaa", "a"}}, "aaaaa"), (Strings{"aaaaa"}));
  EXPECT_EQ(merged({{"a", "b"}, {"ab", "ab"}, {"x", "abab"}}, "xabab"), (Strings{"xabab"}));
}

TEST(BytePairEncoding, NeverMergesAcrossWords) {
  EXPECT_EQ(pieces(from_document(byte_document({{"a", " "}, {" ", "b"}})), "a b"),
            (Strings{"a", " b"}));
}

TEST(BytePairEncoding, TakesMergesAsPairsOrAsText) {
  nlohmann::json document = byte_document({{"a", "b"}});
  document["model"]["merges"] = nlohmann::json::array({"a b"});
  EXPECT_EQ(pieces(from_document(document), "ab"), (Strings{"ab"}));
}

TEST(BytePairEncoding, TakesWholeWordsWhereMergesAreIgnored) {
  nlohmann::json document = byte_document();
  document["model"]["vocab"]["abc"] = 256;
  EXPECT_EQ(pieces(from_document(document), "abc abc"),
            (Strings{"a", "b", "c", " ", "a", "b", "c"}));
  document["model"]["ignore_merges"] = true;
  EXPECT_EQ(pieces(from_document(document), "abc abc"), (Strings{"abc", " ", "a", "b", "c"}));
}

TEST(BytePairEncoding, DropsBytesThatTheVocabularyLacks) {
  nlohmann::json document = byte_document({{"a", "c"}});
  document["model"]["vocab"].erase("b");
  const Tokenizer tokenizer = from_document(document);
  EXPECT_EQ(pieces(tokenizer, "babcb"), (Strings{"ac"}));
  EXPECT_EQ(pieces(tokenizer, "b"), (Strings{}));
  EXPECT_EQ(tokenizer.encode_with_ends("babcb a").ends, (std::vector<size_t>{5, 6, 7}));
}

TEST(BytePairEncoding, PutsTheUnknownTokenForBytesThatTheVocabularyLacks) {
  nlohmann::json document = byte_document();
  document["model"]["vocab"].erase("b");
  document["model"]["vocab"]["?!"] = 98;
  document["model"]["unk_token"] = "?!";
  EXPECT_EQ(pieces(from_document(document), "abbc"), (Strings{"a", "?!", "?!", "c"}));
  document["model"]["fuse_unk"] = true;
  EXPECT_EQ(pieces(from_document(document), "abbc"), (Strings{"a", "?!", "c"}));
}

// An encoder quadratic in the length would not end.
TEST(BytePairEncoding, EncodesAVeryLongWord) {
  const Tokenizer tokenizer = from_document(byte_document({{"a", "a"}, {"aa", "aa"}}));
  EXPECT_EQ(tokenizer.encode(std::string(1'000'001, 'a')).size(), 250'001u);
}

TEST(BytePairEncoding, RefusesFaultyModels) {
  const auto expect = [](const char* key, const nlohmann::json& value, const char* found) {
    nlohmann::json document = byte_document({{"a", "b"}});
    document["model"][key] = value;
    EXPECT_ERROR(from_document(document), HasSubstr("test.json"), HasSubstr(found));
  };
  using nlohmann::json;
  // Spelt out, because nlohmann takes {{"a", "b"}} for an object.
  const auto pair = [](const char* left, const char* right) { return json::array({left, right}); };
  expect("merges", json::array({pair("a", "zz")}), "merges[0] needs \"zz\"");
  expect("merges", json::array({pair("a", "b"), pair("a", "c")}), "merges[1] needs \"ac\"");
  expect("merges", json::array({"ab"}), "merges[0] is \"ab\"");
  expect("merges", json::array({"a b c"}), "merges[0]");
  expect("merges", json::array({json::array({"a"})}), "merges[0]");
  expect("merges", json::array({7}), "merges[0] is 7");
  expect("merges", "a b", "merges");
  expect("merges", nullptr, "merges");
  expect("vocab", {{"a", 0}, {"b", 0}}, "id 0");
  expect("vocab", {{"a", 2'000'000'000}}, "2000000000");
  expect("vocab", {{"a", -1}}, "-1");
  expect("vocab", {{"a", 1.5}}, "1.5");
  expect("vocab", {{"a", 18446744073709551615u}}, "18446744073709551615");
  expect("vocab", {{"a", "0"}}, "\"0\"");
  expect("vocab", nlohmann::json::array(), "vocab");
  expect("type", "WordPiece", "WordPiece");
  expect("byte_fallback", true, "byte_fallback");
  expect("dropout", 0.1, "dropout");
  expect("end_of_word_suffix", "</w>", "</w>");
  expect("unk_token", "<none>", "<none>");
}

}  // namespace
}  // namespace mambify
