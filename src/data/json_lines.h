// Files of one JSON value a line.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "core/file.h"

namespace mambify {

// Calls visit(line, "file:number") for every line that is not blank, in order. Throws Error when
// the file cannot be read.
void for_each_line(const fs::path& file,
                   const std::function<void(std::string_view, const std::string&)>& visit);

}  // namespace mambify
