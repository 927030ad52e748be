#include <utility>

#include "core/error.h"
#include "io/json_reader.h"

namespace mambify {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxBytes = size_t{256} << 20;  // ten times the largest tokenizer.json
constexpr size_t kMaxDepth = 100;

// Builds the document from the parser's events. nlohmann's own builder has no bound on the depth
// and lets the last of two equal keys win, which would hide a tensor that is defined twice.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Builder(Json& root, const std::string& origin) : root_(root), origin_(origin) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // text holds none
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    const auto [slot, is_new] = open_.back()->get_ref<Json::object_t&>().emplace(name, nullptr);
    if (!is_new) throw Error("{}: key '{}' appears twice in one object", origin_, name);
    slot_ = &slot->second;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const Json::exception& error) override {
    throw Error("{}: not valid JSON at byte {}: {}", origin_, position, error.what());
  }

 private:
  Json* place(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      open_.back()->push_back(std::move(value));
      return &open_.back()->back();
    }
    *slot_ = std::move(value);
    return slot_;
  }
  bool add(Json value) {
    place(std::move(value));
    return true;
  }
  bool open(Json value) {
    if (open_.size() >= kMaxDepth) {
      throw Error("{}: JSON nested deeper than {} levels", origin_, kMaxDepth);
    }
    open_.push_back(place(std::move(value)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  Json& root_;
  const std::string& origin_;
  std::vector<Json*> open_;  // objects and arrays not ended yet; stable, only the last one grows
  Json* slot_ = nullptr;     // where the value of the last key goes
};

// Python's json module writes bare Infinity, -Infinity and NaN, which are no JSON, into configs
// (time_step_limit of Mamba-2). They become {"__float__": "Infinity"}, as transformers 5 writes
// them.
std::string with_non_finite_numbers_wrapped(std::string_view text) {
  std::string result;
  bool in_string = false;
  while (!text.empty()) {
    size_t taken = 1;
    if (in_string) {
      if (text[0] == '\\' && text.size() > 1) taken = 2;
      in_string = text[0] != '"';
    } else {
      in_string = text[0] == '"';
      for (const std::string_view literal : {"Infinity", "-Infinity", "NaN"}) {
        if (!text.starts_with(literal)) continue;
        result += fmt::format("{{\"__float__\": \"{}\"}}", literal);
        text.remove_prefix(literal.size());
        taken = 0;
        break;
      }
    }
    result += text.substr(0, taken);
    text.remove_prefix(taken);
  }
  return result;
}

void check_size(size_t bytes, const std::string& origin) {
  if (bytes > kMaxBytes) {
    throw Error("{}: {} bytes of JSON, at most {} are read", origin, bytes, kMaxBytes);
  }
}

}  // namespace

Json parse_json(std::string_view text, const std::string& origin) {
  check_size(text.size(), origin);
  Json root;
  Builder builder(root, origin);
  Json::sax_parse(text, &builder);
  return root;
}

Json parse_python_json(std::string_view text, const std::string& origin) {
  check_size(text.size(), origin);
  const bool is_plain =
      text.find("Infinity") == std::string_view::npos && text.find("NaN") == std::string_view::npos;
  return is_plain ? parse_json(text, origin)
                  : parse_json(with_non_finite_numbers_wrapped(text), origin);
}

Json read_json(const fs::path& path) {
  const auto file = MappedFile::open(path);
  const std::string_view text(reinterpret_cast<const char*>(file->bytes().data()),
                              file->bytes().size());
  return parse_python_json(text, path.string());
}

}  // namespace mambify
