#include "prompts.h"

#include <sstream>

#include "core/error.h"
#include "data/examples.h"
#include "io/json_reader.h"

namespace mambify {

std::vector<Prompt> read_prompts(const fs::path& file) {
  std::istringstream lines(read_text_file(file));
  std::vector<Prompt> prompts;
  std::string line;
  for (int64_t number = 1; std::getline(lines, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string origin = fmt::format("{}:{}", file.string(), number);
    const nlohmann::json json = parse_json(line, origin);
    if (json.is_object() && json.contains("prompt")) {
      prompts.push_back({JsonReader(json, origin).require<std::string>("prompt"), {}});
    } else {
      Example example = parse_example(line, origin);
      prompts.push_back({std::move(example.text), std::move(example.messages)});
    }
  }
  if (prompts.empty()) throw Error("{}: no prompt in this file", file.string());
  return prompts;
}

std::vector<TokenId> tokenize_prompt(const Prompt& prompt, const Tokenizer& tokenizer,
                                     const ChatTemplate* chat) {
  if (!prompt.is_chat()) return tokenizer.encode_prompt(prompt.text);
  return chat->tokenize(prompt.messages, /*add_generation_prompt=*/true, tokenizer).ids;
}

}  // namespace mambify
