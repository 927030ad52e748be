#include "eval/tasks/worded_choice_task.h"

#include "errors.h"
#include "eval/limited_model.h"
#include "eval/tasks/extract_choice.h"
#include "eval/tasks/task_files.h"

namespace mambify {
namespace {

using ::testing::HasSubstr;
using Strings = std::vector<std::string>;

class WordedChoiceTaskFile : public testing::TaskFiles {};

TEST_F(WordedChoiceTaskFile, LettersAndRotatesTheOptions) {
  write("items.jsonl", R"({"query": "Who? ", "choices": ["ann", "bob", "cy"], "gold": 1})");
  const auto task = read_one<WordedChoiceTask>("template = \"Q: {query}\\n{options}\\n?\"");
  const auto rotations = task->rotations_of(task->items()[0]);
  ASSERT_EQ(rotations.size(), 3u);
  EXPECT_EQ(rotations[0].options, (Strings{"ann", "bob", "cy"}));
  EXPECT_EQ(rotations[0].gold, 1);
  EXPECT_EQ(rotations[1].options, (Strings{"bob", "cy", "ann"}));
  EXPECT_EQ(rotations[1].gold, 0);
  EXPECT_EQ(rotations[2].options, (Strings{"cy", "ann", "bob"}));
  EXPECT_EQ(rotations[2].gold, 2);
  EXPECT_EQ(task->question("Who?", rotations[1].options), "Q: Who?\nA. bob\nB. cy\nC. ann\n?");
  EXPECT_TRUE(task->answering().chat);
}

TEST_F(WordedChoiceTaskFile, SpreadsFewRotationsOverTheOptions) {
  write("items.jsonl", R"({"query": "a", "choices": ["1", "2", "3", "4"], "gold": 3})");
  const auto golds = [&](const std::string& keys) {
    const auto task = read_one<WordedChoiceTask>(keys);
    std::vector<int64_t> golds;
    for (const auto& rotation : task->rotations_of(task->items()[0])) {
      EXPECT_EQ(rotation.options[rotation.gold], "4");
      golds.push_back(rotation.gold);
    }
    return golds;
  };
  EXPECT_EQ(golds("rotations = 1"), (std::vector<int64_t>{3}));
  EXPECT_EQ(golds("rotations = 2"), (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(golds("rotations = 'all'"), (std::vector<int64_t>{3, 2, 1, 0}));
  EXPECT_EQ(golds("rotations = 9"), (std::vector<int64_t>{3, 2, 1, 0}));
}

TEST_F(WordedChoiceTaskFile, ShowsExamplesWithTheirLetters) {
  write("items.jsonl", R"({"query": "a", "choices": ["1", "2"], "gold": 0})");
  write("shots.jsonl", R"({"query": "b", "choices": ["x", "y"], "gold": 1})");
  const auto task =
      read_one<WordedChoiceTask>("shots = 1\nshots_file = 'shots.jsonl'\nchat = false");
  ASSERT_EQ(task->answering().shots.size(), 1u);
  EXPECT_EQ(task->answering().shots[0].question, "b\nA. x\nB. y\nAnswer:");
  EXPECT_EQ(task->answering().shots[0].answer, "B");
}

TEST_F(WordedChoiceTaskFile, RefusesWhatItCannotRead) {
  write("items.jsonl", R"({"query": "a", "choices": ["1", "2"], "gold": 0})");
  EXPECT_NO_THROW(read_one<WordedChoiceTask>());
  EXPECT_ERROR(read_one<WordedChoiceTask>("template = '{query}'"), HasSubstr("{options}"));
  EXPECT_ERROR(read_one<WordedChoiceTask>("rotations = 'some'"), HasSubstr("'rotations'"));
  EXPECT_ERROR(read_one<WordedChoiceTask>("rotations = 0"), HasSubstr("'rotations'"));
  write("items.jsonl", R"({"query": "a", "choices": ["1", " "], "gold": 0})");
  EXPECT_ERROR(read_one<WordedChoiceTask>(), HasSubstr("items.jsonl:1"));
  std::string many = R"({"query": "a", "gold": 0, "choices": ["0")";
  for (int i = 1; i < 27; ++i) many += ", \"" + std::to_string(i) + "\"";
  write("items.jsonl", many + "]}");
  EXPECT_ERROR(read_one<WordedChoiceTask>(), HasSubstr("27"));
}

TEST(WordedChoiceTask, ScoresWhatTheModelWritesInEachRotation) {
  const auto tokenizer = [] {
    return Tokenizer::load(testing::fixtures() / "llama3-style-tokenizer");
  };
  const Tokenizer tokens = tokenizer();
  const Model writer = testing::limited_model(tokens, {"A", "B", "C", "D", "?"}, 11);
  std::vector<ChoiceLine> items;
  for (int i = 0; i < 8; ++i) {
    const std::string n = std::to_string(i);
    items.push_back({"Question " + n, {"p" + n, "q" + n, "r" + n}, i % 3});
  }
  const QuestionTemplate form("{query}\n{options}\n", {"{query}", "{options}"}, "test");
  const WordedChoiceTask task("t", items, form, 0, {.chat = true, .max_tokens = 1});
  const TaskSubject subject(writer, tokenizer(), {.rows = 5});
  const ChatTemplate chat = subject.chat_template();

  std::vector<double> acc, consistent;
  int64_t unparsed = 0, chose_first = 0;
  for (const ChoiceLine& item : items) {
    double right = 0;
    for (int64_t shift = 0; shift < 3; ++shift) {
      const Strings& c = item.choices;
      const Strings options = {c[shift], c[(shift + 1) % 3], c[(shift + 2) % 3]};
      const std::string question =
          item.query + "\nA. " + options[0] + "\nB. " + options[1] + "\nC. " + options[2] + "\n";
      const auto ids =
          chat.tokenize({{"user", question}}, /*add_generation_prompt=*/true, tokens).ids;
      const std::string text = testing::greedy_text(writer, tokens, ids, 1);
      const bool is_letter = text == "A" || text == "B" || text == "C";
      unparsed += is_letter ? 0 : 1;
      chose_first += text == "A" ? 1 : 0;
      if (is_letter && options[text[0] - 'A'] == c[item.gold]) right += 1;
    }
    acc.push_back(right / 3);
    consistent.push_back(right == 3 ? 1 : 0);
  }
  const TaskOutcome outcome = task.run(subject);
  ASSERT_EQ(outcome.metrics.size(), 2u);
  EXPECT_EQ(outcome.metrics[0].name, "acc");
  EXPECT_EQ(outcome.metrics[0].values, acc);
  EXPECT_NEAR(outcome.metrics[0].chance, 1.0 / 3, 1e-12);
  EXPECT_EQ(outcome.metrics[1].name, "consistent_acc");
  EXPECT_EQ(outcome.metrics[1].values, consistent);
  EXPECT_NEAR(outcome.metrics[1].chance, 1.0 / 27, 1e-12);
  EXPECT_EQ(outcome.notes["answers"], 24);
  EXPECT_EQ(outcome.notes["unparsed"], unparsed);
  EXPECT_GT(unparsed, 0) << "the fixture always answers with a letter";
  EXPECT_LT(unparsed, 24) << "the fixture never answers with a letter";
  ASSERT_EQ(outcome.notes["positions"].size(), 3u);
  EXPECT_EQ(outcome.notes["positions"][0]["letter"], "A");
  EXPECT_NEAR(outcome.notes["positions"][0]["gold"].get<double>(), 1.0 / 3, 1e-12);
  EXPECT_NEAR(outcome.notes["positions"][0]["chosen"].get<double>(),
              static_cast<double>(chose_first) / 24, 1e-12);
}

}  // namespace
}  // namespace mambify
