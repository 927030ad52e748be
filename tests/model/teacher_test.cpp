// The default teacher against transformers on the dequantised weights. Runs where MAMBIFY_TEACHER
// names its GGUF file, as `make test` does.
#include <gtest/gtest.h>

#include <cstdlib>

#include "model/fixtures.h"

namespace mambify {
namespace {

using namespace testing;

TEST(Teacher, GivesTheLogLikelihoodsOfTransformers) {
  const char* path = std::getenv("MAMBIFY_TEACHER");
  if (path == nullptr) GTEST_SKIP() << "MAMBIFY_TEACHER is not set";
  const Model model = load_model(path);
  const TensorMap expected = open_safetensors(fixtures() / "smollm2-logits.safetensors");
  const at::Tensor ids = tensor_of(expected, "input_ids");
  const at::Tensor ours = logits_of(model, ids);
  const at::Tensor nll = -ours.log_softmax(1)
                              .narrow(0, 0, ours.size(0) - 1)
                              .gather(1, ids.flatten().narrow(0, 1, ours.size(0) - 1).unsqueeze(1))
                              .squeeze(1);
  EXPECT_LT((nll - tensor_of(expected, "nll")).abs().max().item<float>(), 1e-3f);
  const at::Tensor last = ours.select(0, -1);
  EXPECT_LT((last - tensor_of(expected, "last_logits")).abs().max().item<float>(), 1e-2f);
}

}  // namespace
}  // namespace mambify
