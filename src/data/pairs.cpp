#include "data/pairs.h"

#include <algorithm>

#include "core/error.h"
#include "data/examples.h"
#include "data/json_lines.h"
#include "io/json_reader.h"

namespace mambify {
namespace {

using Messages = std::vector<ChatMessage>;

bool equal(const ChatMessage& a, const ChatMessage& b) {
  return a.role == b.role && a.content == b.content;
}

// A string as one message of `role`, or a list of messages.
Messages messages_of(const nlohmann::json& value, const char* key, const char* role,
                     const std::string& origin) {
  if (value.is_string()) return {{role, value.get<std::string>()}};
  if (value.is_array()) return parse_messages(value, key, origin);
  throw Error("{}: \"{}\" is {}, expected a string or a list of messages", origin, key,
              value.type_name());
}

// One side as a whole conversation. Answers follow the prompt; a conversation has its own.
Messages whole_conversation(const Messages& prompt, Messages side, bool prompt_is_text) {
  const bool answers = side.front().role == "assistant";
  const bool has_prompt =
      side.size() >= prompt.size() && std::equal(prompt.begin(), prompt.end(), side.begin(), equal);
  if (!answers && (has_prompt || prompt_is_text)) return side;
  Messages whole = prompt;
  whole.insert(whole.end(), side.begin(), side.end());
  return whole;
}

}  // namespace

PreferencePair parse_pair(std::string_view line, const std::string& origin) {
  const nlohmann::json json = parse_json(line, origin);
  if (!json.is_object()) {
    throw Error("{}: expected a JSON object, found {}", origin, json.type_name());
  }
  for (const char* key : {"chosen", "rejected"}) {
    if (!json.contains(key)) {
      throw Error("{}: no \"{}\" in this line, expected \"chosen\" and \"rejected\"", origin, key);
    }
  }
  const bool has_prompt = json.contains("prompt") && !json["prompt"].is_null();
  const Messages prompt =
      has_prompt ? messages_of(json["prompt"], "prompt", "user", origin) : Messages{};
  const bool prompt_is_text = !has_prompt || json["prompt"].is_string();
  const auto side = [&](const char* key) {
    Messages whole = whole_conversation(prompt, messages_of(json[key], key, "assistant", origin),
                                        prompt_is_text);
    if (whole.back().role == "assistant") return whole;
    throw Error("{}: \"{}\" ends with a message of \"{}\", expected an answer of the assistant's",
                origin, key, whole.back().role);
  };
  const Messages chosen = side("chosen"), rejected = side("rejected");

  // Answers begin where the two part; one turn of the assistant's is always answer.
  const size_t shorter = std::min(chosen.size(), rejected.size());
  size_t common = 0;
  while (common + 1 < shorter && equal(chosen[common], rejected[common])) ++common;
  if (common == 0 || chosen[common - 1].role == "system") {
    throw Error(
        "{}: there is no user's turn before the answers, expected \"prompt\" or "
        "conversations that begin with the same messages",
        origin);
  }
  const auto split = static_cast<int64_t>(common);
  return {Messages(chosen.begin(), chosen.begin() + split),
          Messages(chosen.begin() + split, chosen.end()),
          Messages(rejected.begin() + split, rejected.end())};
}

std::vector<PreferencePair> read_pairs(std::span<const fs::path> files) {
  std::vector<PreferencePair> pairs;
  for (const fs::path& file : files) {
    const size_t before = pairs.size();
    for_each_line(file, [&](std::string_view line, const std::string& origin) {
      pairs.push_back(parse_pair(line, origin));
    });
    if (pairs.size() == before) throw Error("{}: no pair in this file", file.string());
  }
  return pairs;
}

void write_pairs(const fs::path& file, std::span<const PreferencePair> pairs) {
  write_file_atomically(file, [&](FileWriter& writer) {
    for (const PreferencePair& pair : pairs) {
      const nlohmann::ordered_json line = {{"prompt", to_json(pair.prompt)},
                                           {"chosen", to_json(pair.chosen)},
                                           {"rejected", to_json(pair.rejected)}};
      writer.write(line.dump() + "\n");
    }
  });
}

}  // namespace mambify
