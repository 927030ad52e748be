// A page of HTML that needs nothing but itself: no script, no file, no network.
#pragma once

#include <string>
#include <string_view>

namespace mambify {

// Text inside HTML or SVG.
std::string escaped(std::string_view text);

// A whole document. title: plain text, also the page's heading; body: HTML, with tables, and charts
// of this folder inside <div class="plots">.
std::string html_page(std::string_view title, std::string_view body);

}  // namespace mambify
