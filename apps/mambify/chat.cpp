// mambify chat: a conversation in a terminal.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>

#include "core/error.h"
#include "decode/conversation.h"
#include "decoding_options.h"
#include "verbs.h"

namespace mambify {
namespace {

constexpr const char* kHelp =
    "/system TEXT  start over with a system message (without TEXT: without one)\n"
    "/reset        forget the conversation\n"
    "/help         this list\n"
    "/exit         leave (or Ctrl-D)\n";

struct ChatOptions {
  CommonOptions common;
  SamplingOptions sampling{.temperature = 0};
  DraftOptions draft;
  std::string model, system, chat_template;
  std::string weights = "native";
  int64_t max_tokens = 1024;
  int64_t context = 4096;
};

// Prompts are for a person; a script that pipes its questions in reads answers alone.
bool read_line(std::string& line) {
  if (isatty(STDIN_FILENO)) {
    fmt::print(stderr, "> ");
    std::fflush(stderr);
  }
  return static_cast<bool>(std::getline(std::cin, line));
}

void answer(Conversation& conversation, const std::string& message) {
  const GenerationResult result = conversation.say(message, [](std::string_view text) {
    fmt::print("{}", text);
    std::fflush(stdout);
  });
  fmt::print("\n");
  std::fflush(stdout);
  if (result.finish_reason == FinishReason::length) {
    fmt::print(stderr, "{}\n",
               conversation.is_full()
                   ? fmt::format("The context of {} tokens is full. /reset starts over.",
                                 conversation.context())
                   : "The answer reached --max-tokens.");
  }
}

// True when the conversation goes on.
bool obey(Conversation& conversation, const std::string& line) {
  const size_t space = line.find_first_of(" \t");
  const std::string command = line.substr(0, space);
  if (command == "/exit") return false;
  if (command == "/reset") {
    conversation.reset();
  } else if (command == "/system") {
    const size_t text = line.find_first_not_of(" \t", std::min(space, line.size()));
    conversation.reset(text == std::string::npos ? "" : line.substr(text));
  } else {
    if (command != "/help") fmt::print(stderr, "There is no command {}.\n", command);
    fmt::print(stderr, "{}", kHelp);
  }
  return true;
}

void run_chat(ChatOptions& options) {
  apply_common_options(options.common, Devices::cpu_or_cuda);
  if (options.common.json) throw UsageError("chat has no --json; generate --chat does");
  options.sampling.seed = options.common.seed;
  const LoadedModel loaded(options.model, options.common);
  const ChatTemplate chat = loaded.chat_template(options.chat_template);
  EngineOptions decoding{.context = std::min(options.context, context_limit(loaded.model.config))};
  LoadedDrafter drafter(options.draft, options.common, options.model, loaded);
  drafter.attach_to(decoding);
  const PackedWeights packed = pack_weights(loaded.model, options.weights, options.common);
  decoding.packed = &packed;
  Engine engine(loaded.model, &loaded.tokenizer, decoding);
  GenerationRequest defaults;
  defaults.max_tokens = options.max_tokens;
  defaults.stop_ids = loaded.stop_ids(&chat);
  defaults.sampling = options.sampling;
  Conversation conversation(engine, loaded.tokenizer, chat, std::move(defaults));
  conversation.reset(options.system);
  if (isatty(STDIN_FILENO)) fmt::print(stderr, "/help lists the commands.\n");
  std::string line;
  while (read_line(line)) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    if (line.front() == '/') {
      if (!obey(conversation, line)) return;
      continue;
    }
    try {
      answer(conversation, line);
    } catch (const ContextFull& full) {
      fmt::print(stderr, "{} /reset starts over.\n", full.what());
    }
  }
}

}  // namespace

void add_chat(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("chat", "A conversation in the terminal");
  auto options = std::make_shared<ChatOptions>();
  add_model_option(*verb, "--model", options->model, "the model")->required();
  verb->add_option("--system", options->system, "a system message");
  add_chat_template_option(*verb, options->chat_template);
  verb->add_option("--max-tokens", options->max_tokens, "most tokens of an answer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--context", options->context, "most tokens of the conversation")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_sampling_options(*verb, options->sampling);
  add_draft_options(*verb, options->draft);
  add_weights_option(*verb, options->weights);
  add_common_options(*verb, options->common);
  verb->callback([options] { run_chat(*options); });
}

}  // namespace mambify
