#include "eval/summary.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "convert/convert.h"
#include "model/load.h"
#include "random_model.h"
#include "testing.h"

namespace mambify {
namespace {

TEST(Summary, CountsEveryParameterOnce) {
  for (const char* name : {"tiny-llama", "tiny-llama3-rope", "tiny-mamba", "tiny-mamba2"}) {
    const Checkpoint checkpoint = open_checkpoint(testing::fixtures() / name);
    const ParameterCounts counts = count_parameters(checkpoint.tensors);
    EXPECT_EQ(counts.total(), parameter_count(load_model(checkpoint))) << name;
    EXPECT_EQ(counts.other, 0) << name;
    EXPECT_GT(counts.embedding, 0) << name;
    EXPECT_GT(counts.norms, 0) << name;
    EXPECT_EQ(count_by_dtype(checkpoint.tensors),
              (std::map<std::string, int64_t>{{dtype_name(DType::f32), counts.total()}}))
        << name;
  }
}

TEST(Summary, KnowsThePartsOfAHybrid) {
  const Model teacher = load_model(testing::fixtures() / "tiny-llama");
  const testing::ScratchFolder scratch;
  save_model(convert(teacher, {.attention_layers = {1}}), scratch.path());
  const ParameterCounts before =
      count_parameters(open_checkpoint(testing::fixtures() / "tiny-llama").tensors);
  const ParameterCounts after = count_parameters(open_checkpoint(scratch.path()).tensors);
  EXPECT_EQ(after.attention * teacher.config.n_layer(), before.attention);
  EXPECT_GT(after.mamba, 2 * after.attention);
  EXPECT_EQ(after.mlp, before.mlp);
  EXPECT_EQ(after.norms, before.norms);
}

TEST(Summary, KnowsTheNamesOfGguf) {
  TensorMap tensors;
  const auto add = [&](const std::string& name, int64_t size) {
    tensors[name] = TensorView{name, DType::f32, {size}, {}, nullptr};
  };
  add("token_embd.weight", 1);
  add("blk.0.attn_norm.weight", 2);
  add("blk.0.attn_q.weight", 4);
  add("blk.0.attn_output.weight", 8);
  add("blk.0.ffn_norm.weight", 16);
  add("blk.0.ffn_gate.weight", 32);
  add("output_norm.weight", 64);
  add("output.weight", 128);
  add("rope_freqs.weight", 256);
  const ParameterCounts counts = count_parameters(tensors);
  EXPECT_EQ(counts.embedding, 1);
  EXPECT_EQ(counts.norms, 2 + 16 + 64);
  EXPECT_EQ(counts.attention, 4 + 8);
  EXPECT_EQ(counts.mlp, 32);
  EXPECT_EQ(counts.output, 128);
  EXPECT_EQ(counts.other, 256);
}

TEST(Summary, SequenceMemoryIsWhatDecodingAllocates) {
  const Model teacher = testing::random_model(30, 1);
  for (const Model& model :
       {teacher, convert(teacher, {.attention_layers = {1}}),
        convert(teacher, {.attention_layers = {0}, .mixer = MixerKind::mamba1})}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const auto bytes = static_cast<int64_t>(c10::elementSize(dtype));
      const SequenceMemory memory = sequence_memory(model.config, 100, bytes);
      const ModelState state(model.config, 1, 100, at::TensorOptions(dtype));
      EXPECT_EQ(memory.kv_cache + memory.recurrent_state, state.bytes());
    }
  }
}

}  // namespace
}  // namespace mambify
