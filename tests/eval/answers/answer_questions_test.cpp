#include "eval/answers/answer_questions.h"

#include <gtest/gtest.h>

#include <map>

#include "decode/stop_ids.h"
#include "eval/limited_model.h"
#include "testing.h"

namespace mambify {
namespace {

class AnswerQuestions : public ::testing::Test {
 protected:
  AnswerQuestions() { options_.max_tokens = 6; }

  std::vector<AnswerJob> jobs(double temperature, size_t first = 0) const {
    std::vector<AnswerJob> jobs;
    for (size_t i = first; i < questions_.size(); ++i) {
      jobs.push_back({static_cast<int64_t>(i), &questions_[i], {.temperature = temperature}});
    }
    return jobs;
  }
  std::map<int64_t, Answer> answers(const std::vector<AnswerJob>& jobs, int64_t rows,
                                    int64_t context = 0) {
    Engine engine(
        model_, &tokenizer_,
        {.rows = rows,
         .context = context > 0 ? context : answers_context(jobs, options_, tokenizer_, chat_)});
    std::map<int64_t, Answer> found;
    answer_questions(engine, tokenizer_, chat_, jobs, options_,
                     [&](const AnswerJob& job, Answer answer) {
                       EXPECT_FALSE(found.contains(job.number));
                       found[job.number] = std::move(answer);
                     });
    return found;
  }

  const std::vector<Question> questions_ = {
      {{"Say something.", "And now?"}, "writing", {}},
      {{"Count."}, "math", {}},
      {{"One", "two", "three"}, "stem", {}},
      {{"Good morning to you all", "Good night"}, "writing", {}}};
  const Tokenizer tokenizer_ = Tokenizer::load(testing::fixtures() / "llama3-style-tokenizer");
  const Model model_ =
      testing::limited_model(tokenizer_, {"A", "b", "Ġ", "Ċ", "<|end_of_text|>", "c"}, 5);
  const ChatTemplate chat_ = ChatTemplate::recognise(tokenizer_);
  AnswerOptions options_;
};

TEST_F(AnswerQuestions, EachTurnSeesTheAnswersBeforeIt) {
  // One token at a time by forward passes over the whole conversation.
  const auto write = [&](const std::vector<ChatMessage>& messages) {
    std::vector<TokenId> ids =
        chat_.tokenize(messages, /*add_generation_prompt=*/true, tokenizer_).ids;
    const size_t prompt = ids.size();
    const std::vector<TokenId> ends = generation_stop_ids(tokenizer_, &chat_);
    for (int64_t i = 0; i < options_.max_tokens; ++i) {
      const at::Tensor log_p = testing::log_probabilities(model_, ids);
      const auto next = static_cast<TokenId>(log_p[log_p.size(0) - 1].argmax().item<int64_t>());
      ids.push_back(next);
      if (std::ranges::find(ends, next) != ends.end()) break;
    }
    std::vector<TokenId> written(ids.begin() + static_cast<ptrdiff_t>(prompt), ids.end());
    std::erase_if(written, [&](TokenId id) { return tokenizer_.is_special(id); });
    const std::string text = tokenizer_.decode(written);
    const size_t first = text.find_first_not_of(" \n"), last = text.find_last_not_of(" \n");
    return first == std::string::npos ? "" : text.substr(first, last - first + 1);
  };
  const auto found = answers(jobs(0), 3);
  ASSERT_EQ(found.size(), questions_.size());
  for (const auto& [number, answer] : found) {
    std::vector<ChatMessage> messages;
    ASSERT_EQ(answer.turns.size(), questions_[number].turns.size());
    ASSERT_EQ(answer.tokens.size(), answer.turns.size());
    for (size_t turn = 0; turn < answer.turns.size(); ++turn) {
      messages.push_back({"user", questions_[number].turns[turn]});
      EXPECT_EQ(answer.turns[turn], write(messages)) << number << ", turn " << turn;
      messages.push_back({"assistant", answer.turns[turn]});
    }
  }
}

TEST_F(AnswerQuestions, TheRestGivesTheSameAnswersAsAll) {
  const auto all = answers(jobs(0.9), 4);
  const auto rest = answers(jobs(0.9, 2), 1);
  ASSERT_EQ(rest.size(), 2u);
  for (const auto& [number, answer] : rest) EXPECT_EQ(answer.turns, all.at(number).turns);
  EXPECT_NE(all.at(0).turns, answers(jobs(0), 4).at(0).turns) << "nothing was sampled";
}

TEST_F(AnswerQuestions, ATurnWithoutRoomIsEmptyAndCounted) {
  const auto first = chat_.tokenize({{"user", questions_[3].turns[0]}}, true, tokenizer_).ids;
  const std::vector<AnswerJob> one = {{3, &questions_[3], {}}};
  const Answer answer = answers(one, 1, std::ssize(first) + 3).at(3);
  ASSERT_EQ(answer.turns.size(), 2u);
  EXPECT_EQ(answer.turns[1], "");
  EXPECT_EQ(answer.tokens[1], 0);
  EXPECT_EQ(answer.without_room, 1);
}

TEST_F(AnswerQuestions, ASystemMessageOpensTheConversation) {
  const Answer plain = answers(jobs(0), 4).at(1);
  const int64_t context = answers_context(jobs(0), options_, tokenizer_, chat_);
  options_.system = "Speak of the weather alone.";
  EXPECT_GT(answers_context(jobs(0), options_, tokenizer_, chat_), context);
  EXPECT_NE(answers(jobs(0), 4).at(1).turns, plain.turns);
}

}  // namespace
}  // namespace mambify
