#include "data/pairs.h"

#include <fstream>

#include "errors.h"
#include "testing.h"

namespace mambify {
namespace {

using ::testing::HasSubstr;

std::string roles_and_texts(const std::vector<ChatMessage>& messages) {
  std::string text;
  for (const ChatMessage& message : messages) {
    text += message.role.substr(0, 1) + ":" + message.content + " ";
  }
  return text;
}

// "prompt | chosen | rejected" of a line.
std::string read(const std::string& line) {
  const PreferencePair pair = parse_pair(line, "pairs.jsonl:1");
  return roles_and_texts(pair.prompt) + "| " + roles_and_texts(pair.chosen) + "| " +
         roles_and_texts(pair.rejected);
}

std::string message(const std::string& role, const std::string& content) {
  return R"({"role": ")" + role + R"(", "content": ")" + content + R"("})";
}

TEST(Pairs, StringsAreTurns) {
  EXPECT_EQ(read(R"({"prompt": "Q", "chosen": "good", "rejected": "bad", "score": 3})"),
            "u:Q | a:good | a:bad ");
}

TEST(Pairs, ListsMayBeAnswersOrWholeConversations) {
  const std::string user = message("user", "Q"), good = message("assistant", "good"),
                    bad = message("assistant", "bad"), system = message("system", "S");
  const std::string expected = "u:Q | a:good | a:bad ";
  // As trl's conversational data, with and without a prompt of their own.
  EXPECT_EQ(
      read("{\"prompt\": [" + user + "], \"chosen\": [" + good + "], \"rejected\": [" + bad + "]}"),
      expected);
  EXPECT_EQ(
      read("{\"chosen\": [" + user + ", " + good + "], \"rejected\": [" + user + ", " + bad + "]}"),
      expected);
  // As UltraFeedback: the prompt is there as a string, too.
  EXPECT_EQ(read("{\"prompt\": \"Q\", \"chosen\": [" + user + ", " + good + "], \"rejected\": [" +
                 user + ", " + bad + "]}"),
            expected);
  // A list that repeats the prompt's messages, and a prompt of several.
  EXPECT_EQ(read("{\"prompt\": [" + system + ", " + user + "], \"chosen\": [" + system + ", " +
                 user + ", " + good + "], \"rejected\": [" + bad + "]}"),
            "s:S u:Q | a:good | a:bad ");
  EXPECT_EQ(read("{\"prompt\": null, \"chosen\": [" + user + ", " + good + "], \"rejected\": [" +
                 user + ", " + bad + "]}"),
            expected);
}

TEST(Pairs, AnswersBeginWhereTheConversationsPart) {
  const std::string first = message("user", "Q") + ", " + message("assistant", "A") + ", ";
  EXPECT_EQ(read("{\"chosen\": [" + first + message("user", "R") + ", " +
                 message("assistant", "good") + "], \"rejected\": [" + first +
                 message("user", "R") + ", " + message("assistant", "bad") + "]}"),
            "u:Q a:A u:R | a:good | a:bad ");
  EXPECT_EQ(read(R"({"prompt": "Q", "chosen": "same", "rejected": "same"})"),
            "u:Q | a:same | a:same ");
}

TEST(Pairs, ErrorsNameFileAndLine) {
  const testing::ScratchFolder folder;
  const auto read_file = [&](const std::string& content) {
    const fs::path file = folder / "pairs.jsonl";
    std::ofstream(file) << content;
    read_pairs(std::vector{file});
  };
  const std::string good = R"({"prompt": "Q", "chosen": "good", "rejected": "bad"})";
  EXPECT_ERROR(read_file(good + "\n\n{\"prompt\": "), HasSubstr("pairs.jsonl:3"));
  EXPECT_ERROR(read_file(good + "\n[1]"), HasSubstr("pairs.jsonl:2"), HasSubstr("JSON object"));
  EXPECT_ERROR(read_file(R"({"prompt": "Q", "chosen": "a"})"), HasSubstr("no \"rejected\""));
  EXPECT_ERROR(read_file(R"({"prompt": "Q", "chosen": 3, "rejected": "b"})"),
               HasSubstr("\"chosen\" is number"), HasSubstr("a string or a list of messages"));
  EXPECT_ERROR(read_file(R"({"prompt": "Q", "chosen": [], "rejected": "b"})"),
               HasSubstr("\"chosen\" is empty"));
  EXPECT_ERROR(read_file("{\"prompt\": \"Q\", \"chosen\": [" + message("bot", "x") +
                         "], \"rejected\": \"b\"}"),
               HasSubstr("chosen[0]"), HasSubstr("\"bot\""));
  EXPECT_ERROR(read_file("{\"chosen\": [" + message("user", "Q") + "], \"rejected\": [" +
                         message("user", "Q") + ", " + message("assistant", "b") + "]}"),
               HasSubstr("pairs.jsonl:1"), HasSubstr("\"chosen\" ends with a message of"));
  EXPECT_ERROR(read_file(R"({"chosen": "a", "rejected": "b"})"), HasSubstr("no user's turn"));
  EXPECT_ERROR(read_file("{\"prompt\": \"Q\", \"chosen\": [" + message("user", "Q") + ", " +
                         message("user", "R") + "], \"rejected\": \"b\"}"),
               HasSubstr("\"chosen\" ends with a message of \"user\""));
  EXPECT_ERROR(read_file("\n"), HasSubstr("no pair in this file"));
  EXPECT_ERROR(read_pairs(std::vector<fs::path>{"/nowhere/pairs.jsonl"}),
               HasSubstr("/nowhere/pairs.jsonl"));
}

TEST(Pairs, WhatIsWrittenIsRead) {
  const testing::ScratchFolder folder;
  const std::vector<PreferencePair> pairs = {
      {{{"system", "S"}, {"user", "Q \"x\"\n"}}, {{"assistant", "good"}}, {{"assistant", "bad"}}},
      {{{"user", "R"}}, {{"assistant", "\u00e9"}}, {{"assistant", ""}}}};
  write_pairs(folder / "pairs.jsonl", pairs);
  const auto found = read_pairs(std::vector<fs::path>{folder / "pairs.jsonl"});
  ASSERT_EQ(found.size(), 2u);
  for (size_t i = 0; i < pairs.size(); ++i) {
    EXPECT_EQ(roles_and_texts(found[i].prompt), roles_and_texts(pairs[i].prompt));
    EXPECT_EQ(roles_and_texts(found[i].chosen), roles_and_texts(pairs[i].chosen));
    EXPECT_EQ(roles_and_texts(found[i].rejected), roles_and_texts(pairs[i].rejected));
  }
}

}  // namespace
}  // namespace mambify
