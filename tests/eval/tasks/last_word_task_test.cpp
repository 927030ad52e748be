#include "eval/tasks/last_word_task.h"

#include "eval/tasks/task_files.h"
#include "random_model.h"

namespace mambify {
namespace {

class LastWordTaskFile : public testing::TaskFiles {};

TEST_F(LastWordTaskFile, PutsWhiteSpaceBeforeTheWord) {
  write("items.jsonl", R"({"context": "It was a dark and stormy ", "continuation": " night"})");
  const auto task = read_one<LastWordTask>();
  EXPECT_EQ(task->items()[0].context, "It was a dark and stormy");
  EXPECT_EQ(task->items()[0].continuations, (std::vector<std::string>{" night"}));
}

TEST(LastWordTask, MustBeTheGreedyChoice) {
  Tokenizer tokenizer = Tokenizer::load(testing::fixtures() / "llama3-style-tokenizer");
  const Model model = testing::random_model(tokenizer.vocab_size(), 4);
  const std::string context = "Once upon a";
  const std::vector<TokenId> ids = tokenizer.encode_prompt(context);
  const at::Tensor log_p = testing::log_probabilities(model, ids);
  // the greedy token, and another, that encode as themselves behind the context
  std::vector<PairItem> items;
  std::vector<double> expected;
  const at::Tensor order = log_p[log_p.size(0) - 1].argsort(0, /*descending=*/true);
  for (int64_t rank = 0; rank < 50; ++rank) {
    const auto token = static_cast<TokenId>(order[rank].item<int64_t>());
    const std::string word = tokenizer.token_bytes(token);
    auto whole = ids;
    whole.push_back(token);
    if (tokenizer.encode_prompt(context + word) != whole) continue;
    items.push_back({context, {word}, {1}, 0});
    expected.push_back(rank == 0 ? 1 : 0);
  }
  ASSERT_FALSE(expected.empty());
  const TaskSubject subject(model, std::move(tokenizer));
  const TaskOutcome outcome = LastWordTask("t", items).run(subject);
  ASSERT_EQ(outcome.metrics.size(), 1u);
  EXPECT_EQ(outcome.metrics[0].values, expected);
  EXPECT_EQ(outcome.metrics[0].chance, 0);
}

}  // namespace
}  // namespace mambify
