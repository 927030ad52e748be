#include "eval/tasks/number_task.h"

#include "errors.h"
#include "eval/limited_model.h"
#include "eval/tasks/extract_number.h"
#include "eval/tasks/task_files.h"

namespace mambify {
namespace {

using ::testing::HasSubstr;

class NumberTaskFile : public testing::TaskFiles {};

TEST_F(NumberTaskFile, ReadsGsm8kAndPlainLines) {
  write("items.jsonl", R"({"question": "How many? ", "answer": "1 + 1 = 2.\n#### 1,002"}
{"query": "Cost?", "gold": "$3."}
{"query": "More?", "gold": -4}
)");
  const auto task = read_one<NumberTask>();
  ASSERT_EQ(task->size(), 3);
  EXPECT_EQ(task->items()[0].question, "Question: How many?\nAnswer:");
  EXPECT_EQ(task->items()[0].gold, "1002");
  EXPECT_EQ(task->items()[1].gold, "3");
  EXPECT_EQ(task->items()[2].gold, "-4");
  EXPECT_FALSE(task->answering().chat);
  EXPECT_EQ(task->answering().max_tokens, 256);
  EXPECT_EQ(task->answering().stop, (std::vector<std::string>{"Question:"}));
}

TEST_F(NumberTaskFile, ShowsTheFirstExamplesOfAnotherFile) {
  write("items.jsonl", R"({"query": "Three?", "gold": "3"})");
  write("shots.jsonl", R"({"question": "One?", "answer": "It is.\n#### 1"}
{"query": "Two?", "gold": 2}
{"query": "Never shown", "gold": 9}
)");
  const auto task = read_one<NumberTask>(
      "shots = 2\nshots_file = 'shots.jsonl'\nchat = true\nsystem = 'Be brief.'\n"
      "template = '{query}'\nmax_tokens = 9\ntemperature = 0.5");
  const Answering& answering = task->answering();
  ASSERT_EQ(answering.shots.size(), 2u);
  EXPECT_EQ(answering.shots[0].question, "One?");
  EXPECT_EQ(answering.shots[0].answer, "It is.\n#### 1");
  EXPECT_EQ(answering.shots[1].answer, "2");
  EXPECT_TRUE(answering.stop.empty());
  EXPECT_EQ(answering.sampling.temperature, 0.5);
  EXPECT_EQ(answering.system, "Be brief.");
  EXPECT_EQ(answering.max_tokens, 9);
}

TEST_F(NumberTaskFile, RefusesWhatItCannotRead) {
  write("items.jsonl", R"({"query": "a", "gold": "12"})");
  EXPECT_NO_THROW(read_one<NumberTask>());
  EXPECT_ERROR(read_one<NumberTask>("template = 'no place'"), HasSubstr("{query}"));
  EXPECT_ERROR(read_one<NumberTask>("template = '{query} {query}'"), HasSubstr("once"));
  EXPECT_ERROR(read_one<NumberTask>("shots = 2"), HasSubstr("'shots_file'"));
  EXPECT_ERROR(read_one<NumberTask>("shots_file = 'items.jsonl'"), HasSubstr("'shots'"));
  EXPECT_ERROR(read_one<NumberTask>("shots = 1\nshots_file = 'items.jsonl'"),
               HasSubstr("file of the questions"));
  write("shots.jsonl", R"({"query": "b", "gold": "1"})");
  EXPECT_ERROR(read_one<NumberTask>("shots = 3\nshots_file = 'shots.jsonl'"),
               HasSubstr("has 1 lines"));
  EXPECT_ERROR(read_one<NumberTask>("max_tokens = 0"), HasSubstr("'max_tokens'"));
  EXPECT_ERROR(read_one<NumberTask>("temperature = -1"), HasSubstr("temperature"));
  EXPECT_ERROR(read_one<NumberTask>("stop = ['']"), HasSubstr("'stop'"));
  EXPECT_ERROR(read_one<NumberTask>("system = 'x'"), HasSubstr("chat"));
  EXPECT_ERROR(read_one<NumberTask>("marker = ''"), HasSubstr("'marker'"));
  for (const char* line : {R"({"query": "a", "gold": "twelve"})", R"({"query": "a", "gold": ""})",
                           R"({"question": "a", "answer": "It is 3, so there"})",
                           R"({"question": "a"})", R"({"gold": "1"})"}) {
    write("items.jsonl", line);
    EXPECT_ERROR(read_one<NumberTask>(), HasSubstr("items.jsonl:1"));
  }
}

class NumberTaskScores : public ::testing::Test {
 protected:
  // Writes digits, dots and the marker.
  static Model model() {
    return testing::limited_model(tokenizer(), {"1", "7", "3", "#", "Ġ", ".", "Ċ"}, 3);
  }
  static Tokenizer tokenizer() {
    return Tokenizer::load(testing::fixtures() / "llama3-style-tokenizer");
  }
};

TEST_F(NumberTaskScores, AreThoseOfWhatTheModelWrites) {
  const Tokenizer tokens = tokenizer();
  const Model writer = model();
  const Answering answering{
      .chat = false, .shots = {{"Q: one?", "7"}, {"Q: two?", "13"}}, .max_tokens = 12};
  std::vector<NumberItem> items;
  std::vector<double> flexible;
  std::vector<std::string> texts;
  for (int i = 0; i < 6; ++i) {
    const std::string question = "Q: number " + std::to_string(i) + "?\nA:";
    texts.push_back(testing::greedy_text(
        writer, tokens, tokens.encode_prompt("Q: one? 7\n\nQ: two? 13\n\n" + question), 12));
    const auto last = last_number(texts.back());
    const bool right = i % 2 == 0 && last.has_value();
    items.push_back({question, right ? normalise_number(*last) : "12345"});
    flexible.push_back(right ? 1 : 0);
  }
  const NumberTask task("t", items, answering);
  const TaskSubject subject(writer, tokenizer(), {.rows = 4});
  const TaskOutcome outcome = task.run(subject);
  ASSERT_EQ(outcome.metrics.size(), 2u);
  EXPECT_EQ(outcome.metrics[0].name, "strict_match");
  EXPECT_EQ(outcome.metrics[1].name, "flexible_extract");
  EXPECT_EQ(outcome.metrics[1].values, flexible);
  EXPECT_GT(std::count(flexible.begin(), flexible.end(), 1), 0) << "the fixture writes no number";
  for (size_t i = 0; i < items.size(); ++i) EXPECT_EQ(outcome.samples[i]["output"], texts[i]);
  EXPECT_EQ(outcome.notes["cut"], 6);
  EXPECT_EQ(outcome.metrics[0].chance, 0);
}

TEST_F(NumberTaskScores, CountTheMarkedNumberStrictly) {
  const Tokenizer tokens = tokenizer();
  const Model writer = model();
  const std::string question = "Count:";
  const std::string text = testing::greedy_text(writer, tokens, tokens.encode_prompt(question), 12);
  // A marker that the model happens to write before one of its digits.
  const size_t digit = text.find_first_of("137");
  ASSERT_NE(digit, std::string::npos) << text;
  ASSERT_GT(digit, 0u) << text;
  const std::string marker = text.substr(0, digit);
  const auto marked = marked_number(text, marker);
  ASSERT_TRUE(marked);
  const Answering answering{.chat = false, .max_tokens = 12};
  const TaskSubject subject(writer, tokenizer());
  const auto strict = [&](const std::string& gold) {
    return NumberTask("t", {{question, gold}}, answering, marker).run(subject).metrics[0].values[0];
  };
  EXPECT_EQ(strict(normalise_number(*marked)), 1);
  EXPECT_EQ(strict("99"), 0);
  const TaskOutcome unmarked =
      NumberTask("t", {{question, "1"}}, answering, "no such").run(subject);
  EXPECT_EQ(unmarked.notes["unparsed_strict"], 1);
}

TEST_F(NumberTaskScores, NeedAChatTemplateAndRoom) {
  Model small = model();
  small.config.max_positions = 8;
  const NumberTask task("sums", {{"A question of some length, with many words?", "1"}},
                        {.chat = false});
  EXPECT_ERROR(task.check(TaskSubject(small, tokenizer())), HasSubstr("sums"),
               HasSubstr("question 1"), HasSubstr("context holds 8"));
  const NumberTask chat("sums", {{"One?", "1"}}, {.chat = true});
  EXPECT_NO_THROW(chat.check(TaskSubject(model(), tokenizer())));
  EXPECT_ERROR(chat.check(TaskSubject(model(), tokenizer(), {.chat_template = "none"})),
               HasSubstr("--chat-template"));
}

}  // namespace
}  // namespace mambify
