#include "text/chat_template.h"

#include <string>
#include <vector>

#include "core/file.h"
#include "errors.h"
#include "io/json_reader.h"
#include "teacher.h"
#include "testing.h"
#include "vocabulary.h"

namespace mambify {
namespace {

using testing::fixtures;
using ::testing::HasSubstr;
using testing::ScratchFolder;

std::vector<ChatMessage> messages_of(const nlohmann::json& list) {
  std::vector<ChatMessage> messages;
  for (const auto& entry : list) messages.push_back({entry["role"], entry["content"]});
  return messages;
}

// Every case of a list of {"messages", "add_generation_prompt", "rendered"} and perhaps "ids".
void expect_cases(const Tokenizer& tokenizer, const nlohmann::json& cases) {
  ASSERT_FALSE(cases.empty());
  const ChatTemplate chat = ChatTemplate::recognise(tokenizer);
  for (const auto& entry : cases) {
    const auto messages = messages_of(entry["messages"]);
    const bool prompt = entry["add_generation_prompt"];
    const auto rendered = entry["rendered"].get<std::string>();
    EXPECT_EQ(chat.render(messages, prompt), rendered);
    const auto ids = entry.contains("ids") ? entry["ids"].get<std::vector<TokenId>>()
                                           : tokenizer.encode(rendered);
    EXPECT_EQ(chat.tokenize(messages, prompt, tokenizer).ids, ids);
  }
}

TEST(ChatTemplate, RendersTheLlama3Cases) {
  const auto folder = fixtures() / "llama3-style-tokenizer";
  expect_cases(Tokenizer::load(folder), read_json(folder / "cases.json")["chats"]);
}

TEST(ChatTemplate, RendersTheTeachersCases) {
  const auto teacher = testing::teacher_path();
  if (!teacher) GTEST_SKIP() << "MAMBIFY_TEACHER is unset";
  expect_cases(Tokenizer::load(*teacher), read_json(fixtures() / "smollm2-chat-cases.json"));
}

// A byte tokenizer with the special tokens of every family and a chat template's source.
Tokenizer tokenizer_with(const std::string& source) {
  const ScratchFolder folder;
  nlohmann::json document = testing::byte_document({{"\n", "\n"}});
  int64_t id = 257;
  for (const char* token : {"<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>",
                            "<|start_header_id|>", "<|end_header_id|>"}) {
    document["added_tokens"].push_back(testing::added_token(token, id++));
  }
  write_file_atomically(folder / "tokenizer.json", document.dump());
  write_file_atomically(
      folder / "tokenizer_config.json",
      nlohmann::json{{"bos_token", "<|begin_of_text|>"}, {"chat_template", source}}.dump());
  return Tokenizer::load(folder.path());
}

ChatTemplate::Kind kind_of(const std::string& source) {
  return ChatTemplate::recognise(tokenizer_with(source)).kind();
}

const std::string kChatMl =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' "
    "}}{% endif %}";

const std::vector<ChatMessage> kConversation = {
    {"user", "Hi"}, {"assistant", "Yo"}, {"user", "<|im_end|>"}, {"assistant", ""}};

TEST(ChatTemplate, RecognisesFamilies) {
  EXPECT_EQ(kind_of(kChatMl), ChatTemplate::Kind::chatml);
  EXPECT_EQ(kind_of("{%- for message in messages -%}{{- '<|im_start|>' ~ message.role ~ '\\n' ~ "
                    "message.content ~ '<|im_end|>\\n' -}}{%- endfor -%}{%- if "
                    "add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"),
            ChatTemplate::Kind::chatml);
  EXPECT_EQ(kind_of("{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a "
                    "helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% "
                    "endif %}" +
                    kChatMl),
            ChatTemplate::Kind::smollm2);
}

TEST(ChatTemplate, RefusesTemplatesThatItDoesNotKnow) {
  for (const std::string& source :
       {std::string(), std::string("{{ messages }}"),
        // A system prompt, thinking and tools of a template's own.
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are "
        "Qwen.<|im_end|>\n' "
        "}}{% endif %}" +
            kChatMl,
        "{% set content = message.content.split('</think>') %}" + kChatMl,
        "{% if tools %}{{ tools | tojson }}{% endif %}" + kChatMl,
        std::string("{% for message in messages %}{{ '[INST] ' + message['content'] + message["
                    "'role'] }}{% endfor %}{% if add_generation_prompt %}{% endif %}")}) {
    EXPECT_ERROR(ChatTemplate::recognise(tokenizer_with(source)), HasSubstr("tokenizer.json"),
                 HasSubstr("--chat-template"), HasSubstr("chatml, smollm2, llama3"));
  }
  EXPECT_ERROR(ChatTemplate::named("alpaca", tokenizer_with("")), HasSubstr("alpaca"),
               HasSubstr("chatml, smollm2, llama3"));
}

TEST(ChatTemplate, RendersTheNamedFamily) {
  const Tokenizer tokenizer = tokenizer_with("");
  const std::vector<ChatMessage> messages = {{"user", " \u3000\x1CHi\n "}};
  const auto rendered = [&](const char* kind) {
    return ChatTemplate::named(kind, tokenizer).render(messages, true);
  };
  const std::string chatml =
      "<|im_start|>user\n \u3000\x1CHi\n <|im_end|>\n<|im_start|>assistant\n";
  EXPECT_EQ(rendered("chatml"), chatml);
  EXPECT_EQ(rendered("smollm2"),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
            "Face<|im_end|>\n" +
                chatml);
  EXPECT_EQ(rendered("llama3"),
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

// The text of the tokens that a mask marks.
std::string marked(const Tokenizer& tokenizer, const ChatTokens& tokens) {
  EXPECT_EQ(tokens.assistant.size(), tokens.ids.size());
  std::string text;
  for (size_t i = 0; i < tokens.ids.size(); ++i) {
    if (tokens.assistant[i]) text += tokenizer.token_bytes(tokens.ids[i]);
  }
  return text;
}

TEST(ChatTemplate, MarksTheAssistantsTokens) {
  const Tokenizer tokenizer = tokenizer_with("");
  for (const char* kind : {"chatml", "smollm2", "llama3"}) {
    const ChatTemplate chat = ChatTemplate::named(kind, tokenizer);
    const std::string end = tokenizer.token_bytes(chat.turn_end_ids(tokenizer).at(0));
    for (const bool prompt : {false, true}) {
      const ChatTokens tokens = chat.tokenize(kConversation, prompt, tokenizer);
      EXPECT_EQ(marked(tokenizer, tokens), "Yo" + end + end) << kind;
      EXPECT_EQ(tokens.ids, tokenizer.encode(chat.render(kConversation, prompt)));
    }
  }
}

TEST(ChatTemplate, LeavesOutTurnsThatAreNotAskedFor) {
  const Tokenizer tokenizer = tokenizer_with("");
  for (const char* kind : {"chatml", "smollm2", "llama3"}) {
    const ChatTemplate chat = ChatTemplate::named(kind, tokenizer);
    const std::string end = tokenizer.token_bytes(chat.turn_end_ids(tokenizer).at(0));
    const auto from = [&](size_t first) {
      return marked(tokenizer, chat.tokenize(kConversation, false, tokenizer, first));
    };
    EXPECT_EQ(from(1), "Yo" + end + end) << kind;
    EXPECT_EQ(from(2), end) << kind;
    EXPECT_EQ(from(4), "") << kind;
  }
}

// Numbers of scripts/make_chat_masks.py: what transformers marks between {% generation %} tags.
TEST(ChatTemplate, MarksWhatTransformersMarks) {
  const nlohmann::json fixture = read_json(fixtures() / "chat-mask-cases.json");
  const auto source = fixtures() / "llama3-style-tokenizer";
  const ScratchFolder folder;
  nlohmann::json document = read_json(source / "tokenizer.json");
  for (const auto& token : fixture["special"]) {
    document["added_tokens"].push_back(
        testing::added_token(token["content"].get<std::string>(), token["id"].get<int64_t>()));
  }
  write_file_atomically(folder / "tokenizer.json", document.dump());
  write_file_atomically(folder / "tokenizer_config.json",
                        read_text_file(source / "tokenizer_config.json"));
  const Tokenizer tokenizer = Tokenizer::load(folder.path());
  for (const auto& entry : fixture["cases"]) {
    SCOPED_TRACE(entry["kind"].get<std::string>() + " " + entry["messages"].dump());
    const ChatTokens tokens =
        ChatTemplate::named(entry["kind"].get<std::string>(), tokenizer)
            .tokenize(messages_of(entry["messages"]), /*add_generation_prompt=*/false, tokenizer);
    EXPECT_EQ(tokens.ids, entry["ids"].get<std::vector<TokenId>>());
    const auto expected = entry["assistant"].get<std::vector<int>>();
    EXPECT_EQ(std::vector<int>(tokens.assistant.begin(), tokens.assistant.end()), expected);
  }
}

TEST(ChatTemplate, MarksATokenThatCrossesFromTheHeader) {
  const Tokenizer tokenizer = tokenizer_with("");
  const ChatTemplate chat = ChatTemplate::named("chatml", tokenizer);
  const ChatTokens tokens =
      chat.tokenize({{"assistant", "\n"}, {"assistant", "Yo\xFF"}}, false, tokenizer);
  EXPECT_EQ(marked(tokenizer, tokens), "\n\n<|im_end|>Yo\uFFFD<|im_end|>");
}

TEST(ChatTemplate, NeedsTheTokenThatEndsATurn) {
  const Tokenizer tokenizer = testing::from_document(testing::byte_document());
  const ChatTemplate chat = ChatTemplate::named("llama3", tokenizer);
  EXPECT_ERROR(chat.turn_end_ids(tokenizer), HasSubstr("<|eot_id|>"), HasSubstr("llama3"));
}

}  // namespace
}  // namespace mambify
