#include "io/json_reader.h"

#include <cmath>
#include <limits>

#include "errors.h"
#include "testing.h"

namespace mambify {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::ScratchFolder;

TEST(ParseJson, BuildsTheSameDocumentAsTheLibrary) {
  const std::string text =
      R"({"a": [1, -2, 3.5, "s", null, true, {"b": [[], {}]}], "c": {"d": 18446744073709551615}})";
  EXPECT_EQ(parse_json(text, "f"), json::parse(text));
  EXPECT_EQ(parse_json(" 3 ", "f"), json(3));
}

TEST(ParseJson, NamesTheFileAndThePlace) {
  EXPECT_ERROR(parse_json("{\"a\": 1,}", "conf.json"), HasSubstr("conf.json"), HasSubstr("byte 9"));
  EXPECT_ERROR(parse_json("", "f"), HasSubstr("not valid JSON"));
  EXPECT_ERROR(parse_json("{} {}", "f"), HasSubstr("not valid JSON"));
  EXPECT_ERROR(parse_json("[1e999]", "f"), HasSubstr("f"), HasSubstr("not valid JSON"));
  EXPECT_ERROR(parse_json("NaN", "f"), HasSubstr("not valid JSON"));
}

TEST(ParseJson, RefusesAKeyTwiceInOneObject) {
  EXPECT_ERROR(parse_json(R"({"a": {"k": 1, "k": 2}})", "f"), HasSubstr("'k' appears twice"));
  EXPECT_NO_THROW(parse_json(R"({"a": {"k": 1}, "k": 2})", "f"));
}

TEST(ParseJson, RefusesDepthThatWouldExhaustTheStack) {
  EXPECT_NO_THROW(parse_json(std::string(100, '[') + std::string(100, ']'), "f"));
  EXPECT_ERROR(parse_json(std::string(1'000'000, '['), "f"), HasSubstr("nested deeper"));
}

TEST(ReadJson, TakesTheNonFiniteNumbersThatPythonWrites) {
  const ScratchFolder folder;
  write_file_atomically(folder / "c.json",
                        R"({"limit": [0.0, Infinity, -Infinity, NaN], "s": "\"NaN\\"})");
  const json document = read_json(folder / "c.json");
  const JsonReader reader(document, "c.json");
  const auto limit = reader.require<std::vector<double>>("limit");
  EXPECT_EQ(limit[1], std::numeric_limits<double>::infinity());
  EXPECT_EQ(limit[2], -std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(limit[3]));
  EXPECT_EQ(reader.require<std::string>("s"), "\"NaN\\");
  EXPECT_ERROR(read_json(folder / "none.json"), HasSubstr("none.json"));
}

TEST(JsonReader, ReadsEveryKind) {
  const json document = json::parse(R"({"b": true, "i": -3, "d": 2.5, "whole": 2, "s": "x",
      "bs": [true], "is": [1, 2], "ds": [1, 2.5], "ss": ["x"], "none": null, "o": {"i": 4},
      "inf": {"__float__": "Infinity"}})");
  const JsonReader reader(document, "conf.json");
  EXPECT_TRUE(reader.require<bool>("b"));
  EXPECT_EQ(reader.require<int64_t>("i"), -3);
  EXPECT_EQ(reader.require<double>("d"), 2.5);
  EXPECT_EQ(reader.require<double>("whole"), 2.0);
  EXPECT_EQ(reader.require<double>("inf"), std::numeric_limits<double>::infinity());
  EXPECT_EQ(reader.require<std::string>("s"), "x");
  EXPECT_THAT(reader.require<std::vector<bool>>("bs"), ElementsAre(true));
  EXPECT_THAT(reader.require<std::vector<int64_t>>("is"), ElementsAre(1, 2));
  EXPECT_THAT(reader.require<std::vector<double>>("ds"), ElementsAre(1.0, 2.5));
  EXPECT_THAT(reader.require<std::vector<std::string>>("ss"), ElementsAre("x"));
  EXPECT_EQ(reader.object("o").require<int64_t>("i"), 4);
  EXPECT_TRUE(reader.has("b"));
  EXPECT_FALSE(reader.has("none"));
  EXPECT_FALSE(reader.has("absent"));
  EXPECT_EQ(reader.find<int64_t>("none"), std::nullopt);
  EXPECT_EQ(reader.get<int64_t>("absent", 7), 7);
  EXPECT_EQ(reader.get<int64_t>("i", 7), -3);
}

TEST(JsonReader, NamesFileKeyFoundAndExpected) {
  const json document = json::parse(R"({"s": "x", "d": 2.5, "big": 18446744073709551615,
      "is": [1, "2"], "null": null, "o": {"i": 200}})");
  const JsonReader reader(document, "conf.json");
  EXPECT_ERROR(reader.require<int64_t>("absent"), HasSubstr("conf.json"), HasSubstr("'absent'"),
               HasSubstr("missing"), HasSubstr("an integer"));
  EXPECT_ERROR(reader.require<bool>("null"), HasSubstr("missing"));
  EXPECT_ERROR(reader.require<int64_t>("s"), HasSubstr("'s'"), HasSubstr("string \"x\""),
               HasSubstr("an integer"));
  EXPECT_ERROR(reader.get<int64_t>("d", 1), HasSubstr("number 2.5"), HasSubstr("an integer"));
  EXPECT_ERROR(reader.find<int64_t>("big"), HasSubstr("18446744073709551615"));
  EXPECT_ERROR(reader.find<std::vector<int64_t>>("is"), HasSubstr("'is'"),
               HasSubstr("a list of integers"));
  EXPECT_ERROR(reader.object("s"), HasSubstr("conf.json: s"), HasSubstr("an object"));
  EXPECT_ERROR(reader.object("absent"), HasSubstr("'absent'"), HasSubstr("an object"));
  EXPECT_ERROR(reader.object("o").require_between("i", 1, 100), HasSubstr("conf.json: o"),
               HasSubstr("200"), HasSubstr("1 to 100"));
  EXPECT_EQ(reader.object("o").require_between("i", 200, 200), 200);
  EXPECT_ERROR(JsonReader(document.at("d"), "conf.json"), HasSubstr("an object"));
}

}  // namespace
}  // namespace mambify
