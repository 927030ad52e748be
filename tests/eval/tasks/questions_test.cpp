#include "eval/tasks/questions.h"

#include <fstream>

#include "errors.h"
#include "testing.h"

namespace mambify {
namespace {

using ::testing::HasSubstr;

class Questions : public ::testing::Test {
 protected:
  fs::path file(const std::string& content) {
    std::ofstream(scratch_ / "questions") << content;
    return scratch_ / "questions";
  }
  testing::ScratchFolder scratch_;
};

TEST_F(Questions, OfMtBenchHaveTurnsAndACategory) {
  const auto questions = read_mt_bench_questions(
      file(R"({"question_id": 82, "category": "writing", "turns": ["One.", "Two."]}
{"question_id": 81, "category": "math", "turns": ["Three."], "reference": ["3"]}
)"));
  ASSERT_EQ(questions.size(), 2u);
  EXPECT_EQ(questions[0].turns, (std::vector<std::string>{"One.", "Two."}));
  EXPECT_EQ(questions[0].category, "writing");
  EXPECT_EQ(questions[1].record["question_id"], 81);
  EXPECT_EQ(read_mt_bench_questions(scratch_ / "questions", 1).size(), 1u);
}

TEST_F(Questions, OfMtBenchAreRefusedByLineAndKey) {
  EXPECT_ERROR(read_mt_bench_questions(file(R"({"question_id": 1, "category": "a", "turns": []})")),
               HasSubstr("questions:1"), HasSubstr("'turns'"));
  EXPECT_ERROR(
      read_mt_bench_questions(file(R"({"question_id": "1", "category": "a", "turns": [""]})")),
      HasSubstr("'question_id'"));
  EXPECT_ERROR(read_mt_bench_questions(file(R"({"question_id": 1, "turns": ["a"]})")),
               HasSubstr("'category'"));
  const std::string line = R"({"question_id": 1, "category": "a", "turns": ["b"]})"
                           "\n";
  EXPECT_ERROR(read_mt_bench_questions(file(line + line)), HasSubstr("questions:2"),
               HasSubstr("twice"));
  EXPECT_ERROR(read_mt_bench_questions(file("")), HasSubstr("no line"));
}

TEST_F(Questions, OfAlpacaEvalAreAList) {
  const auto questions =
      read_alpaca_instructions(file(R"([{"instruction": "Say hi", "dataset": "koala"},
              {"instruction": "Translate", "input": "Haus", "output": "house"},
              {"instruction": "Go", "input": ""}])"));
  ASSERT_EQ(questions.size(), 3u);
  EXPECT_EQ(questions[0].turns, (std::vector<std::string>{"Say hi"}));
  EXPECT_EQ(questions[0].category, "koala");
  EXPECT_EQ(questions[1].turns, (std::vector<std::string>{"Translate\n\nHaus"}));
  EXPECT_EQ(questions[2].turns, (std::vector<std::string>{"Go"}));
  EXPECT_EQ(read_alpaca_instructions(scratch_ / "questions", 2).size(), 2u);
}

TEST_F(Questions, OfAlpacaEvalAreRefusedByElementAndKey) {
  EXPECT_ERROR(read_alpaca_instructions(file("[]")), HasSubstr("list"));
  EXPECT_ERROR(read_alpaca_instructions(file(R"({"instruction": "a"})")), HasSubstr("list"));
  EXPECT_ERROR(read_alpaca_instructions(file(R"([{"instruction": "a"}, {"dataset": "b"}])")),
               HasSubstr("element 2"), HasSubstr("'instruction'"));
}

TEST(MtBenchTemperature, IsThatOfFastChat) {
  for (const char* category : {"writing", "roleplay", "something new"}) {
    EXPECT_EQ(mt_bench_temperature(category), 0.7) << category;
  }
  for (const char* category : {"stem", "humanities"}) {
    EXPECT_EQ(mt_bench_temperature(category), 0.1) << category;
  }
  for (const char* category : {"extraction", "math", "coding", "reasoning"}) {
    EXPECT_EQ(mt_bench_temperature(category), 0) << category;
  }
}

}  // namespace
}  // namespace mambify
