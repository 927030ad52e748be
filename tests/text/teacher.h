// The default teacher's GGUF file, for tests that need its vocabulary.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>

namespace mambify::testing {

// Absent when the environment does not name it; `make test` does.
inline std::optional<std::filesystem::path> teacher_path() {
  const char* path = std::getenv("MAMBIFY_TEACHER");
  return path == nullptr ? std::nullopt : std::optional<std::filesystem::path>(path);
}

}  // namespace mambify::testing
