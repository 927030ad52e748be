// The default teacher against tokens that Hugging Face transformers drew from the same weights.
// Needs the checkpoint: MAMBIFY_TEACHER names it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "decode/engine.h"
#include "model/load.h"
#include "testing.h"

namespace mambify {
namespace {

TEST(Teacher, GreedyTokensAreThoseOfTransformers) {
  const char* path = std::getenv("MAMBIFY_TEACHER");
  if (path == nullptr) GTEST_SKIP() << "MAMBIFY_TEACHER is not set";
  const Model model = load_model(path);
  const auto cases =
      nlohmann::json::parse(read_text_file(testing::fixtures() / "smollm2-greedy-cases.json"));
  for (int64_t rows : {1, 4}) {
    Engine engine(model, nullptr, {.rows = rows, .context = 256});
    std::vector<GenerationRequest> requests;
    for (const nlohmann::json& one : cases) {
      GenerationRequest request;
      request.prompt = one["prompt_ids"].get<std::vector<TokenId>>();
      request.max_tokens = static_cast<int64_t>(one["new_ids"].size());
      requests.push_back(std::move(request));
    }
    const std::vector<GenerationResult> results = generate(engine, std::move(requests));
    for (size_t i = 0; i < results.size(); ++i) {
      EXPECT_EQ(results[i].ids, cases[i]["new_ids"].get<std::vector<TokenId>>())
          << cases[i]["prompt"] << ", " << rows << " rows";
    }
  }
}

}  // namespace
}  // namespace mambify
