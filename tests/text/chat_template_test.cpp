#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "io/json_reader.h"
#include "teacher.h"
#include "testing.h"

namespace mambify {
namespace {

using testing::fixtures;

std::vector<ChatMessage> messages_of(const nlohmann::json& list) {
  std::vector<ChatMessage> messages;
  for (const auto& entry : list) messages.push_back({entry["role"], entry["content"]});
  return messages;
}

// Every case of a list of {"messages", "add_generation_prompt", "rendered"} and perhaps "ids".
void expect_cases(const Tokenizer& tokenizer, const nlohmann::json& cases) {
  ASSERT_FALSE(cases.empty());
  const ChatTemplate chat = ChatTemplate::recognise(tokenizer);
  for (const auto& entry : cases) {
    const auto messages = messages_of(entry["messages"]);
    const bool prompt = entry["add_generation_prompt"];
    const auto rendered = entry["rendered"].get<std::string>();
    EXPECT_EQ(chat.render(messages, prompt), rendered);
    const auto ids = entry.contains("ids") ? entry["ids"].get<std::vector<TokenId>>()
                                           : tokenizer.encode(rendered);
    EXPECT_EQ(chat.tokenize(messages, prompt, tokenizer).ids, ids);
  }
}

TEST(ChatTemplate, RendersTheLlama3Cases) {
  const auto folder = fixtures() / "llama3-style-tokenizer";
  expect_cases(Tokenizer::load(folder), read_json(folder / "cases.json")["chats"]);
}

TEST(ChatTemplate, RendersTheTeachersCases) {
  const auto teacher = testing::teacher_path();
  if (!teacher) GTEST_SKIP() << "MAMBIFY_TEACHER is unset";
  expect_cases(Tokenizer::load(*teacher), read_json(fixtures() / "smollm2-chat-cases.json"));
}

}  // namespace
}  // namespace mambify
