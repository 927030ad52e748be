#include "convert/layer_plan.h"

#include <gtest/gtest.h>

#include <fstream>
#include <numeric>

#include "core/error.h"
#include "testing.h"

namespace mambify {
namespace {

using Layers = std::vector<int64_t>;

TEST(LayerPlan, KeepsThePapersNestedLayers) {
  EXPECT_EQ(evenly_kept_layers({1, 2}, 30),
            (Layers{1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29}));
  EXPECT_EQ(evenly_kept_layers({1, 4}, 30), (Layers{3, 7, 11, 15, 19, 23, 27}));
  EXPECT_EQ(evenly_kept_layers({1, 8}, 30), (Layers{7, 15, 23}));
  EXPECT_EQ(evenly_kept_layers({0, 1}, 30), Layers{});
  EXPECT_EQ(evenly_kept_layers({1, 4}, 32), (Layers{3, 7, 11, 15, 19, 23, 27, 31}));
}

TEST(LayerPlan, SpacesOtherFractionsEvenly) {
  EXPECT_EQ(evenly_kept_layers({3, 8}, 16), (Layers{1, 4, 7, 9, 12, 15}));
  EXPECT_EQ(evenly_kept_layers({2, 3}, 3), (Layers{0, 2}));
  Layers all(30);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(evenly_kept_layers({1, 1}, 30), all);
  EXPECT_EQ(evenly_kept_layers({30, 30}, 30), all);
}

TEST(LayerPlan, ParsesFractions) {
  EXPECT_EQ(parse_layer_fraction("3/8").numerator, 3);
  EXPECT_EQ(parse_layer_fraction("3/8").denominator, 8);
  EXPECT_EQ(parse_layer_fraction("0").numerator, 0);
  EXPECT_EQ(parse_layer_fraction("1").denominator, 1);
  for (const char* bad : {"", "/", "1/", "/4", "1/0", "5/4", "-1/4", "0.25", "1/4 ", "2"}) {
    EXPECT_THROW(parse_layer_fraction(bad), UsageError) << bad;
  }
}

TEST(LayerPlan, ParsesLists) {
  EXPECT_EQ(parse_layer_list("7,3,11", 12), (Layers{3, 7, 11}));
  EXPECT_EQ(parse_layer_list("", 12), Layers{});
  EXPECT_EQ(parse_layer_list("none", 12), Layers{});
  for (const char* bad : {"12", "3,3", "3,", ",3", "a", "-1", "3 ,4"}) {
    EXPECT_THROW(parse_layer_list(bad, 12), UsageError) << bad;
  }
}

class SensitivityFile : public ::testing::Test {
 protected:
  fs::path write(const std::string& content) {
    const fs::path path = scratch_ / "sensitivity.json";
    std::ofstream(path) << content;
    return path;
  }
  testing::ScratchFolder scratch_;
};

TEST_F(SensitivityFile, KeepsTheLayersThatAreConvertedLast) {
  const fs::path path = write(R"({"layers": 8, "order": [5, 0, 7, 2, 6, 1, 4, 3]})");
  EXPECT_EQ(sensitive_kept_layers({1, 4}, 8, path), (Layers{3, 4}));
  EXPECT_EQ(sensitive_kept_layers({3, 8}, 8, path), (Layers{1, 3, 4}));
  EXPECT_EQ(sensitive_kept_layers({0, 1}, 8, path), Layers{});
}

TEST_F(SensitivityFile, MustFitTheModel) {
  const auto fails = [this](const std::string& content) {
    EXPECT_THROW(sensitive_kept_layers({1, 2}, 4, write(content)), Error) << content;
  };
  fails(R"({"layers": 5, "order": [0, 1, 2, 3]})");
  fails(R"({"layers": 4, "order": [0, 1, 2, 4]})");
  fails(R"({"layers": 4, "order": [0, 1, 1, 2]})");
  fails(R"({"layers": 4, "order": [3]})");
  fails(R"({"layers": 4})");
  fails(R"({"order": [0, 1, 2, 3]})");
  EXPECT_NO_THROW(sensitive_kept_layers({1, 2}, 4, write(R"({"layers": 4, "order": [2, 3]})")));
}

}  // namespace
}  // namespace mambify
