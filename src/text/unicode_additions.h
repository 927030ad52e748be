// Characters that Unicode has gained since the tables of the PCRE2 that distributions carry.
#pragma once

#include <string>
#include <string_view>

namespace mambify {

// Unicode 16, which Hugging Face's regular expressions follow. category: a general category of one
// or two letters ("L", "Nd"). Returns the characters that have come to it since Unicode 14 (PCRE2
// 10.42) as ranges for PCRE2's [ ], harmless where PCRE2 knows them already.
std::string unicode_additions(std::string_view category);

// The same for what Hugging Face's `Digits` takes as digits: Rust's char::is_numeric, which is at
// Unicode 17.
std::string unicode_numeric_additions();

}  // namespace mambify
