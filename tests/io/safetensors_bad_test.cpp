// Safetensors files that are truncated or lie: each ends in an Error that says what is wrong.
#include <limits>

#include "errors.h"
#include "io/bytes.h"
#include "io/safetensors.h"
#include "testing.h"

namespace mambify {
namespace {

using testing::Bytes;
using testing::fixtures;
using ::testing::HasSubstr;
using testing::ScratchFolder;

TensorMap parse(const std::string& file) {
  return parse_safetensors(std::as_bytes(std::span(file)), "f.safetensors");
}

// A file with this header and as many bytes of data.
std::string with_header(std::string_view header, size_t data_bytes) {
  return Bytes().number<uint64_t>(header.size()).text(header).zeros(data_bytes).str();
}

// A file with one tensor 't' that is described so and eight bytes of data.
std::string one_tensor(std::string_view description) {
  return with_header(R"({"t":{)" + std::string(description) + "}}", 8);
}

TEST(BadSafetensors, TheHelpersMakeGoodFiles) {
  EXPECT_EQ(parse(one_tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])")).size(), 1u);
}

TEST(BadSafetensors, EveryTruncationIsRefused) {
  const std::string file = read_text_file(fixtures() / "tiny-mamba/model.safetensors");
  const size_t header_end =
      8 + static_cast<unsigned char>(file[0]) + 256 * static_cast<unsigned char>(file[1]);
  ASSERT_NO_THROW(parse(file));
  for (size_t size = 0; size < file.size(); size += size < header_end ? 7 : 9973) {
    EXPECT_ERROR(parse(file.substr(0, size)), HasSubstr("f.safetensors"));
  }
  EXPECT_ERROR(parse(file.substr(0, file.size() - 1)), HasSubstr("tensor"));
}

TEST(BadSafetensors, TrailingBytes) {
  EXPECT_ERROR(parse(with_header("{}", 3)), HasSubstr("3 bytes"));
}

TEST(BadSafetensors, LyingHeaderLengths) {
  for (const uint64_t length :
       {uint64_t{3}, uint64_t{1} << 34, uint64_t{1} << 62, std::numeric_limits<uint64_t>::max()}) {
    EXPECT_ERROR(parse(Bytes().number(length).text("{}").str()), HasSubstr(std::to_string(length)));
  }
}

// A header of gigabytes that the (sparse) file really has is refused before it is parsed.
TEST(BadSafetensors, GiantHeader) {
  const ScratchFolder folder;
  constexpr uint64_t kSize = uint64_t{3} << 30;
  write_file_atomically(folder / "f", Bytes().number(kSize).text("{").str());
  fs::resize_file(folder / "f", kSize + 8);
  EXPECT_ERROR(open_safetensors(folder / "f"), HasSubstr(std::to_string(kSize)),
               HasSubstr("allowed"));
}

TEST(BadSafetensors, HeadersThatAreNoObjectsOfObjects) {
  EXPECT_ERROR(parse(with_header("{\"t\":", 0)), HasSubstr("not valid JSON"));
  EXPECT_ERROR(parse(with_header("{}x", 0)), HasSubstr("not valid JSON"));
  EXPECT_ERROR(parse(with_header("[1]", 0)), HasSubstr("header"));
  EXPECT_ERROR(parse(with_header(R"({"t":3})", 0)), HasSubstr("'t'"), HasSubstr("number 3"));
  EXPECT_ERROR(parse(with_header("{\"\xff\":3}", 0)), HasSubstr("not valid JSON"));
  const std::string deep(100'000, '[');
  EXPECT_ERROR(parse(with_header("{\"t\":" + deep, 0)), HasSubstr("deep"));
}

TEST(BadSafetensors, MissingAndMistypedKeys) {
  EXPECT_ERROR(parse(one_tensor(R"("shape":[2],"data_offsets":[0,8])")), HasSubstr("'t'"),
               HasSubstr("'dtype' is missing"));
  EXPECT_ERROR(parse(one_tensor(R"("dtype":"F32","data_offsets":[0,8])")), HasSubstr("'shape'"));
  EXPECT_ERROR(parse(one_tensor(R"("dtype":"F32","shape":[2])")), HasSubstr("'data_offsets'"));
  EXPECT_ERROR(parse(one_tensor(R"("dtype":"F32","shape":["2"],"data_offsets":[0,8])")),
               HasSubstr("list of integers"));
  EXPECT_ERROR(parse(one_tensor(R"("dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8])")),
               HasSubstr("'t'"), HasSubstr("F8_E4M3"));
}

TEST(BadSafetensors, OffsetsOutsideTheFile) {
  for (const char* offsets : {"[0,16]", "[8,16]", "[-8,0]", "[8,0]", "[0]", "[0,8,8]",
                              "[0,9223372036854775807]", "[0,18446744073709551615]"}) {
    EXPECT_ERROR(
        parse(one_tensor(fmt::format(R"("dtype":"U8","shape":[8],"data_offsets":{})", offsets))),
        HasSubstr("'t'"), HasSubstr("data_offsets"));
  }
}

TEST(BadSafetensors, ShapesThatDoNotFitTheBytes) {
  // The last two products overflow 64 bits to 2 and to 0.
  for (const char* shape :
       {"[1]", "[3]", "[]", "[0]", "[-2]", "[-1,-2]", "[9223372036854775807]",
        "[9223372036854775807,2,9223372036854775807]", "[4294967296,4294967296]"}) {
    EXPECT_ERROR(
        parse(one_tensor(fmt::format(R"("dtype":"F32","shape":{},"data_offsets":[0,8])", shape))),
        HasSubstr("'t'"), HasSubstr("8 bytes"));
  }
}

TEST(BadSafetensors, OverlapsGapsAndTensorsDefinedTwice) {
  const auto two = [](const char* first, const char* second, const char* second_name) {
    return with_header(fmt::format(R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":{}}},)"
                                   R"("{}":{{"dtype":"U8","shape":[4],"data_offsets":{}}}}})",
                                   first, second_name, second),
                       8);
  };
  EXPECT_EQ(parse(two("[4,8]", "[0,4]", "b")).size(), 2u);
  EXPECT_ERROR(parse(two("[0,4]", "[3,7]", "b")), HasSubstr("'b'"), HasSubstr("overlaps"));
  EXPECT_ERROR(parse(two("[0,4]", "[0,4]", "b")), HasSubstr("overlaps"));
  EXPECT_ERROR(parse(two("[1,5]", "[4,8]", "b")), HasSubstr("'a'"), HasSubstr("gap"));
  EXPECT_ERROR(parse(two("[0,4]", "[4,8]", "a")), HasSubstr("'a' appears twice"));
}

}  // namespace
}  // namespace mambify
