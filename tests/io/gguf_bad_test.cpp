// GGUF files that are truncated or lie: each ends in an Error that says what is wrong.
#include <limits>

#include "errors.h"
#include "io/gguf.h"
#include "io/gguf_builder.h"

namespace mambify {
namespace {

using ::testing::HasSubstr;
using namespace testing;  // the builder's names, mambify::testing

GgufFile parse(const std::string& file) {
  return parse_gguf(std::as_bytes(std::span(file)), "f.gguf");
}
GgufFile parse(const GgufBuilder& builder) { return parse(builder.build()); }

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

TEST(BadGguf, EveryTruncationIsRefused) {
  GgufBuilder builder;
  builder.pair("name", kGgufString, gguf_string("text"))
      .pair("list", kGgufArray,
            Bytes().number(kGgufString).number<uint64_t>(1).text(gguf_string("x")).str())
      .tensor("t", {32}, kGgmlQ8_0, std::string(34, 'q'));
  const std::string file = builder.build();
  ASSERT_NO_THROW(parse(file));
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_ERROR(parse(file.substr(0, size)), HasSubstr("f.gguf"));
  }
}

TEST(BadGguf, OtherFilesAndVersions) {
  EXPECT_ERROR(parse("GGMLxxxx" + std::string(16, '\0')), HasSubstr("not a GGUF file"));
  for (const uint32_t version : {0u, 1u, 4u}) {
    GgufBuilder builder;
    builder.version = version;
    EXPECT_ERROR(parse(builder), HasSubstr("version " + std::to_string(version)));
  }
  GgufBuilder swapped;
  swapped.version = 3u << 24;
  EXPECT_ERROR(parse(swapped), HasSubstr("big-endian"));
}

TEST(BadGguf, AbsurdCounts) {
  for (const uint64_t count : {uint64_t{1}, uint64_t{1} << 40, kMax}) {
    GgufBuilder tensors, pairs;
    tensors.tensor_count = count;
    pairs.pair_count = count;
    EXPECT_ERROR(parse(tensors), HasSubstr("tensor count"), HasSubstr(std::to_string(count)));
    EXPECT_ERROR(parse(pairs), HasSubstr("metadata count"), HasSubstr(std::to_string(count)));
  }
}

TEST(BadGguf, AbsurdLengths) {
  const auto long_string = Bytes().number(kMax).text("x").str();
  EXPECT_ERROR(parse(GgufBuilder().pair("k", kGgufString, long_string)), HasSubstr("'k'"),
               HasSubstr("needed"));
  for (const uint32_t type : {kGgufU8, kGgufBool, kGgufF64, kGgufString}) {
    const auto array = Bytes().number(type).number(kMax / 8 + 2).zeros(64).str();
    EXPECT_ERROR(parse(GgufBuilder().pair("k", kGgufArray, array)), HasSubstr("'k'"),
                 HasSubstr("entries"));
  }
  GgufBuilder name;
  name.pairs = Bytes().number(kMax).zeros(32).str();
  name.pair_count = 1;
  EXPECT_ERROR(parse(name), HasSubstr("metadata key"));
}

TEST(BadGguf, ValuesThatCannotBe) {
  EXPECT_ERROR(parse(GgufBuilder().number("k", 13, 0)), HasSubstr("'k'"), HasSubstr("type 13"));
  EXPECT_ERROR(parse(GgufBuilder().number<uint8_t>("k", kGgufBool, 2)), HasSubstr("true or false"));
  EXPECT_ERROR(parse(GgufBuilder().number("k", kGgufU64, kMax)), HasSubstr("'k'"),
               HasSubstr(std::to_string(kMax)));
  const auto nested = Bytes().number(kGgufArray).number<uint64_t>(1).zeros(64).str();
  EXPECT_ERROR(parse(GgufBuilder().pair("k", kGgufArray, nested)), HasSubstr("arrays of arrays"));
}

TEST(BadGguf, KeysAndTensorsDefinedTwice) {
  EXPECT_ERROR(parse(GgufBuilder().number("k", kGgufU32, 1).number("k", kGgufU32, 1)),
               HasSubstr("'k'"), HasSubstr("twice"));
  EXPECT_ERROR(
      parse(GgufBuilder().tensor("t", {1}, kGgmlF32, "aaaa").tensor("t", {1}, kGgmlF32, "bbbb")),
      HasSubstr("'t'"), HasSubstr("twice"));
}

TEST(BadGguf, Alignments) {
  for (const uint32_t alignment : {0u, 3u, 48u}) {
    EXPECT_ERROR(parse(GgufBuilder().number("general.alignment", kGgufU32, alignment)),
                 HasSubstr("general.alignment"), HasSubstr(std::to_string(alignment)));
  }
  EXPECT_ERROR(parse(GgufBuilder().pair("general.alignment", kGgufString, gguf_string("32"))),
               HasSubstr("general.alignment"), HasSubstr("an integer"));
  GgufBuilder beyond;  // the data would begin after the file
  beyond.number<uint64_t>("general.alignment", kGgufU64, uint64_t{1} << 62)
      .tensor("t", {1}, kGgmlF32, "aaaa");
  EXPECT_ERROR(parse(beyond), HasSubstr("'t'"));
  GgufBuilder crooked;
  crooked.info("t", {1}, kGgmlF32, 4);
  crooked.data.resize(64);
  EXPECT_ERROR(parse(crooked), HasSubstr("'t'"), HasSubstr("alignment"));
}

TEST(BadGguf, TensorsOutsideTheFile) {
  for (const uint64_t offset : {uint64_t{32}, uint64_t{1} << 63, kMax - 31}) {
    GgufBuilder builder;
    builder.info("t", {8}, kGgmlF32, offset);
    builder.data.resize(32);
    EXPECT_ERROR(parse(builder), HasSubstr("'t'"), HasSubstr(std::to_string(offset)));
  }
}

TEST(BadGguf, TensorsThatOverlap) {
  GgufBuilder builder;
  builder.info("a", {16}, kGgmlF32, 0).info("b", {8}, kGgmlF32, 32);
  builder.data.resize(64);
  EXPECT_ERROR(parse(builder), HasSubstr("'a'"), HasSubstr("'b'"), HasSubstr("overlap"));
}

TEST(BadGguf, ImpossibleShapes) {
  const auto shaped = [](std::vector<uint64_t> dimensions, uint32_t type) {
    GgufBuilder builder;
    builder.info("t", std::move(dimensions), type, 0);
    builder.data.resize(4096);
    return builder.build();
  };
  EXPECT_ERROR(parse(shaped({1, 1, 1, 1, 1}, kGgmlF32)), HasSubstr("5 dimensions"));
  EXPECT_ERROR(parse(shaped({uint64_t{1} << 63}, kGgmlF32)), HasSubstr("'t'"));
  EXPECT_ERROR(parse(shaped({uint64_t{1} << 32, uint64_t{1} << 32}, kGgmlF32)),
               HasSubstr("impossible shape"));
  EXPECT_ERROR(parse(shaped({uint64_t{1} << 61, 2}, kGgmlF32)), HasSubstr("'t'"));
  // 64 weights in all, but a row must fill whole blocks of 32
  EXPECT_ERROR(parse(shaped({16, 4}, kGgmlQ4_0)), HasSubstr("impossible shape [4, 16]"));
}

TEST(BadGguf, NamesTheTypesItCannotRead) {
  GgufBuilder builder;
  builder.info("blk.0.attn_q.weight", {256}, kGgmlQ4_K, 0);
  builder.data.resize(144);
  EXPECT_ERROR(parse(builder), HasSubstr("'blk.0.attn_q.weight'"), HasSubstr("Q4_K"),
               HasSubstr("Q8_0, Q4_0 and Q4_1"));
  GgufBuilder unknown;
  unknown.info("t", {256}, 4'000'000'000, 0);
  EXPECT_ERROR(parse(unknown), HasSubstr("4000000000"), HasSubstr("unknown"));
}

}  // namespace
}  // namespace mambify
