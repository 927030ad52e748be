#include "io/json_reader.h"

#include <limits>
#include <utility>

#include "core/error.h"

namespace mambify {
namespace {

using Json = nlohmann::json;

std::string found_text(const Json& value) {
  if (value.is_object() || value.is_array()) return value.type_name();
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return fmt::format("{} {}", value.type_name(), text);
}

// Reads `value` into `out`; false when it is of another kind.
bool read(const Json& value, bool& out) {
  if (!value.is_boolean()) return false;
  out = value.get<bool>();
  return true;
}
bool read(const Json& value, int64_t& out) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return false;
  }
  out = value.get<int64_t>();
  return true;
}
bool read(const Json& value, double& out) {
  // transformers 5 writes {"__float__": "Infinity"} for the values that JSON has no literal for
  if (value.is_object() && value.size() == 1 && value.contains("__float__")) {
    const Json& name = value["__float__"];
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    if (name == "Infinity") return out = kInfinity, true;
    if (name == "-Infinity") return out = -kInfinity, true;
    if (name == "NaN") return out = std::numeric_limits<double>::quiet_NaN(), true;
    return false;
  }
  if (!value.is_number()) return false;
  out = value.get<double>();
  return true;
}
bool read(const Json& value, std::string& out) {
  if (!value.is_string()) return false;
  out = value.get_ref<const std::string&>();
  return true;
}
template <typename T>
bool read(const Json& value, std::vector<T>& out) {
  if (!value.is_array()) return false;
  out.clear();
  for (const Json& element : value) {
    T item{};
    if (!read(element, item)) return false;
    out.push_back(std::move(item));
  }
  return true;
}

template <typename T>
constexpr const char* kKind = nullptr;
template <>
constexpr const char* kKind<bool> = "true or false";
template <>
constexpr const char* kKind<int64_t> = "an integer";
template <>
constexpr const char* kKind<double> = "a number";
template <>
constexpr const char* kKind<std::string> = "a string";
template <>
constexpr const char* kKind<std::vector<bool>> = "a list of true or false";
template <>
constexpr const char* kKind<std::vector<int64_t>> = "a list of integers";
template <>
constexpr const char* kKind<std::vector<double>> = "a list of numbers";
template <>
constexpr const char* kKind<std::vector<std::string>> = "a list of strings";

}  // namespace

JsonReader::JsonReader(const Json& object, std::string origin)
    : object_(&object), origin_(std::move(origin)) {
  if (!object.is_object()) {
    throw Error("{}: found {} where an object is expected", origin_, found_text(object));
  }
}

bool JsonReader::has(const std::string& key) const {
  const auto value = object_->find(key);
  return value != object_->end() && !value->is_null();
}

template <typename T>
std::optional<T> JsonReader::find(const std::string& key) const {
  const auto value = object_->find(key);
  if (value == object_->end() || value->is_null()) return std::nullopt;
  T result{};
  if (!read(*value, result)) {
    throw Error("{}: key '{}' is {}, expected {}", origin_, key, found_text(*value), kKind<T>);
  }
  return result;
}

template <typename T>
T JsonReader::require(const std::string& key) const {
  std::optional<T> value = find<T>(key);
  if (!value) throw Error("{}: key '{}' is missing, expected {}", origin_, key, kKind<T>);
  return *std::move(value);
}

template <typename T>
T JsonReader::get(const std::string& key, T fallback) const {
  return find<T>(key).value_or(std::move(fallback));
}

JsonReader JsonReader::object(const std::string& key) const {
  if (!has(key)) throw Error("{}: key '{}' is missing, expected an object", origin_, key);
  return JsonReader(object_->at(key), fmt::format("{}: {}", origin_, key));
}

int64_t JsonReader::require_between(const std::string& key, int64_t low, int64_t high) const {
  const auto value = require<int64_t>(key);
  if (value < low || value > high) {
    throw Error("{}: key '{}' is {}, expected {} to {}", origin_, key, value, low, high);
  }
  return value;
}

#define MAMBIFY_JSON_KIND(T)                                            \
  template std::optional<T> JsonReader::find(const std::string&) const; \
  template T JsonReader::require(const std::string&) const;             \
  template T JsonReader::get(const std::string&, T) const;
MAMBIFY_JSON_KIND(bool)
MAMBIFY_JSON_KIND(int64_t)
MAMBIFY_JSON_KIND(double)
MAMBIFY_JSON_KIND(std::string)
MAMBIFY_JSON_KIND(std::vector<bool>)
MAMBIFY_JSON_KIND(std::vector<int64_t>)
MAMBIFY_JSON_KIND(std::vector<double>)
MAMBIFY_JSON_KIND(std::vector<std::string>)
#undef MAMBIFY_JSON_KIND

}  // namespace mambify
