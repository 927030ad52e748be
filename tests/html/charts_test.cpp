#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "html/bar_chart.h"
#include "html/heat_map.h"
#include "html/line_plot.h"
#include "html/page.h"

namespace mambify {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(Page, EscapesItsTitleAndKeepsItsBody) {
  const std::string page = html_page("a < b", "<p>x</p>");
  EXPECT_THAT(page, HasSubstr("<h1>a &lt; b</h1>"));
  EXPECT_THAT(page, HasSubstr("<p>x</p>"));
  EXPECT_EQ(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
}

TEST(HeatMap, HasACellForEachValueAndALineBehindTheLimit) {
  HeatMap map{.title = "a & b",
              .x_title = "tokens",
              .y_title = "depth",
              .columns = {"1", "2", "3"},
              .rows = {"0 %", "100 %"},
              .values = {{0, 0.5, 1}, {0.25, std::numeric_limits<double>::quiet_NaN(), 1}}};
  const std::string without = svg(map);
  EXPECT_EQ(count(without, "<rect"), 6);
  EXPECT_THAT(without, HasSubstr("a &amp; b"));
  EXPECT_EQ(count(without, ">100<"), 2);
  EXPECT_EQ(count(without, ">25<"), 1);
  EXPECT_EQ(count(without, "#eeeeee"), 1);  // what was not measured
  EXPECT_THAT(without, Not(HasSubstr("limit")));
  map.limit_before = 2;
  EXPECT_THAT(svg(map), HasSubstr("class=\"limit\""));
}

TEST(BarChart, HasABarForEachValueAndNoneWithout) {
  EXPECT_EQ(
      count(svg({.title = "t", .x_title = "x", .names = {"0", "1"}, .values = {0.5, 2}}), "<rect"),
      2);
  EXPECT_EQ(count(svg(BarChart{.title = "t", .x_title = "x", .names = {}, .values = {}}), "<rect"),
            0);
  EXPECT_THAT(svg({.title = "t", .x_title = "x", .names = {"0"}, .values = {0}}),
              Not(HasSubstr("nan")));
}

TEST(LinePlot, LeavesOutWhatIsNotFinite) {
  const double infinity = std::numeric_limits<double>::infinity();
  const std::string plot = svg(Plot{"loss", {1, 2, 3}, {4, infinity, 2}, {2}, true});
  EXPECT_THAT(plot, HasSubstr("<path"));
  EXPECT_THAT(plot, Not(HasSubstr("inf")));
  EXPECT_THAT(svg(Plot{"nothing", {}, {}, {}, false}), Not(HasSubstr("<path")));
}

}  // namespace
}  // namespace mambify
