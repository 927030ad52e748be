#include "html/page.h"

#include <fmt/format.h>

namespace mambify {
namespace {

constexpr const char* kStyle = R"(
body { font: 15px/1.5 system-ui, sans-serif; max-width: 980px; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; } td, th { padding: .2em .8em; text-align: right; }
th { border-bottom: 1px solid #999; } td:first-child, th:first-child { text-align: left; }
.scroll { overflow-x: auto; } .error { color: #777; font-size: .85em; white-space: nowrap; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 1em; }
svg { width: 100%; } .title { font-size: 13px; font-weight: 600; }
.axis { font-size: 10px; fill: #555; } .grid { stroke: #e4e4e4; } .divider { stroke: #bbb;
stroke-dasharray: 3 3; } path { fill: none; } .raw { stroke: #a9c4e6; } .mean { stroke: #1f5fa8;
stroke-width: 1.6; } .bar { fill: #1f5fa8; } .cell { font-size: 10px; } .limit { stroke: #111;
stroke-width: 2; stroke-dasharray: 5 3; } pre { background: #f5f5f5; padding: 1em; overflow-x: auto;
white-space: pre-wrap; }
)";

}  // namespace

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string html_page(std::string_view title, std::string_view body) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>"
      "<style>{1}</style></head><body>\n<h1>{0}</h1>\n{2}</body></html>\n",
      escaped(title), kStyle, body);
}

}  // namespace mambify
