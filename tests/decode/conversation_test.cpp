// A conversation keeps its state between turns and says what one read anew would say.
#include "decode/conversation.h"

#include <ATen/Context.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "model/load.h"
#include "testing.h"

namespace mambify {
namespace {

using testing::fixtures;

class ConversationOfATinyModel : public ::testing::Test {
 protected:
  // The fixture's model with a vocabulary as large as the tokenizer's.
  Model widened() const {
    Model model = load_model(fixtures() / "tiny-llama");
    at::manual_seed(1);
    model.config.vocab_size = tokenizer_.vocab_size();
    model.embedding = at::randn({tokenizer_.vocab_size(), model.config.d_model}).mul_(0.3);
    model.lm_head = model.embedding;
    return model;
  }

  GenerationRequest defaults(int64_t max_tokens) const {
    GenerationRequest request;
    request.max_tokens = max_tokens;
    request.stop_ids = chat_.turn_end_ids(tokenizer_);
    request.sampling = {.temperature = 1, .seed = 2};
    return request;
  }

  const Tokenizer tokenizer_ = Tokenizer::load(fixtures() / "llama3-style-tokenizer");
  const ChatTemplate chat_ = ChatTemplate::recognise(tokenizer_);
  const Model model_ = widened();
};

TEST_F(ConversationOfATinyModel, TurnsReadOnlyWhatIsNew) {
  Engine engine(model_, &tokenizer_, {.context = 512});
  Conversation conversation(engine, tokenizer_, chat_, defaults(20));
  conversation.reset("Be brief.");
  const GenerationResult first = conversation.say("Hello!");
  EXPECT_EQ(first.reused_tokens, 0);
  int64_t held = first.prompt_tokens + static_cast<int64_t>(first.ids.size()) - 1;
  for (const char* message : {"And then?", "Why?"}) {
    std::string streamed;
    const GenerationResult next =
        conversation.say(message, [&](std::string_view text) { streamed += text; });
    EXPECT_EQ(streamed, next.text);
    EXPECT_EQ(next.reused_tokens, held) << message;
    held = next.prompt_tokens + static_cast<int64_t>(next.ids.size()) - 1;
  }
  ASSERT_EQ(conversation.messages().size(), 7u);
  EXPECT_EQ(conversation.messages()[0].role, "system");
  EXPECT_EQ(conversation.messages()[5].content, "Why?");
}

TEST_F(ConversationOfATinyModel, KeptStateAnswersLikeStateReadAnew) {
  Engine engine(model_, &tokenizer_, {.context = 512});
  Conversation conversation(engine, tokenizer_, chat_, defaults(12));
  std::vector<TokenId> prompt;
  for (const char* message : {"One", "Two", "Three"}) {
    std::vector<ChatMessage> messages = conversation.messages();
    messages.push_back({"user", message});
    const GenerationResult kept = conversation.say(message);

    GenerationRequest request = defaults(12);
    const std::vector<TokenId> turn = chat_.tokenize(messages, true, tokenizer_).ids;
    // Only the first prompt is sure to be the same tokens: an answer tokenised anew may differ.
    if (prompt.empty()) prompt = turn;
    request.prompt = turn;
    Engine fresh(model_, &tokenizer_, {.context = 512});
    std::vector<GenerationRequest> requests;
    requests.push_back(std::move(request));
    const GenerationResult anew = std::move(generate(fresh, std::move(requests)).front());
    if (anew.prompt_tokens == kept.prompt_tokens) {
      EXPECT_EQ(kept.ids, anew.ids) << message;
    }
  }
}

TEST_F(ConversationOfATinyModel, ResetForgetsAllButTheSystemMessage) {
  Engine engine(model_, &tokenizer_, {.context = 512});
  Conversation conversation(engine, tokenizer_, chat_, defaults(10));
  conversation.reset("Be brief.");
  const GenerationResult first = conversation.say("Hello!");
  conversation.say("More.");
  conversation.reset();
  EXPECT_EQ(conversation.messages().size(), 1u);
  EXPECT_EQ(conversation.say("Hello!").ids, first.ids);
}

TEST_F(ConversationOfATinyModel, AMessageThatDoesNotFitChangesNothing) {
  Engine engine(model_, &tokenizer_, {.context = 60});
  Conversation conversation(engine, tokenizer_, chat_, defaults(5));
  conversation.say("Hello!");
  std::string long_message;
  for (int i = 0; i < 60; ++i) long_message += "word ";
  EXPECT_THROW(conversation.say(long_message), ContextFull);
  EXPECT_EQ(conversation.messages().size(), 2u);
  EXPECT_GT(conversation.say("Go on").reused_tokens, 0);
}

}  // namespace
}  // namespace mambify
