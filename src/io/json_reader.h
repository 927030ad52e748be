// JSON from outside, read with errors that name the file, the key, what was found and expected.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"

namespace mambify {

// Parses text. Throws Error with origin and byte offset; depth (100) and size (256 MiB) are
// bounded, a key twice in one object is an Error.
nlohmann::json parse_json(std::string_view text, const std::string& origin);
// The same for what Python's json module writes: bare Infinity, -Infinity and NaN are read as well,
// as the object {"__float__": "Infinity"}, which a JsonReader takes for a double.
nlohmann::json parse_python_json(std::string_view text, const std::string& origin);
// A file, by parse_python_json.
nlohmann::json read_json(const fs::path& path);

// A JSON object with a name for messages. Cheap to copy; the json must outlive it.
class JsonReader {
 public:
  // origin: what messages call this object ("model/config.json").
  JsonReader(const nlohmann::json& object, std::string origin);

  bool has(const std::string& key) const;  // present and not null
  template <typename T>  // T: bool, int64_t, double, std::string, std::vector of those
  T require(const std::string& key) const;
  template <typename T>
  T get(const std::string& key, T fallback) const;
  template <typename T>
  std::optional<T> find(const std::string& key) const;
  JsonReader object(const std::string& key) const;  // a required nested object

  // An integer in [low, high], or an Error that says so.
  int64_t require_between(const std::string& key, int64_t low, int64_t high) const;

  const std::string& origin() const { return origin_; }
  const nlohmann::json& json() const { return *object_; }

 private:
  const nlohmann::json* object_;
  std::string origin_;
};

}  // namespace mambify
