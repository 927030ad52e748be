#include "data/examples.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "testing.h"

namespace mambify {
namespace {

std::string message_of(const std::string& content) {
  const testing::ScratchFolder folder;
  const fs::path file = folder / "data.jsonl";
  std::ofstream(file) << content;
  try {
    read_examples(file);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Examples, ReadsConversationsAndText) {
  const testing::ScratchFolder folder;
  const fs::path file = folder / "data.jsonl";
  std::ofstream(file) << R"({"messages": [{"role": "user", "content": "Hi"},)"
                      << R"( {"role": "assistant", "content": "Hello"}], "source": "x"})"
                      << "\n\n"
                      << R"({"text": "plain"})";
  const auto examples = read_examples(file);
  ASSERT_EQ(examples.size(), 2u);
  ASSERT_TRUE(examples[0].is_chat());
  EXPECT_EQ(examples[0].messages[1].role, "assistant");
  EXPECT_EQ(examples[0].messages[1].content, "Hello");
  EXPECT_FALSE(examples[1].is_chat());
  EXPECT_EQ(examples[1].text, "plain");
}

TEST(Examples, ErrorsNameFileAndLine) {
  using ::testing::AllOf;
  using ::testing::HasSubstr;
  EXPECT_THAT(message_of("{\"text\": \"a\"}\n\n{\"text\": "), HasSubstr("data.jsonl:3"));
  EXPECT_THAT(message_of("{\"text\": \"a\"}\n[1]\n"),
              AllOf(HasSubstr("data.jsonl:2"), HasSubstr("expected a JSON object")));
  EXPECT_THAT(message_of("{\"txt\": \"a\"}"), HasSubstr("neither \"messages\" nor \"text\""));
  EXPECT_THAT(message_of("{\"text\": 5}"), HasSubstr("text"));
  EXPECT_THAT(message_of("{\"messages\": []}"), HasSubstr("empty"));
  EXPECT_THAT(message_of("{\"messages\": [{\"role\": \"user\"}]}"),
              AllOf(HasSubstr("messages[0]"), HasSubstr("content")));
  EXPECT_THAT(message_of("{\"messages\": [{\"role\": \"bot\", \"content\": \"x\"}]}"),
              AllOf(HasSubstr("\"bot\""), HasSubstr("\"assistant\"")));
  EXPECT_THAT(message_of("\n\n"), HasSubstr("no example"));
}

TEST(Examples, AMissingFileIsNamed) {
  EXPECT_THROW(read_examples(fs::path("/nowhere/data.jsonl")), Error);
}

}  // namespace
}  // namespace mambify
