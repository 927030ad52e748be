#include "io/gguf.h"

#include <cstring>

#include "errors.h"
#include "io/gguf_builder.h"
#include "testing.h"

namespace mambify {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace testing;  // the builder's names, mambify::testing

// The tensors are views of `file`.
GgufFile parse(const std::string& file) {
  return parse_gguf(std::as_bytes(std::span(file)), "f.gguf");
}

// For looking at anything but the tensors' bytes, which are gone.
GgufFile parse(const GgufBuilder& builder) { return parse(builder.build()); }

// The bytes of an array: element type, count, elements.
std::string array_of(uint32_t type, uint64_t count, std::string_view elements) {
  return Bytes().number(type).number(count).text(elements).str();
}

TEST(Gguf, ReadsEveryScalar) {
  GgufBuilder builder;
  builder.number<uint8_t>("u8", kGgufU8, 255)
      .number<int8_t>("i8", kGgufI8, -128)
      .number<uint16_t>("u16", kGgufU16, 65535)
      .number<int16_t>("i16", kGgufI16, -2)
      .number<uint32_t>("u32", kGgufU32, 4294967295)
      .number<int32_t>("i32", kGgufI32, -3)
      .number<uint64_t>("u64", kGgufU64, uint64_t{1} << 62)
      .number<int64_t>("i64", kGgufI64, -(int64_t{1} << 62))
      .number<float>("f32", kGgufF32, 0.1f)
      .number<double>("f64", kGgufF64, 0.1)
      .number<uint8_t>("yes", kGgufBool, 1)
      .number<uint8_t>("no", kGgufBool, 0)
      .pair("text", kGgufString, gguf_string("a\xff"));
  const GgufFile file = parse(builder);
  EXPECT_EQ(file.require<int64_t>("u8"), 255);
  EXPECT_EQ(file.require<int64_t>("i8"), -128);
  EXPECT_EQ(file.require<int64_t>("u16"), 65535);
  EXPECT_EQ(file.require<int64_t>("i16"), -2);
  EXPECT_EQ(file.require<int64_t>("u32"), 4294967295);
  EXPECT_EQ(file.require<int64_t>("i32"), -3);
  EXPECT_EQ(file.require<int64_t>("u64"), int64_t{1} << 62);
  EXPECT_EQ(file.require<int64_t>("i64"), -(int64_t{1} << 62));
  EXPECT_EQ(file.require<double>("f32"), static_cast<double>(0.1f));
  EXPECT_EQ(file.require<double>("f64"), 0.1);
  EXPECT_TRUE(file.require<bool>("yes"));
  EXPECT_FALSE(file.require<bool>("no"));
  EXPECT_EQ(file.require<std::string>("text"), "a\xff");
}

TEST(Gguf, ReadsArrays) {
  GgufBuilder builder;
  builder
      .pair("strings", kGgufArray,
            array_of(kGgufString, 3, gguf_string("a") + gguf_string("") + gguf_string("bc")))
      .pair("ints", kGgufArray,
            array_of(kGgufI32, 2, Bytes().number<int32_t>(-1).number<int32_t>(2).str()))
      .pair("longs", kGgufArray, array_of(kGgufU64, 1, Bytes().number<uint64_t>(7).str()))
      .pair("floats", kGgufArray, array_of(kGgufF32, 1, Bytes().number(1.5f).str()))
      .pair("bools", kGgufArray, array_of(kGgufBool, 2, std::string("\1\0", 2)))
      .pair("none", kGgufArray, array_of(kGgufString, 0, ""));
  const GgufFile file = parse(builder);
  EXPECT_THAT(file.require<std::vector<std::string>>("strings"), ElementsAre("a", "", "bc"));
  EXPECT_THAT(file.require<std::vector<int64_t>>("ints"), ElementsAre(-1, 2));
  EXPECT_THAT(file.require<std::vector<int64_t>>("longs"), ElementsAre(7));
  EXPECT_THAT(file.require<std::vector<double>>("floats"), ElementsAre(1.5));
  EXPECT_THAT(file.require<std::vector<bool>>("bools"), ElementsAre(true, false));
  EXPECT_TRUE(file.require<std::vector<std::string>>("none").empty());
}

TEST(Gguf, TypedAccessNamesWhatWasFoundAndExpected) {
  const GgufFile file = parse(GgufBuilder().number<uint32_t>("llama.block_count", kGgufU32, 3));
  EXPECT_EQ(file.find<int64_t>("llama.block_count"), 3);
  EXPECT_EQ(file.find<int64_t>("other"), std::nullopt);
  EXPECT_ERROR(file.require<double>("other"), HasSubstr("f.gguf"), HasSubstr("'other'"),
               HasSubstr("missing"), HasSubstr("a number"));
  EXPECT_ERROR(file.find<std::string>("llama.block_count"), HasSubstr("'llama.block_count'"),
               HasSubstr("an integer"), HasSubstr("a string"));
}

TEST(Gguf, TensorsAreRowMajorAndAligned) {
  for (const uint32_t version : {2u, 3u}) {
    GgufBuilder builder;
    builder.version = version;
    builder.tensor("half", {3, 1}, kGgmlF16, std::string(6, 'h'))
        .tensor("matrix", {64, 2}, kGgmlQ4_1, std::string(80, 'q'))
        .tensor("vector", {2}, kGgmlF32, "fourfour");
    const std::string bytes = builder.build();
    const GgufFile file = parse(bytes);
    ASSERT_EQ(file.tensors.size(), 3u);
    const TensorView& matrix = file.tensors.at("matrix");
    EXPECT_EQ(matrix.dtype, DType::q4_1);
    EXPECT_THAT(matrix.shape, ElementsAre(2, 64));
    EXPECT_EQ(matrix.bytes.size(), 80u);
    EXPECT_EQ(static_cast<char>(matrix.bytes.front()), 'q');
    EXPECT_EQ(static_cast<char>(matrix.bytes.back()), 'q');
    EXPECT_EQ(std::memcmp(file.tensors.at("vector").bytes.data(), "fourfour", 8), 0);
    EXPECT_THAT(file.tensors.at("half").shape, ElementsAre(1, 3));
  }
}

TEST(Gguf, HonoursTheAlignmentKey) {
  GgufBuilder builder;
  builder.alignment = 256;
  builder.number<uint32_t>("general.alignment", kGgufU32, 256)
      .tensor("a", {2}, kGgmlF32, "aaaaaaaa")
      .tensor("b", {2}, kGgmlF32, "bbbbbbbb");
  const std::string bytes = builder.build();
  const GgufFile file = parse(bytes);
  EXPECT_EQ(std::memcmp(file.tensors.at("b").bytes.data(), "bbbbbbbb", 8), 0);
}

TEST(Gguf, OpensFilesAndKnowsThem) {
  const ScratchFolder folder;
  write_file_atomically(folder / "a.gguf",
                        GgufBuilder().tensor("t", {2}, kGgmlF32, "fourfour").build());
  write_file_atomically(folder / "b.gguf", "GGU");
  EXPECT_TRUE(is_gguf(folder / "a.gguf"));
  EXPECT_FALSE(is_gguf(folder / "b.gguf"));
  EXPECT_FALSE(is_gguf(folder / "none"));
  EXPECT_FALSE(is_gguf(folder.path()));
  TensorView view = open_gguf(folder / "a.gguf").tensors.at("t");
  EXPECT_EQ(std::memcmp(view.bytes.data(), "fourfour", 8), 0);
  EXPECT_EQ(open_gguf(folder / "a.gguf").path, folder / "a.gguf");
}

}  // namespace
}  // namespace mambify
