// Files of one JSON object a line.
#pragma once

#include <cstdint>
#include <functional>

#include "core/file.h"
#include "io/json_reader.h"

namespace mambify {

// Calls visit for each line that is not blank, at most `limit` of them (0: all); the reader's
// origin is "file:line". Throws Error when the file has no such line.
void for_each_json_line(const fs::path& file, int64_t limit,
                        const std::function<void(const JsonReader& line)>& visit);

}  // namespace mambify
