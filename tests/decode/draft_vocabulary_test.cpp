// Which tokens a draft guesses among: chosen, written, read, and what is wrong with a file.
#include "decode/draft_vocabulary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "decode/drafter.h"
#include "errors.h"
#include "random_model.h"
#include "testing.h"

namespace mambify {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

class DraftVocabularyFile : public ::testing::Test {
 protected:
  std::vector<TokenId> read(std::string_view content, int64_t vocab_size = 10) const {
    write_file_atomically(file_, content);
    return read_draft_vocabulary(file_, vocab_size);
  }

  testing::ScratchFolder folder_;
  const fs::path file_ = folder_ / "set.json";
};

TEST_F(DraftVocabularyFile, IsReadAsItWasWritten) {
  const std::vector<TokenId> tokens{0, 4, 9};
  write_draft_vocabulary(file_, tokens);
  EXPECT_EQ(read_draft_vocabulary(file_, 10), tokens);
}

TEST_F(DraftVocabularyFile, MayHaveItsIdsInAnyOrder) {
  EXPECT_EQ(read(R"({"tokens": [7, 2, 5]})"), (std::vector<TokenId>{2, 5, 7}));
}

TEST_F(DraftVocabularyFile, ThatIsWrongIsNamedWithWhatIsWrong) {
  const auto name = HasSubstr("set.json");
  EXPECT_ERROR(read(R"({"tokens": []})"), name, HasSubstr("empty"));
  EXPECT_ERROR(read(R"({"tokens": [3, 10]})"), name, HasSubstr("10, expected ids from 0 to 9"));
  EXPECT_ERROR(read(R"({"tokens": [3, -1]})"), name, HasSubstr("-1"));
  EXPECT_ERROR(read(R"({"tokens": [4294967299]})"), name, HasSubstr("4294967299"));
  EXPECT_ERROR(read(R"({"tokens": [3, 1, 3]})"), name, HasSubstr("3 twice"));
  EXPECT_ERROR(read(R"({"tokens": [3, "a"]})"), name, HasSubstr("tokens"));
  EXPECT_ERROR(read(R"({"ids": [3]})"), name, HasSubstr("tokens"));
  EXPECT_ERROR(read("[1, 2"), name);
  EXPECT_ERROR(read_draft_vocabulary(folder_ / "absent.json", 10), HasSubstr("absent.json"));
}

class MostFrequentTokens : public ::testing::Test {
 protected:
  // Where nothing else is said, tokens do not occur.
  std::vector<int64_t> counts_ = std::vector<int64_t>(tokenizer().vocab_size(), 0);
  const TokenId end_ = tokenizer().stop_ids().front();

  static const Tokenizer& tokenizer() {
    static const Tokenizer loaded = Tokenizer::load(testing::fixtures() / "llama3-style-tokenizer");
    return loaded;
  }
  std::vector<TokenId> choose(int64_t size) const {
    return most_frequent_tokens(counts_, size, tokenizer());
  }
};

TEST_F(MostFrequentTokens, AreThoseAndTheEnd) {
  counts_[40] = 3;
  counts_[7] = 5;
  counts_[20] = counts_[30] = 4;
  std::vector<TokenId> expected{7, 20, end_};
  std::ranges::sort(expected);
  EXPECT_EQ(choose(3), expected);
}

TEST_F(MostFrequentTokens, AreNoneThatDoNotOccur) {
  counts_[7] = 5;
  EXPECT_EQ(std::ssize(choose(50)), std::ssize(tokenizer().stop_ids()) + 1);
}

TEST_F(MostFrequentTokens, HaveSpecialOnesThatOccurHoweverRare) {
  const TokenId special = tokenizer().find_token("<|start_header_id|>").value();
  ASSERT_THAT(tokenizer().stop_ids(), Not(Contains(special)));
  counts_[7] = 5;
  EXPECT_THAT(choose(2), Not(Contains(special)));
  counts_[special] = 1;
  EXPECT_THAT(choose(2), Contains(special));
  EXPECT_THAT(choose(1), Contains(special));
}

// Each guess is the token of the set that the whole model scores highest, or draws.
TEST(ADraftOfSomeTokens, GuessesWhatItWouldIfTheOthersHadNoScore) {
  constexpr int64_t kVocabulary = 50;
  const Model whole = testing::random_model(kVocabulary, 1);
  const std::vector<TokenId> tokens{3, 4, 17, 18, 19, 31, 49};
  Model some = whole;
  keep_outputs(some, tokens);
  const auto drafter = model_drafter(some, 1, 64, 1, nullptr, tokens);
  const SamplingOptions samplings[] = {{},
                                       {.temperature = 1, .seed = 5},
                                       {.temperature = 0.8, .top_k = 3, .seed = 6},
                                       {.temperature = 2, .top_p = 0.9, .seed = 7}};
  std::vector<TokenId> text{8};
  for (int64_t step = 0; step < 40; ++step) {
    at::Tensor scores = testing::log_probabilities(whole, text)[step].to(at::kFloat);
    at::Tensor kept = at::full({kVocabulary}, -std::numeric_limits<float>::infinity());
    for (const TokenId token : tokens) kept[token] = scores[token];
    const std::span<const float> row(kept.const_data_ptr<float>(), kVocabulary);
    for (const SamplingOptions& sampling : samplings) {
      const DraftRequest request{.tokens = text, .length = 1, .sampling = sampling, .sequence = 2};
      const Draft draft = drafter->draft({&request, 1}).front();
      EXPECT_EQ(draft.tokens.front(),
                sample_token(row, sampling, 2, static_cast<uint32_t>(text.size())));
    }
    text.push_back(static_cast<TokenId>((7 * step + 3) % kVocabulary));
  }
}

TEST(ADraftOfSomeTokens, HasRowsOfNoOthers) {
  Model model = testing::random_model(20, 1);
  const std::vector<TokenId> tokens{2, 11}, others{2, 11, 12};
  keep_outputs(model, tokens);
  EXPECT_THROW(model_drafter(model, 1, 64, 1, nullptr, others), c10::Error);
  EXPECT_THROW(model_drafter(model, 1, 64, 1), c10::Error);
}

}  // namespace
}  // namespace mambify
