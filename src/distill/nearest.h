// The known word that a mistyped one most likely meant.
#pragma once

#include <span>
#include <string_view>

namespace mambify {

// The candidate of the smallest edit distance (insert, delete, replace); the first of equals.
std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates);

}  // namespace mambify
