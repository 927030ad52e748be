#include "data/examples.h"

#include <array>
#include <string_view>

#include "core/error.h"
#include "io/json_reader.h"

namespace mambify {
namespace {

ChatMessage parse_message(const nlohmann::json& message, const std::string& origin) {
  if (!message.is_object()) {
    throw Error("{}: expected an object with \"role\" and \"content\", found {}", origin,
                message.type_name());
  }
  const JsonReader reader(message, origin);
  ChatMessage result{reader.require<std::string>("role"), reader.require<std::string>("content")};
  constexpr std::array<std::string_view, 3> kRoles = {"system", "user", "assistant"};
  for (const std::string_view role : kRoles) {
    if (result.role == role) return result;
  }
  throw Error("{}: \"role\" is \"{}\", expected \"system\", \"user\" or \"assistant\"", origin,
              result.role);
}

}  // namespace

Example parse_example(std::string_view line, const std::string& origin) {
  const nlohmann::json json = parse_json(line, origin);
  if (!json.is_object()) {
    throw Error("{}: expected a JSON object, found {}", origin, json.type_name());
  }
  Example example;
  if (const auto messages = json.find("messages"); messages != json.end()) {
    if (!messages->is_array() || messages->empty()) {
      throw Error("{}: \"messages\" is {}, expected a list of at least one message", origin,
                  messages->is_array() ? "empty" : messages->type_name());
    }
    for (size_t i = 0; i < messages->size(); ++i) {
      example.messages.push_back(
          parse_message((*messages)[i], fmt::format("{}: messages[{}]", origin, i)));
    }
    return example;
  }
  if (!json.contains("text")) {
    throw Error("{}: neither \"messages\" nor \"text\" in this line", origin);
  }
  example.text = JsonReader(json, origin).require<std::string>("text");
  return example;
}

std::vector<Example> read_examples(const fs::path& file) {
  const auto mapped = MappedFile::open(file);
  const std::string_view all(reinterpret_cast<const char*>(mapped->bytes().data()),
                             mapped->bytes().size());
  std::vector<Example> examples;
  int64_t number = 1;
  for (size_t begin = 0; begin < all.size(); ++number) {
    const size_t end = std::min(all.find('\n', begin), all.size());
    const std::string_view line = all.substr(begin, end - begin);
    begin = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    examples.push_back(parse_example(line, fmt::format("{}:{}", file.string(), number)));
  }
  if (examples.empty()) throw Error("{}: no example in this file", file.string());
  return examples;
}

std::vector<Example> read_examples(std::span<const fs::path> files) {
  std::vector<Example> all;
  for (const fs::path& file : files) {
    std::vector<Example> examples = read_examples(file);
    all.insert(all.end(), std::make_move_iterator(examples.begin()),
               std::make_move_iterator(examples.end()));
  }
  return all;
}

void write_examples(const fs::path& file, std::span<const std::vector<ChatMessage>> chats,
                    std::span<const std::string> texts) {
  write_file_atomically(file, [&](FileWriter& writer) {
    for (const std::vector<ChatMessage>& chat : chats) {
      nlohmann::ordered_json messages = nlohmann::ordered_json::array();
      for (const ChatMessage& message : chat) {
        messages.push_back({{"role", message.role}, {"content", message.content}});
      }
      writer.write(nlohmann::ordered_json{{"messages", std::move(messages)}}.dump() + "\n");
    }
    for (const std::string& text : texts) {
      writer.write(nlohmann::ordered_json{{"text", text}}.dump() + "\n");
    }
  });
}

}  // namespace mambify
