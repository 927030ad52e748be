#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "io/json_reader.h"
#include "teacher.h"
#include "testing.h"

namespace mambify {
namespace {

using testing::fixtures;

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

TEST(Tokenizer, EncodesAndDecodesTheLlama3Cases) {
  const Tokenizer tokenizer = Tokenizer::load(fixtures() / "llama3-style-tokenizer");
  expect_cases(tokenizer, read_json(fixtures() / "llama3-style-tokenizer/cases.json")["texts"]);
}

TEST(Tokenizer, EncodesAndDecodesTheTeachersCases) {
  const auto teacher = testing::teacher_path();
  if (!teacher) GTEST_SKIP() << "MAMBIFY_TEACHER is unset";
  expect_cases(Tokenizer::load(*teacher), read_json(fixtures() / "smollm2-tokenizer-cases.json"));
}

}  // namespace
}  // namespace mambify
