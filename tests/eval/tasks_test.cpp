#include "eval/tasks.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "random_model.h"
#include "testing.h"

namespace mambify {
namespace {

class Tasks : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& content) {
    std::ofstream(scratch_ / name) << content;
  }
  std::vector<Task> read(const std::string& toml, int64_t limit = 0) {
    write("tasks.toml", toml);
    return read_tasks(scratch_ / "tasks.toml", limit);
  }
  // One choice task over items.jsonl with this template line.
  Task read_one(const std::string& form) {
    return read("[[task]]\nname = 'one'\nfile = 'items.jsonl'\nkind = 'choice'\n" + form + "\n")[0];
  }
  testing::ScratchFolder scratch_;
};

TEST_F(Tasks, PairsContextAndChoiceAsTheHarnessDoes) {
  write("items.jsonl", R"({"query": "Why? \n", "choices": ["caf\u00e9", "no"], "gold": 1}

{"query": "Who", "choices": ["a", "b", "c", "d"], "gold": 0, "source": "ignored"}
)");
  const Task task = read_one("");
  EXPECT_EQ(task.name, "one");
  ASSERT_EQ(task.items.size(), 2u);
  EXPECT_EQ(task.items[0].context, "Why?\nAnswer:");
  EXPECT_EQ(task.items[0].continuations, (std::vector<std::string>{" caf\u00e9", " no"}));
  EXPECT_EQ(task.items[0].characters, (std::vector<int64_t>{4, 2}));
  EXPECT_EQ(task.items[0].gold, 1);
  EXPECT_DOUBLE_EQ(task.chance, (0.5 + 0.25) / 2);

  const Task plain = read_one("template = '{query} {choice}'");
  EXPECT_EQ(plain.items[0].context, "Why?");
  EXPECT_EQ(plain.items[0].continuations[1], " no");
  const Task joined = read_one("template = 'Q: {query}{choice}'");
  EXPECT_EQ(joined.items[1].context, "Q: Who");
  EXPECT_EQ(joined.items[1].continuations[0], "a");
}

TEST_F(Tasks, ReadsLastWords) {
  write("words.jsonl", R"({"context": "It was a dark and stormy ", "continuation": " night"})");
  const Task task = read("[[task]]\nname='w'\nfile='words.jsonl'\nkind='last_word'\n")[0];
  EXPECT_EQ(task.items[0].context, "It was a dark and stormy");
  EXPECT_EQ(task.items[0].continuations, (std::vector<std::string>{" night"}));
  EXPECT_EQ(task.chance, 0);
}

TEST_F(Tasks, TakesTheFirstItemsOfEachTask) {
  write("items.jsonl",
        "{\"query\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 0}\n"
        "{\"query\": \"d\", \"choices\": [\"e\", \"f\"], \"gold\": 1}\n");
  const std::string one = "[[task]]\nname='n'\nfile='items.jsonl'\nkind='choice'\n";
  const std::vector<Task> tasks = read(one + one, 1);
  ASSERT_EQ(tasks.size(), 2u);
  EXPECT_EQ(tasks[1].items.size(), 1u);
}

TEST_F(Tasks, RefusesWhatItCannotRead) {
  const std::string good = R"({"query": "a", "choices": ["b", "c"], "gold": 1})";
  write("items.jsonl", good);
  const std::string head = "[[task]]\nname='n'\nfile='items.jsonl'\n";
  EXPECT_NO_THROW(read(head + "kind='choice'\n"));
  for (const std::string& bad :
       {std::string(""), std::string("task = 3"), std::string("[[tasks]]\nname='n'"),
        std::string("[[task"), head, head + "kind='multiple'", head + "kind='choice'\nshots=5",
        head + "kind='choice'\ntemplate='{choice}'", head + "kind='choice'\ntemplate='{query}'",
        head + "kind='choice'\ntemplate='{query} {choice}.'", head + "kind='last_word'",
        std::string("[[task]]\nname='n'\nfile='absent.jsonl'\nkind='choice'")}) {
    EXPECT_THROW(read(bad), Error) << bad;
  }
  for (const char* line :
       {R"({"query": "a", "choices": ["b", "c"], "gold": 2})", R"({"query": "a", "choices": []})",
        R"({"query": "a", "choices": ["b", ""], "gold": 0})", R"({"choices": ["b"], "gold": 0})",
        R"({"query": "a")", ""}) {
    write("items.jsonl", line);
    EXPECT_THROW(read(head + "kind='choice'\n"), Error) << line;
  }
}

TEST_F(Tasks, SaysWhereAnItemIsWrong) {
  write("items.jsonl", "\n{\"query\": \"a\", \"choices\": [\"b\"], \"gold\": 7}\n");
  try {
    read("[[task]]\nname='n'\nfile='items.jsonl'\nkind='choice'\n");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("items.jsonl:2"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("gold"), std::string::npos) << error.what();
  }
}

class TaskScores : public Tasks {
 protected:
  Tokenizer tokenizer_ = Tokenizer::load(testing::fixtures() / "llama3-style-tokenizer");
  Model model_ = testing::random_model(tokenizer_.vocab_size(), 4);

  // log p(continuation | context), the two encoded together.
  double log_likelihood(const std::string& context, const std::string& continuation) {
    const auto whole = tokenizer_.encode_prompt(context + continuation);
    const at::Tensor log_p = testing::log_probabilities(model_, whole);
    double total = 0;
    for (size_t t = tokenizer_.encode_prompt(context).size(); t < whole.size(); ++t) {
      total += log_p[static_cast<int64_t>(t) - 1][whole[t]].item<double>();
    }
    return total;
  }
};

TEST_F(TaskScores, RankChoicesByLikelihood) {
  const std::vector<std::string> queries = {"Where does the sun rise?", "What is a river made of",
                                            "Name a colour", "Count"};
  const std::vector<std::string> choices = {"in the east, every single day", "water", "no"};
  Task task;
  std::vector<double> acc, acc_norm;
  for (const std::string& query : queries) {
    TaskItem item;
    item.context = query + "\nAnswer:";
    double best = -1e30, best_norm = -1e30;
    int64_t chosen = 0, chosen_norm = 0;
    for (size_t c = 0; c < choices.size(); ++c) {
      item.continuations.push_back(" " + choices[c]);
      item.characters.push_back(static_cast<int64_t>(choices[c].size()));
      const double total = log_likelihood(item.context, " " + choices[c]);
      const double norm = total / static_cast<double>(choices[c].size());
      if (total > best) best = total, chosen = static_cast<int64_t>(c);
      if (norm > best_norm) best_norm = norm, chosen_norm = static_cast<int64_t>(c);
    }
    item.gold = task.items.size() % 2 == 0 ? chosen : chosen_norm;
    acc.push_back(item.gold == chosen);
    acc_norm.push_back(item.gold == chosen_norm);
    task.items.push_back(item);
  }
  const TaskOutcome outcome = run_task(model_, tokenizer_, task);
  EXPECT_EQ(outcome.acc, acc);
  EXPECT_EQ(outcome.acc_norm, acc_norm);
  EXPECT_NE(acc, acc_norm) << "the fixture no longer tells the two apart";
}

TEST_F(TaskScores, ALastWordMustBeTheGreedyChoice) {
  const std::string context = "Once upon a";
  const std::vector<TokenId> ids = tokenizer_.encode_prompt(context);
  const at::Tensor log_p = testing::log_probabilities(model_, ids);
  // the greedy token, and another, that encode as themselves behind the context
  Task task;
  task.kind = TaskKind::last_word;
  std::vector<double> expected;
  const at::Tensor order = log_p[log_p.size(0) - 1].argsort(0, /*descending=*/true);
  for (int64_t rank = 0; rank < 50; ++rank) {
    const auto token = static_cast<TokenId>(order[rank].item<int64_t>());
    const std::string word = tokenizer_.token_bytes(token);
    auto whole = ids;
    whole.push_back(token);
    if (tokenizer_.encode_prompt(context + word) != whole) continue;
    task.items.push_back({context, {word}, {1}, 0});
    expected.push_back(rank == 0 ? 1 : 0);
  }
  ASSERT_FALSE(expected.empty());
  const TaskOutcome outcome = run_task(model_, tokenizer_, task);
  EXPECT_EQ(outcome.acc, expected);
  EXPECT_TRUE(outcome.acc_norm.empty());
}

TEST_F(TaskScores, EncodeContextAndContinuationTogether) {
  const ScoredText text = encode_pair(tokenizer_, "The quick", " brown fox", 0);
  EXPECT_EQ(text.ids, tokenizer_.encode_prompt("The quick brown fox"));
  EXPECT_EQ(text.scored_from, static_cast<int64_t>(tokenizer_.encode_prompt("The quick").size()));

  const auto total = static_cast<int64_t>(text.ids.size());
  const ScoredText cut = encode_pair(tokenizer_, "The quick", " brown fox", total - 1);
  EXPECT_EQ(cut.ids, std::vector<TokenId>(text.ids.begin() + 1, text.ids.end()));
  EXPECT_EQ(cut.scored_from, text.scored_from - 1);
  EXPECT_THROW(encode_pair(tokenizer_, "The quick", " brown fox", total - text.scored_from), Error);

  const ScoredText bare = encode_pair(tokenizer_, "", "fox", 0);
  EXPECT_EQ(bare.scored_from, 1);
  EXPECT_EQ(bare.ids.front(), *tokenizer_.bos_id());
}

}  // namespace
}  // namespace mambify
