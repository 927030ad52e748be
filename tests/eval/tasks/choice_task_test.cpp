#include "eval/tasks/choice_task.h"

#include "core/error.h"
#include "eval/tasks/task_files.h"
#include "random_model.h"

namespace mambify {
namespace {

class ChoiceTaskFile : public testing::TaskFiles {};

TEST_F(ChoiceTaskFile, PairsContextAndChoiceAsTheHarnessDoes) {
  write("items.jsonl", R"({"query": "Why? \n", "choices": ["caf\u00e9", "no"], "gold": 1}

{"query": "Who", "choices": ["a", "b", "c", "d"], "gold": 0, "source": "ignored"}
)");
  const auto task = read_one<ChoiceTask>();
  EXPECT_EQ(task->name(), "one");
  ASSERT_EQ(task->size(), 2);
  EXPECT_EQ(task->items()[0].context, "Why?\nAnswer:");
  EXPECT_EQ(task->items()[0].continuations, (std::vector<std::string>{" caf\u00e9", " no"}));
  EXPECT_EQ(task->items()[0].characters, (std::vector<int64_t>{4, 2}));
  EXPECT_EQ(task->items()[0].gold, 1);

  const auto plain = read_one<ChoiceTask>("template = '{query} {choice}'");
  EXPECT_EQ(plain->items()[0].context, "Why?");
  EXPECT_EQ(plain->items()[0].continuations[1], " no");
  const auto joined = read_one<ChoiceTask>("template = 'Q: {query}{choice}'");
  EXPECT_EQ(joined->items()[1].context, "Q: Who");
  EXPECT_EQ(joined->items()[1].continuations[0], "a");
}

TEST_F(ChoiceTaskFile, RefusesWhatItCannotRead) {
  write("items.jsonl", R"({"query": "a", "choices": ["b", "c"], "gold": 1})");
  EXPECT_NO_THROW(read_one<ChoiceTask>());
  for (const char* keys : {"shots = 5", "template = '{choice}'", "template = '{query}'",
                           "template = '{query} {choice}.'", "template = 3"}) {
    EXPECT_THROW(read_one<ChoiceTask>(keys), Error) << keys;
  }
  for (const char* line :
       {R"({"query": "a", "choices": ["b", "c"], "gold": 2})", R"({"query": "a", "choices": []})",
        R"({"query": "a", "choices": ["b", ""], "gold": 0})", R"({"choices": ["b"], "gold": 0})",
        R"({"query": "a")", ""}) {
    write("items.jsonl", line);
    EXPECT_THROW(read_one<ChoiceTask>(), Error) << line;
  }
}

class ChoiceTaskScores : public ::testing::Test {
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

TEST_F(ChoiceTaskScores, RankChoicesByLikelihood) {
  const std::vector<std::string> queries = {"Where does the sun rise?", "What is a river made of",
                                            "Name a colour", "Count"};
  const std::vector<std::string> choices = {"in the east, every single day", "water", "no"};
  std::vector<PairItem> items;
  std::vector<double> acc, acc_norm;
  for (const std::string& query : queries) {
    PairItem item;
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
    item.gold = items.size() % 2 == 0 ? chosen : chosen_norm;
    acc.push_back(item.gold == chosen);
    acc_norm.push_back(item.gold == chosen_norm);
    items.push_back(item);
  }
  items.push_back({"Yes or", {" no"}, {2}, 0});  // the one choice is right
  acc.push_back(1);
  acc_norm.push_back(1);
  const TaskSubject subject(model_, std::move(tokenizer_));
  const TaskOutcome outcome = ChoiceTask("t", items).run(subject);
  ASSERT_EQ(outcome.metrics.size(), 2u);
  EXPECT_EQ(outcome.metrics[0].name, "acc");
  EXPECT_EQ(outcome.metrics[0].values, acc);
  EXPECT_EQ(outcome.metrics[1].name, "acc_norm");
  EXPECT_EQ(outcome.metrics[1].values, acc_norm);
  EXPECT_NE(acc, acc_norm) << "the fixture no longer tells the two apart";
  for (const Metric& metric : outcome.metrics) {
    EXPECT_NEAR(metric.chance, (4 * (1.0 / 3) + 1) / 5, 1e-12);
  }
}

}  // namespace
}  // namespace mambify
