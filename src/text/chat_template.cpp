#include "text/chat_template.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/error.h"
#include "text/unicode_regex.h"
#include "text/utf8.h"

namespace mambify {
namespace {

constexpr std::string_view kSmolLm2System =
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

struct Family {
  std::string_view name;
  ChatTemplate::Kind kind;
  std::string_view turn_end;
};

constexpr std::array<Family, 3> kFamilies = {{
    {"chatml", ChatTemplate::Kind::chatml, "<|im_end|>"},
    {"smollm2", ChatTemplate::Kind::smollm2, "<|im_end|>"},
    {"llama3", ChatTemplate::Kind::llama3, "<|eot_id|>"},
}};

const Family& family_of(ChatTemplate::Kind kind) { return kFamilies[static_cast<size_t>(kind)]; }

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// Loops over the messages and writes each one's role and content.
bool writes_messages(std::string_view source) {
  return contains(source, "messages") &&
         (contains(source, "['role']") || contains(source, "[\"role\"]") ||
          contains(source, ".role")) &&
         (contains(source, "['content']") || contains(source, "[\"content\"]") ||
          contains(source, ".content")) &&
         contains(source, "add_generation_prompt");
}

// How the family is told from a template's source; nullptr when it is none that is known. Tools,
// dates, thinking and system prompts of a template's own make other prompts than ours.
const Family* recognise_family(std::string_view source) {
  if (!writes_messages(source)) return nullptr;
  const bool plain = !contains(source, "tools") && !contains(source, "think");
  const bool trims = contains(source, "trim") || contains(source, "strip");
  if (contains(source, "<|im_start|>") && contains(source, "<|im_end|>") && plain && !trims) {
    if (contains(source, kSmolLm2System)) return &family_of(ChatTemplate::Kind::smollm2);
    if (contains(source, "<|im_start|>system") || contains(source, "bos_token")) return nullptr;
    return &family_of(ChatTemplate::Kind::chatml);
  }
  const bool starts = contains(source, "bos_token") || contains(source, "<|begin_of_text|>");
  if (contains(source, "<|start_header_id|>") && contains(source, "<|end_header_id|>") &&
      contains(source, "<|eot_id|>") && contains(source, "trim") && starts && plain &&
      !contains(source, "Knowledge Date") && !contains(source, "<|start_header_id|>system")) {
    return &family_of(ChatTemplate::Kind::llama3);
  }
  return nullptr;
}

std::string family_names() {
  std::string names;
  for (const Family& family : kFamilies) (names += names.empty() ? "" : ", ") += family.name;
  return names;
}

// What Jinja's `trim` takes away: Python's str.strip(), which adds four control characters to
// Unicode's white space. text must be valid UTF-8.
bool is_stripped(char32_t code) { return is_unicode_space(code) || (code >= 0x1C && code <= 0x1F); }

std::string trimmed(std::string_view text) {
  size_t begin = text.size(), end = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char next = next_utf8(text.substr(at));
    if (!is_stripped(next.code)) {
      begin = std::min(begin, at);
      end = at + next.length;
    }
    at += next.length;
  }
  return begin < end ? std::string(text.substr(begin, end - begin)) : "";
}

}  // namespace

ChatTemplate ChatTemplate::recognise(const Tokenizer& tokenizer) {
  const std::string& source = tokenizer.chat_template_source();
  if (const Family* family = recognise_family(source)) return named(family->name, tokenizer);
  throw Error(
      "{}: the checkpoint {}; choose one with --chat-template: {}", tokenizer.origin(),
      source.empty() ? "has no chat template" : "has a chat template that is none of those known",
      family_names());
}

ChatTemplate ChatTemplate::named(std::string_view kind, const Tokenizer& tokenizer) {
  for (const Family& family : kFamilies) {
    if (family.name == kind) return ChatTemplate(family.kind, tokenizer.bos_token());
  }
  throw Error("there is no chat template \"{}\"; --chat-template takes {}", kind, family_names());
}

std::vector<ChatTemplate::Part> ChatTemplate::parts(const std::vector<ChatMessage>& messages,
                                                    bool add_generation_prompt,
                                                    size_t first_marked) const {
  std::vector<Part> parts;
  const bool llama3 = kind_ == Kind::llama3;
  const auto header = [&](std::string_view role) {
    return llama3 ? fmt::format("<|start_header_id|>{}<|end_header_id|>\n\n", role)
                  : fmt::format("<|im_start|>{}\n", role);
  };
  const auto turn = [&](std::string_view role, std::string_view content, bool marked) {
    const std::string valid_role = to_valid_utf8(role), valid = to_valid_utf8(content);
    parts.push_back({header(valid_role), false});
    parts.push_back(
        {(llama3 ? trimmed(valid) : valid) + std::string(family_of(kind_).turn_end), marked});
    if (!llama3) parts.push_back({"\n", false});
  };
  if (llama3 && !messages.empty()) parts.push_back({bos_, false});
  if (kind_ == Kind::smollm2 && !messages.empty() && messages.front().role != "system") {
    turn("system", kSmolLm2System, /*marked=*/false);
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const bool marked = messages[i].role == "assistant" && i >= first_marked;
    turn(messages[i].role, messages[i].content, marked);
  }
  if (add_generation_prompt) parts.push_back({header("assistant"), false});
  return parts;
}

std::string ChatTemplate::render(const std::vector<ChatMessage>& messages,
                                 bool add_generation_prompt) const {
  std::string text;
  for (const Part& part : parts(messages, add_generation_prompt, 0)) text += part.text;
  return text;
}

ChatTokens ChatTemplate::tokenize(const std::vector<ChatMessage>& messages,
                                  bool add_generation_prompt, const Tokenizer& tokenizer,
                                  size_t first_marked) const {
  // The whole is encoded at once, as the model saw it in training: words cross from a header's
  // newline into the content.
  std::string text;
  std::vector<ByteRange> spans;  // of the assistant
  for (const Part& part : parts(messages, add_generation_prompt, first_marked)) {
    const size_t begin = text.size();
    text += part.text;
    if (part.assistant) spans.push_back({begin, text.size()});
  }
  Encoding encoding = tokenizer.encode_with_ends(text);
  ChatTokens tokens{std::move(encoding.ids), {}};
  auto span = spans.begin();
  size_t begin = 0;
  for (const size_t end : encoding.ends) {
    while (span != spans.end() && span->end <= begin) ++span;
    tokens.assistant.push_back(span != spans.end() && end > span->begin);
    begin = end;
  }
  return tokens;
}

std::vector<TokenId> ChatTemplate::turn_end_ids(const Tokenizer& tokenizer) const {
  const std::string_view turn_end = family_of(kind_).turn_end;
  if (const auto id = tokenizer.find_token(turn_end)) return {*id};
  throw Error("{}: the vocabulary has no {}, with which the chat template {} ends a turn",
              tokenizer.origin(), turn_end, family_of(kind_).name);
}

}  // namespace mambify
