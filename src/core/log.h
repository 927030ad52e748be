// Messages for a person, on stderr: stdout belongs to results.
#pragma once

#include <spdlog/spdlog.h>

namespace mambify {

// Sends spdlog's default logger to stderr, without time stamps. Called once, by main.
void set_up_logging(bool verbose);

}  // namespace mambify
