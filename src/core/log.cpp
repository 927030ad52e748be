#include "core/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

namespace mambify {

void set_up_logging(bool verbose) {
  auto logger = spdlog::stderr_color_mt("mambify");
  logger->set_pattern("%^%l%$: %v");
  logger->set_level(verbose ? spdlog::level::debug : spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace mambify
