#include "html/heat_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "html/page.h"

namespace mambify {
namespace {

constexpr double kWidth = 460, kLeft = 58, kRight = 12, kTop = 26, kBottom = 40, kRowHeight = 24;

// Between light shades, so that dark text is read on all of them.
std::string color_of(double value) {
  if (!std::isfinite(value)) return "#eeeeee";
  constexpr std::array<double, 3> kLow = {242, 139, 130}, kMiddle = {253, 226, 147},
                                  kHigh = {129, 201, 149};
  const double share = std::clamp(value, 0.0, 1.0) * 2;
  const auto& from = share < 1 ? kLow : kMiddle;
  const auto& to = share < 1 ? kMiddle : kHigh;
  const double part = share < 1 ? share : share - 1;
  const auto mixed = [&](size_t i) { return std::lround(from[i] + part * (to[i] - from[i])); };
  return fmt::format("#{:02x}{:02x}{:02x}", mixed(0), mixed(1), mixed(2));
}

std::string text_at(double x, double y, const char* style, const char* anchor,
                    const std::string& text) {
  return fmt::format("<text class=\"{}\" text-anchor=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>",
                     style, anchor, x, y, escaped(text));
}

}  // namespace

std::string svg(const HeatMap& map) {
  const auto n_columns = static_cast<double>(std::max<size_t>(1, map.columns.size()));
  const double column_width = (kWidth - kLeft - kRight) / n_columns;
  const double bottom = kTop + kRowHeight * static_cast<double>(map.rows.size());
  std::string text = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\"><title>{}</title>",
                                 kWidth, bottom + kBottom, escaped(map.title));
  text += text_at(kLeft, 16, "title", "start", map.title);
  text += text_at(kLeft - 5, 16, "axis", "end", map.y_title);
  text += text_at((kLeft + kWidth - kRight) / 2, bottom + 32, "axis", "middle", map.x_title);
  for (size_t row = 0; row < map.rows.size(); ++row) {
    const double top = kTop + kRowHeight * static_cast<double>(row);
    text += text_at(kLeft - 5, top + 16, "axis", "end", map.rows[row]);
    for (size_t column = 0; column < map.columns.size(); ++column) {
      const double left = kLeft + column_width * static_cast<double>(column);
      const double value = map.values[row][column];
      text += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"/>", left,
          top, column_width - 1, kRowHeight - 1, color_of(value));
      text += text_at(left + column_width / 2, top + 16, "cell", "middle",
                      std::isfinite(value) ? fmt::format("{:.0f}", 100 * value) : "");
    }
  }
  for (size_t column = 0; column < map.columns.size(); ++column) {
    text += text_at(kLeft + column_width * (static_cast<double>(column) + 0.5), bottom + 16, "axis",
                    "middle", map.columns[column]);
  }
  if (map.limit_before >= 0) {
    text +=
        fmt::format("<line class=\"limit\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>",
                    kLeft + column_width * map.limit_before - 0.5, kTop - 4, bottom + 4);
  }
  return text + "</svg>";
}

}  // namespace mambify
