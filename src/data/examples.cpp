#include "data/examples.h"

#include <array>
#include <string_view>

#include "core/error.h"
#include "data/json_lines.h"
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

std::vector<ChatMessage> parse_messages(const nlohmann::json& list, const std::string& key,
                                        const std::string& origin) {
  if (!list.is_array() || list.empty()) {
    throw Error("{}: \"{}\" is {}, expected a list of at least one message", origin, key,
                list.is_array() ? "empty" : list.type_name());
  }
  std::vector<ChatMessage> messages;
  for (size_t i = 0; i < list.size(); ++i) {
    messages.push_back(parse_message(list[i], fmt::format("{}: {}[{}]", origin, key, i)));
  }
  return messages;
}

Example parse_example(std::string_view line, const std::string& origin) {
  const nlohmann::json json = parse_json(line, origin);
  if (!json.is_object()) {
    throw Error("{}: expected a JSON object, found {}", origin, json.type_name());
  }
  Example example;
  if (const auto messages = json.find("messages"); messages != json.end()) {
    example.messages = parse_messages(*messages, "messages", origin);
    return example;
  }
  if (!json.contains("text")) {
    throw Error("{}: neither \"messages\" nor \"text\" in this line", origin);
  }
  example.text = JsonReader(json, origin).require<std::string>("text");
  return example;
}

std::vector<Example> read_examples(const fs::path& file) {
  std::vector<Example> examples;
  for_each_line(file, [&](std::string_view line, const std::string& origin) {
    examples.push_back(parse_example(line, origin));
  });
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

nlohmann::ordered_json to_json(std::span<const ChatMessage> messages) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const ChatMessage& message : messages) {
    list.push_back({{"role", message.role}, {"content", message.content}});
  }
  return list;
}

void write_examples(const fs::path& file, std::span<const std::vector<ChatMessage>> chats,
                    std::span<const std::string> texts) {
  write_file_atomically(file, [&](FileWriter& writer) {
    for (const std::vector<ChatMessage>& chat : chats) {
      writer.write(nlohmann::ordered_json{{"messages", to_json(chat)}}.dump() + "\n");
    }
    for (const std::string& text : texts) {
      writer.write(nlohmann::ordered_json{{"text", text}}.dump() + "\n");
    }
  });
}

}  // namespace mambify
