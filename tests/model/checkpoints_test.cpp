// Whole checkpoints against logits that Hugging Face transformers computed.
#include <gtest/gtest.h>

#include "model/fixtures.h"

namespace mambify {
namespace {

using namespace testing;

class Checkpoints : public ::testing::TestWithParam<const char*> {};

TEST_P(Checkpoints, GiveTheLogitsOfTransformers) {
  const Model model = load_model(fixtures() / GetParam());
  const TensorMap expected = open_safetensors(fixtures() / GetParam() / "expected.safetensors");
  const at::Tensor ours = logits_of(model, tensor_of(expected, "input_ids"));
  const at::Tensor theirs = tensor_of(expected, "logits").view_as(ours);
  EXPECT_LT((ours - theirs).abs().max().item<float>(), 2e-4f);
}

TEST_P(Checkpoints, PackedDocumentsEqualTheDocumentsAlone) {
  const Model model = load_model(fixtures() / GetParam());
  c10::InferenceMode inference;
  const at::Tensor ids = at::arange(100).remainder(model.config.vocab_size);
  const Segments packed{{0, 1, 38, 100}};
  const at::Tensor together =
      hidden_states(model, ids, make_context(model.config, packed, model.embedding.options()));
  for (int64_t d = 0; d < packed.documents(); ++d) {
    const at::Tensor part = ids.narrow(0, packed.begin(d), packed.length(d));
    const at::Tensor alone = hidden_states(
        model, part,
        make_context(model.config, Segments::one(part.size(0)), model.embedding.options()));
    EXPECT_TRUE(
        at::allclose(together.narrow(0, packed.begin(d), packed.length(d)), alone, 1e-4, 1e-5));
  }
}

TEST_P(Checkpoints, AreTheSameAfterSavingAndLoading) {
  const Model model = load_model(fixtures() / GetParam());
  const ScratchFolder scratch;
  save_model(model, scratch.path());
  const Model again = load_model(scratch.path());
  const at::Tensor ids = at::arange(40).view({2, 20});
  EXPECT_TRUE(at::equal(logits_of(model, ids), logits_of(again, ids)));
  EXPECT_EQ(parameter_count(model), parameter_count(again));
}

INSTANTIATE_TEST_SUITE_P(All, Checkpoints, ::testing::ValuesIn(kCheckpoints), [](const auto& info) {
  std::string name = info.param;
  std::erase(name, '-');
  return name;
});

TEST(Clone, SharesNothingAndStaysTied) {
  const Model model = load_model(fixtures() / "tiny-llama");
  const Model copy = clone(model);
  copy.embedding.zero_();
  EXPECT_GT(model.embedding.abs().sum().item<float>(), 0);
  EXPECT_TRUE(copy.lm_head.is_same(copy.embedding));
}

}  // namespace
}  // namespace mambify
