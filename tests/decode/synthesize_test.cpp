// Conversations a teacher writes: what is kept, and that it depends on the seed alone.
#include "decode/synthesize.h"

#include <ATen/Context.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"
#include "decode/preferences.h"
#include "model/load.h"
#include "testing.h"

namespace mambify {
namespace {

using testing::fixtures;

bool same(const Chat& a, const Chat& b) {
  return std::ranges::equal(a, b, [](const ChatMessage& x, const ChatMessage& y) {
    return x.role == y.role && x.content == y.content;
  });
}

class Synthesis : public ::testing::Test {
 protected:
  // A random model that ends a turn at about every tenth token: the first dimension of its hidden
  // states is nearly constant, and the output matrix uses it as a bias.
  Model talkative() const {
    Model model = load_model(fixtures() / "tiny-llama");
    at::manual_seed(1);
    const int64_t vocabulary = tokenizer_.vocab_size(), width = model.config.d_model;
    model.config.vocab_size = vocabulary;
    model.config.tie_embeddings = false;
    model.embedding = at::randn({vocabulary, width});
    model.embedding.select(1, 0).fill_(30);
    model.final_norm.fill_(1);
    model.lm_head = at::randn({vocabulary, width}).mul_(0.05);
    model.lm_head.select(0, chat_.turn_end_ids(tokenizer_).front()).select(0, 0).fill_(0.6);
    return model;
  }

  SynthesisResult write(int64_t rows, std::span<const Chat> prompts = {}, uint64_t seed = 3) const {
    return synthesize(model_, tokenizer_, chat_, prompts,
                      {.tokens = 600,
                       .max_length = 96,
                       .rows = rows,
                       .sampling = {.temperature = 1, .seed = seed}});
  }

  const Tokenizer tokenizer_ = Tokenizer::load(fixtures() / "llama3-style-tokenizer");
  const ChatTemplate chat_ = ChatTemplate::recognise(tokenizer_);
  const Model model_ = talkative();
};

TEST_F(Synthesis, TheTeacherWritesBothTurns) {
  const SynthesisResult result = write(8);
  EXPECT_GE(result.tokens, 600);
  EXPECT_GT(result.chats.size(), 5u);
  for (const Chat& chat : result.chats) {
    ASSERT_EQ(chat.size(), 2u);
    EXPECT_EQ(chat[0].role, "user");
    EXPECT_EQ(chat[1].role, "assistant");
    for (const ChatMessage& message : chat) {
      EXPECT_NE(message.content.find_first_not_of(" \n\t\r"), std::string::npos);
      EXPECT_EQ(message.content.find("\uFFFD"), std::string::npos);
      EXPECT_EQ(message.content.find("<|"), std::string::npos);
    }
  }
}

TEST_F(Synthesis, AShareIsPlainDocuments) {
  SynthesisOptions options{
      .tokens = 600, .max_length = 96, .rows = 8, .sampling = {.temperature = 1, .seed = 3}};
  options.plain_share = 0.5;
  const SynthesisResult mixed = synthesize(model_, tokenizer_, chat_, {}, options);
  EXPECT_GT(mixed.chats.size(), 0u);
  EXPECT_GT(mixed.texts.size(), 0u);
  options.plain_share = 1;
  const SynthesisResult plain = synthesize(model_, tokenizer_, chat_, {}, options);
  EXPECT_EQ(plain.chats.size(), 0u);
  EXPECT_GE(plain.tokens, 600);
  for (const std::string& text : plain.texts) {
    EXPECT_NE(text.find_first_not_of(" \n\t\r"), std::string::npos);
    EXPECT_EQ(text.find("<|"), std::string::npos);
  }
}

TEST_F(Synthesis, WhatIsWrittenDependsOnTheSeedAndNotOnTheRows) {
  const SynthesisResult alone = write(1);
  for (int64_t rows : {3, 16}) {
    const SynthesisResult together = write(rows);
    EXPECT_EQ(together.tokens, alone.tokens);
    EXPECT_EQ(together.malformed, alone.malformed);
    EXPECT_EQ(together.unfinished, alone.unfinished);
    EXPECT_TRUE(std::ranges::equal(together.chats, alone.chats, same)) << rows << " rows";
  }
  EXPECT_FALSE(std::ranges::equal(write(3, {}, 4).chats, alone.chats, same));
}

TEST_F(Synthesis, PromptsAreAnsweredInTurnAndAgainWithOtherNumbers) {
  const std::vector<Chat> prompts = {
      {{"user", "One?"}},
      {{"system", "Be brief."}, {"user", "Two?"}, {"assistant", "2"}, {"user", "Why?"}}};
  const SynthesisResult result = write(4, prompts);
  ASSERT_GT(result.chats.size(), 4u);
  std::vector<Chat> answers_to_one;
  for (const Chat& chat : result.chats) {
    const Chat& prompt = prompts[chat.size() == 2 ? 0 : 1];
    EXPECT_TRUE(same(Chat(chat.begin(), chat.end() - 1), prompt));
    EXPECT_EQ(chat.back().role, "assistant");
    if (chat.size() == 2) answers_to_one.push_back(chat);
  }
  ASSERT_GT(answers_to_one.size(), 1u);
  EXPECT_FALSE(same(answers_to_one[0], answers_to_one[1]));
}

TEST_F(Synthesis, AGreedyTeacherAnswersEachPromptOnce) {
  const std::vector<Chat> prompts = {{{"user", "One?"}}, {{"user", "Two?"}}};
  const SynthesisResult result =
      synthesize(model_, tokenizer_, chat_, prompts,
                 {.tokens = 100000, .max_length = 96, .rows = 4, .sampling = {.temperature = 0}});
  EXPECT_EQ(static_cast<int64_t>(result.chats.size()) + result.unfinished + result.malformed, 2);
}

TEST_F(Synthesis, EachPromptIsAnsweredOnceInItsPlace) {
  std::vector<Chat> prompts;
  for (int i = 0; i < 20; ++i) prompts.push_back({{"user", "Number " + std::to_string(i)}});
  // Too long to be answered within max_length.
  prompts[7][0].content.append(2000, 'x');
  const SynthesisOptions options{
      .tokens = 1, .max_length = 96, .rows = 3, .sampling = {.temperature = 1, .seed = 5}};
  std::vector<int64_t> progress;
  const auto answers = answer_each(model_, tokenizer_, chat_, prompts, options,
                                   [&](int64_t done) { progress.push_back(done); });
  ASSERT_EQ(answers.size(), prompts.size());
  EXPECT_FALSE(answers[7].has_value());
  EXPECT_GT(std::ranges::count_if(answers, [](const auto& a) { return a.has_value(); }), 10);
  EXPECT_TRUE(std::ranges::is_sorted(progress));
  EXPECT_TRUE(answer_each(model_, tokenizer_, chat_, {}, options).empty());
  SynthesisOptions alone = options;
  alone.rows = 1;
  EXPECT_EQ(answer_each(model_, tokenizer_, chat_, prompts, alone), answers);
}

TEST_F(Synthesis, TheTeachersAnswerIsPreferredToTheStudents) {
  const std::vector<Chat> taught = write(8).chats;
  Model student = clone(model_);
  student.embedding.mul_(-1).select(1, 0).fill_(30);
  const SynthesisOptions options{
      .max_length = 96, .rows = 8, .sampling = {.temperature = 1, .seed = 3}};
  const Preferences found = prefer_teacher(taught, student, tokenizer_, chat_, options);
  EXPECT_EQ(std::ssize(found.pairs) + found.unanswered + found.equal, std::ssize(taught));
  ASSERT_GT(found.pairs.size(), 3u);
  size_t next = 0;
  for (const PreferencePair& pair : found.pairs) {
    ASSERT_EQ(pair.chosen.size(), 1u);
    ASSERT_EQ(pair.rejected.size(), 1u);
    EXPECT_EQ(pair.rejected[0].role, "assistant");
    EXPECT_NE(pair.rejected[0].content, pair.chosen[0].content);
    Chat conversation = pair.prompt;
    conversation.push_back(pair.chosen[0]);
    while (next < taught.size() && !same(conversation, taught[next])) ++next;
    EXPECT_LT(next, taught.size()) << "a pair that is none of the conversations";
  }
  // A student that is the teacher and has its random numbers says what the teacher says.
  std::vector<Chat> prompts, own;
  for (int i = 0; i < 8; ++i) prompts.push_back({{"user", "Number " + std::to_string(i)}});
  const auto answers = answer_each(model_, tokenizer_, chat_, prompts, options);
  for (size_t i = 0; i < prompts.size() && answers[i]; ++i) {
    own.push_back(prompts[i]);
    own.back().push_back({"assistant", *answers[i]});
  }
  ASSERT_FALSE(own.empty());
  EXPECT_EQ(prefer_teacher(own, model_, tokenizer_, chat_, options).equal, std::ssize(own));
}

TEST_F(Synthesis, AnAnswerThatIsTooLongEndsWithAWholeSentence) {
  // Turns that hardly ever end: nearly every answer is as long as it may be.
  Model endless = clone(model_);
  endless.lm_head.select(0, chat_.turn_end_ids(tokenizer_).front()).select(0, 0).fill_(-1);
  for (const char* piece : {". ", ".", " ", "\n"}) {
    for (TokenId id : tokenizer_.encode(piece)) endless.lm_head.select(0, id)[0].fill_(0.7);
  }
  const std::vector<Chat> prompts = {{{"user", "One?"}}};
  const SynthesisResult result =
      synthesize(endless, tokenizer_, chat_, prompts,
                 {.tokens = 300, .max_length = 64, .rows = 4, .sampling = {.temperature = 1}});
  EXPECT_GT(result.cut, 0);
  EXPECT_EQ(result.cut, static_cast<int64_t>(result.chats.size()));
  for (const Chat& chat : result.chats) {
    const std::string& answer = chat.back().content;
    EXPECT_FALSE(answer.ends_with(" ") || answer.ends_with("\n")) << answer;
    EXPECT_LT(tokenizer_.encode(answer).size(), 64u);
  }
}

TEST_F(Synthesis, ATeacherThatNeverFinishesIsAnError) {
  const std::vector<Chat> prompts = {{{"user", "One?"}}};
  EXPECT_THROW(synthesize(model_, tokenizer_, chat_, prompts,
                          {.tokens = 100, .max_length = 5, .sampling = {.temperature = 1}}),
               Error);
  const std::vector<Chat> answered = {{{"user", "One?"}, {"assistant", "1"}}};
  EXPECT_THROW(write(1, answered), Error);
}

}  // namespace
}  // namespace mambify
