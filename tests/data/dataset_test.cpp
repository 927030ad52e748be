#include "data/dataset.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"
#include "testing.h"

namespace mambify {
namespace {

class DatasetTest : public ::testing::Test {
 protected:
  const Tokenizer tokenizer_ = Tokenizer::load(testing::fixtures() / "llama3-style-tokenizer");
  const Example chat_{{{"user", "What is it?"}, {"assistant", "A test."}}, ""};
  const Example text_{{}, "Plain text of a document."};
};

TEST_F(DatasetTest, CountsTheAssistantsTokensOfAConversation) {
  const std::vector<Example> examples = {chat_};
  const Dataset dataset = tokenize_examples(examples, tokenizer_, "", LossOn::assistant);
  ASSERT_EQ(dataset.documents.size(), 1u);
  const Document& document = dataset.documents[0];
  std::vector<TokenId> counted;
  for (size_t i = 0; i < document.ids.size(); ++i) {
    if (document.counts[i]) counted.push_back(document.ids[i]);
  }
  const std::string text = tokenizer_.decode(counted);
  EXPECT_TRUE(text.starts_with("A test.")) << text;
  EXPECT_EQ(dataset.counted_tokens(), std::ssize(counted));
  EXPECT_LT(std::ssize(counted), dataset.tokens());
}

TEST_F(DatasetTest, CountsAllTokensOfTextAndOnRequestOfConversations) {
  const std::vector<Example> examples = {chat_, text_};
  const Dataset dataset = tokenize_examples(examples, tokenizer_, "llama3", LossOn::all);
  for (const Document& document : dataset.documents) {
    EXPECT_TRUE(std::ranges::all_of(document.counts, [](bool counts) { return counts; }));
  }
  // The first token of a document is never a label.
  EXPECT_EQ(dataset.counted_tokens(), dataset.tokens() - 2);
}

TEST_F(DatasetTest, TextIsAPromptOfTheTokenizersOwnSettings) {
  const std::vector<Example> examples = {text_};
  const Dataset dataset = tokenize_examples(examples, tokenizer_, "", LossOn::assistant);
  EXPECT_EQ(dataset.documents[0].ids, tokenizer_.encode_prompt(text_.text));
}

TEST_F(DatasetTest, DataWithoutACountedTokenIsAnError) {
  const std::vector<Example> examples = {Example{{{"user", "Nobody answers."}}, ""}};
  EXPECT_THROW(tokenize_examples(examples, tokenizer_, "", LossOn::assistant), Error);
}

}  // namespace
}  // namespace mambify
