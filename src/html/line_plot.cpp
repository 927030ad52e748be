#include "html/line_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "html/page.h"

namespace mambify {
namespace {

constexpr double kWidth = 460, kHeight = 240, kLeft = 58, kRight = 12, kTop = 26, kBottom = 26;
constexpr size_t kMaxPoints = 600;

struct Point {
  double x, y;
};

// At most kMaxPoints means of neighbouring points.
std::vector<Point> thinned(const std::vector<Point>& points) {
  const size_t bucket = (points.size() + kMaxPoints - 1) / kMaxPoints;
  if (bucket <= 1) return points;
  std::vector<Point> result;
  for (size_t begin = 0; begin < points.size(); begin += bucket) {
    const size_t end = std::min(begin + bucket, points.size());
    Point sum{0, 0};
    for (size_t i = begin; i < end; ++i) sum = {sum.x + points[i].x, sum.y + points[i].y};
    const auto count = static_cast<double>(end - begin);
    result.push_back({sum.x / count, sum.y / count});
  }
  return result;
}

std::vector<Point> running_mean(const std::vector<Point>& points) {
  const double keep = 1 - 1 / std::clamp(static_cast<double>(points.size()) / 20, 1.0, 20.0);
  std::vector<Point> result = points;
  for (size_t i = 1; i < result.size(); ++i) {
    result[i].y = keep * result[i - 1].y + (1 - keep) * points[i].y;
  }
  return result;
}

// Plot coordinates to pixels; y is already on its scale.
struct Frame {
  double x_low, x_high, y_low, y_high;

  double left(double x) const {
    return kLeft + (kWidth - kLeft - kRight) * (x - x_low) / (x_high - x_low);
  }
  double top(double y) const {
    return kHeight - kBottom - (kHeight - kTop - kBottom) * (y - y_low) / (y_high - y_low);
  }
};

Frame frame_of(const std::vector<Point>& points) {
  const auto [x_low, x_high] = std::ranges::minmax(points, {}, &Point::x);
  const auto [y_low, y_high] = std::ranges::minmax(points, {}, &Point::y);
  Frame frame{x_low.x, x_high.x, y_low.y, y_high.y};
  if (frame.x_high <= frame.x_low) frame.x_high = frame.x_low + 1;
  const double margin = frame.y_high > frame.y_low ? 0.05 * (frame.y_high - frame.y_low)
                                                   : 0.5 * std::abs(frame.y_low) + 1e-9;
  frame.y_low -= margin;
  frame.y_high += margin;
  return frame;
}

std::string line(const std::vector<Point>& points, const Frame& frame, const char* style) {
  std::string path;
  for (const Point& point : points) {
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", frame.left(point.x),
                        frame.top(point.y));
  }
  return fmt::format("<path class=\"{}\" d=\"{}\"/>", style, path);
}

std::string grid(const Frame& frame, bool logarithmic) {
  constexpr int kLines = 4;
  std::string text;
  for (int i = 0; i <= kLines; ++i) {
    const double share = static_cast<double>(i) / kLines;
    const double y = frame.y_low + share * (frame.y_high - frame.y_low);
    text += fmt::format("<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>",
                        kLeft, kWidth - kRight, frame.top(y), frame.top(y));
    text += fmt::format(
        "<text class=\"axis\" text-anchor=\"end\" x=\"{}\" y=\"{:.1f}\">{:.3g}"
        "</text>",
        kLeft - 5, frame.top(y) + 4, logarithmic ? std::pow(10, y) : y);
    const double x = frame.x_low + share * (frame.x_high - frame.x_low);
    text += fmt::format(
        "<text class=\"axis\" text-anchor=\"middle\" x=\"{:.1f}\" y=\"{}\">{:.0f}"
        "</text>",
        frame.left(x), kHeight - 8, x);
  }
  return text;
}

}  // namespace

std::string svg(const Plot& plot) {
  std::vector<Point> points;
  for (size_t i = 0; i < plot.x.size(); ++i) {
    if (std::isfinite(plot.y[i])) points.push_back({plot.x[i], plot.y[i]});
  }
  std::string text = fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\"><title>{}</title><text class=\"title\" x=\"{}\" "
      "y=\"16\">{}</text>",
      kWidth, kHeight, escaped(plot.title), kLeft, escaped(plot.title));
  if (points.empty()) return text + "</svg>";
  const bool logarithmic =
      plot.logarithmic && std::ranges::all_of(points, [](const Point& p) { return p.y > 0; });
  if (logarithmic) {
    for (Point& point : points) point.y = std::log10(point.y);
  }
  points = thinned(points);
  const Frame frame = frame_of(points);
  text += grid(frame, logarithmic);
  for (double x : plot.dividers) {
    if (x <= frame.x_low || x >= frame.x_high) continue;
    text += fmt::format(
        "<line class=\"divider\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" "
        "y2=\"{2}\"/>",
        frame.left(x), kTop, kHeight - kBottom);
  }
  text += line(points, frame, "raw") + line(running_mean(points), frame, "mean");
  return text + "</svg>";
}

}  // namespace mambify
