#include "html/bar_chart.h"

#include <fmt/format.h>

#include <algorithm>

#include "html/page.h"

namespace mambify {
namespace {

constexpr double kWidth = 460, kHeight = 240, kLeft = 58, kRight = 12, kTop = 26, kBottom = 40;

}  // namespace

std::string svg(const BarChart& chart) {
  std::string text = fmt::format(
      "<svg viewBox=\"0 0 {0} {1}\" role=\"img\"><title>{2}</title><text class=\"title\" x=\"{3}\" "
      "y=\"16\">{2}</text><text class=\"axis\" text-anchor=\"middle\" x=\"{4}\" y=\"{5}\">{6}"
      "</text>",
      kWidth, kHeight, escaped(chart.title), kLeft, (kLeft + kWidth - kRight) / 2, kHeight - 8,
      escaped(chart.x_title));
  if (chart.values.empty()) return text + "</svg>";
  const double highest = std::max(*std::ranges::max_element(chart.values), 1e-12);
  const double bottom = kHeight - kBottom, height = bottom - kTop;
  constexpr int kLines = 4;
  for (int i = 0; i <= kLines; ++i) {
    const double y = bottom - height * i / kLines;
    text += fmt::format(
        "<line class=\"grid\" x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/><text "
        "class=\"axis\" text-anchor=\"end\" x=\"{3}\" y=\"{4:.1f}\">{5:.3g}</text>",
        kLeft, kWidth - kRight, y, kLeft - 5, y + 4, highest * i / kLines);
  }
  const double slot = (kWidth - kLeft - kRight) / static_cast<double>(chart.values.size());
  for (size_t i = 0; i < chart.values.size(); ++i) {
    const double left = kLeft + slot * static_cast<double>(i);
    const double length = height * std::max(chart.values[i], 0.0) / highest;
    text += fmt::format(
        "<rect class=\"bar\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"><title>"
        "{}: {:.4g}</title></rect><text class=\"axis\" text-anchor=\"middle\" x=\"{:.1f}\" "
        "y=\"{:.1f}\">{}</text>",
        left + 0.1 * slot, bottom - length, 0.8 * slot, length, escaped(chart.names[i]),
        chart.values[i], left + slot / 2, bottom + 14, escaped(chart.names[i]));
  }
  return text + "</svg>";
}

}  // namespace mambify
