#include "io/safetensors.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "disk_full.h"
#include "errors.h"
#include "io/bytes.h"
#include "testing.h"

namespace mambify {
namespace {

using testing::Bytes;
using testing::fixtures;
using ::testing::HasSubstr;
using testing::message_when_files_end_at;
using testing::ScratchFolder;

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The JSON header of a file and where its data starts.
std::pair<std::string, size_t> header_of(const fs::path& path) {
  const std::string file = read_text_file(path);
  uint64_t size = 0;
  std::memcpy(&size, file.data(), sizeof(size));
  return {file.substr(8, size), 8 + size};
}

TEST(Safetensors, EveryTypeComesBackAsWritten) {
  const ScratchFolder folder;
  const std::string bytes(48, 'b');
  const auto all = std::as_bytes(std::span(bytes));
  std::vector<TensorToWrite> tensors;
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32,
                            DType::i16, DType::i8, DType::u8, DType::boolean}) {
    tensors.push_back({dtype_name(dtype), dtype, {2, 3}, all.first(dtype_bytes(dtype, 6))});
  }
  tensors.push_back({"scalar", DType::f32, {}, all.first(4)});
  tensors.push_back({"empty", DType::f32, {4, 0}, {}});
  write_safetensors(folder / "a.safetensors", tensors);

  const TensorMap read = open_safetensors(folder / "a.safetensors");
  EXPECT_EQ(read.size(), tensors.size());
  for (const TensorToWrite& tensor : tensors) {
    const TensorView& view = read.at(tensor.name);
    EXPECT_EQ(view.name, tensor.name);
    EXPECT_EQ(view.dtype, tensor.dtype);
    EXPECT_EQ(view.shape, tensor.shape);
    EXPECT_EQ(text_of(view.bytes), text_of(tensor.bytes));
    EXPECT_NE(view.file, nullptr);
  }
}

TEST(Safetensors, ViewsOutliveTheMap) {
  TensorView view;
  {
    TensorMap tensors = open_safetensors(fixtures() / "tiny-llama/model.safetensors");
    view = tensors.at("model.embed_tokens.weight");
  }
  EXPECT_EQ(view.shape, (std::vector<int64_t>{320, 96}));
  std::vector<float> values(static_cast<size_t>(view.elements()));
  dequantize(view, values.data());
  EXPECT_EQ(std::memcmp(values.data(), view.bytes.data(), view.bytes.size()), 0);
}

TEST(Safetensors, WritesTheOrderGivenAnAlignedHeaderAndTheMetadata) {
  const ScratchFolder folder;
  const std::string bytes = "0123456789abcdef";
  const auto all = std::as_bytes(std::span(bytes));
  const std::vector<TensorToWrite> tensors = {{"z", DType::f32, {1}, all.first(4)},
                                              {"a", DType::f64, {1}, all.last(8)}};
  write_safetensors(folder / "f", tensors, {{"format", "pt"}, {"step", "7"}});
  const auto [header, data_start] = header_of(folder / "f");
  EXPECT_EQ(data_start % 8, 0u);
  EXPECT_EQ(nlohmann::ordered_json::parse(header).dump(),
            R"({"__metadata__":{"format":"pt","step":"7"},)"
            R"("z":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
            R"("a":{"dtype":"F64","shape":[1],"data_offsets":[4,12]}})");
  EXPECT_EQ(read_text_file(folder / "f").substr(data_start), "012389abcdef");
}

TEST(Safetensors, NoTensorsAreAFileToo) {
  const ScratchFolder folder;
  write_safetensors(folder / "f", {}, {});
  EXPECT_TRUE(open_safetensors(folder / "f").empty());
}

TEST(SafetensorsWriter, RefusesWhatCannotBeReadBack) {
  const ScratchFolder folder;
  const std::string bytes(40, 'b');
  const auto all = std::as_bytes(std::span(bytes));
  const auto write = [&](std::vector<TensorToWrite> tensors) {
    write_safetensors(folder / "f", tensors);
  };
  EXPECT_ERROR(write({{"t", DType::f32, {3}, all.first(8)}}), HasSubstr("'t'"), HasSubstr("[3]"),
               HasSubstr("8 bytes"));
  EXPECT_ERROR(write({{"t", DType::f32, {-1}, {}}}), HasSubstr("[-1]"));
  EXPECT_ERROR(write({{"t", DType::u8, {1}, all.first(1)}, {"t", DType::u8, {1}, all.first(1)}}),
               HasSubstr("'t'"), HasSubstr("taken"));
  EXPECT_ERROR(write({{"__metadata__", DType::u8, {1}, all.first(1)}}), HasSubstr("taken"));
  EXPECT_ERROR(write({{"t", DType::q8_0, {32}, all.first(34)}}), HasSubstr("q8_0"));
  EXPECT_ERROR(write({{"t\xff", DType::u8, {1}, all.first(1)}}), HasSubstr("UTF-8"));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(SafetensorsWriter, AFullDiskLeavesTheOldFile) {
  const ScratchFolder folder;
  const std::string bytes(100'000, 'b');
  const auto all = std::as_bytes(std::span(bytes));
  const std::vector<TensorToWrite> small = {{"old", DType::u8, {10}, all.first(10)}};
  const std::vector<TensorToWrite> large = {{"new", DType::u8, {100'000}, all}};
  write_safetensors(folder / "f", small);
  const std::string message =
      message_when_files_end_at(50'000, [&] { write_safetensors(folder / "f", large); });
  EXPECT_THAT(message, HasSubstr((folder / "f").string()));
  EXPECT_EQ(open_safetensors(folder / "f").count("old"), 1u);
  EXPECT_FALSE(fs::exists(folder / "f.tmp"));
}

}  // namespace
}  // namespace mambify
