#include "io/checkpoint.h"

#include "errors.h"
#include "io/gguf_builder.h"
#include "io/safetensors.h"
#include "testing.h"

namespace mambify {
namespace {

using testing::fixtures;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::kGgmlF32;
using testing::ScratchFolder;

// Writes a shard whose tensors are one byte each.
void write_shard(const fs::path& path, const std::vector<std::string>& names) {
  static constexpr std::byte kByte{7};
  std::vector<TensorToWrite> tensors;
  for (const std::string& name : names) tensors.push_back({name, DType::u8, {1}, {&kByte, 1}});
  write_safetensors(path, tensors);
}

// A folder with config.json and, unless it is empty, an index with this weight_map.
class CheckpointFolder : public ScratchFolder {
 public:
  explicit CheckpointFolder(const std::string& weight_map) {
    write_file_atomically(path() / "config.json", R"({"model_type": "llama"})");
    if (!weight_map.empty()) {
      write_file_atomically(path() / "model.safetensors.index.json",
                            R"({"metadata": {"total_size": 2}, "weight_map": )" + weight_map + "}");
    }
  }
};

constexpr const char* kTwoShards = R"({"a": "1.safetensors", "b": "2.safetensors"})";

TEST(OpenCheckpoint, ReadsAFolder) {
  const Checkpoint checkpoint = open_checkpoint(fixtures() / "tiny-llama");
  EXPECT_EQ(checkpoint.config.at("model_type"), "llama");
  EXPECT_FALSE(checkpoint.gguf.has_value());
  EXPECT_FALSE(checkpoint.mamba_config.has_value());
  EXPECT_EQ(checkpoint.require("model.norm.weight").shape, std::vector<int64_t>{96});
  EXPECT_ERROR(checkpoint.require("model.none"), HasSubstr("tiny-llama"),
               HasSubstr("'model.none' is missing"));
}

TEST(OpenCheckpoint, ReadsTheConfigOfAHybrid) {
  const CheckpointFolder folder("");
  write_shard(folder / "model.safetensors", {"a"});
  write_file_atomically(folder / "mamba_config.json", R"({"attn_layers": [1]})");
  EXPECT_EQ(open_checkpoint(folder.path()).mamba_config->at("attn_layers").at(0), 1);
}

TEST(OpenCheckpoint, ReadsAGgufFile) {
  const ScratchFolder folder;
  write_file_atomically(folder / "m.gguf",
                        GgufBuilder().tensor("t", {1}, kGgmlF32, "aaaa").build());
  const Checkpoint checkpoint = open_checkpoint(folder / "m.gguf");
  ASSERT_TRUE(checkpoint.gguf.has_value());
  EXPECT_TRUE(checkpoint.config.is_null());
  EXPECT_EQ(checkpoint.require("t").dtype, DType::f32);
}

TEST(OpenCheckpoint, JoinsShards) {
  const CheckpointFolder folder(kTwoShards);
  write_shard(folder / "1.safetensors", {"a"});
  write_shard(folder / "2.safetensors", {"b"});
  const Checkpoint checkpoint = open_checkpoint(folder.path());
  EXPECT_EQ(checkpoint.tensors.size(), 2u);
  EXPECT_EQ(checkpoint.require("b").file->path().filename(), "2.safetensors");
}

TEST(OpenCheckpoint, SaysWhatItLookedFor) {
  const ScratchFolder empty;
  EXPECT_ERROR(open_checkpoint(empty.path()), HasSubstr(empty.path().string()),
               HasSubstr("config.json"));
  EXPECT_ERROR(open_checkpoint(empty / "none"), HasSubstr("none does not exist"));
  write_file_atomically(empty / "file", "text");
  EXPECT_ERROR(open_checkpoint(empty / "file"), HasSubstr("GGUF"));
  const CheckpointFolder no_weights("");
  EXPECT_ERROR(open_checkpoint(no_weights.path()), HasSubstr("model.safetensors"),
               HasSubstr("model.safetensors.index.json"));
}

TEST(OpenCheckpoint, RefusesAMissingShard) {
  const CheckpointFolder folder(kTwoShards);
  write_shard(folder / "1.safetensors", {"a"});
  EXPECT_ERROR(open_checkpoint(folder.path()), HasSubstr("'2.safetensors'"), HasSubstr("missing"));
}

TEST(OpenCheckpoint, RefusesATensorInTwoShards) {
  const CheckpointFolder folder(kTwoShards);
  write_shard(folder / "1.safetensors", {"a"});
  write_shard(folder / "2.safetensors", {"b", "a"});
  EXPECT_ERROR(open_checkpoint(folder.path()), HasSubstr("'a'"), HasSubstr("two shards"));
}

TEST(OpenCheckpoint, RefusesAnIndexThatNamesTheWrongShard) {
  const CheckpointFolder swapped(kTwoShards), nowhere(kTwoShards);
  write_shard(swapped / "1.safetensors", {"b"});
  write_shard(swapped / "2.safetensors", {"a"});
  EXPECT_ERROR(open_checkpoint(swapped.path()), HasSubstr("'a'"), HasSubstr("'1.safetensors'"),
               HasSubstr("in '2.safetensors'"));
  write_shard(nowhere / "1.safetensors", {"a"});
  write_shard(nowhere / "2.safetensors", {"c"});
  EXPECT_ERROR(open_checkpoint(nowhere.path()), HasSubstr("'b'"), HasSubstr("nowhere"));
}

TEST(OpenCheckpoint, RefusesShardsOutsideTheFolder) {
  for (const char* name : {"../1.safetensors", "/etc/passwd", "..", ".", "", "a/b"}) {
    const CheckpointFolder folder(fmt::format(R"({{"a": "{}"}})", name));
    EXPECT_ERROR(open_checkpoint(folder.path()), HasSubstr("'a'"),
                 HasSubstr(fmt::format("'{}'", name)));
  }
}

TEST(OpenCheckpoint, RefusesABrokenIndex) {
  const CheckpointFolder list("[1]"), number(R"({"a": 3})"), twice(R"({"a": "1", "a": "2"})");
  EXPECT_ERROR(open_checkpoint(list.path()), HasSubstr("weight_map"), HasSubstr("an object"));
  EXPECT_ERROR(open_checkpoint(number.path()), HasSubstr("'a'"), HasSubstr("a string"));
  EXPECT_ERROR(open_checkpoint(twice.path()), HasSubstr("'a' appears twice"));
}

}  // namespace
}  // namespace mambify
