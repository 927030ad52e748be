// mambify synthesize: conversations that a teacher writes, as training text.
#include "decode/synthesize.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <memory>

#include "core/error.h"
#include "core/progress.h"
#include "data/examples.h"
#include "decoding_options.h"
#include "prompts.h"
#include "verbs.h"

namespace mambify {
namespace {

struct SynthesizeVerb {
  CommonOptions common;
  SynthesisOptions synthesis;
  std::string teacher, out, prompts, chat_template;
};

// A prompt's text is what a user says; an answer that ends a conversation gives way to the
// teacher's.
std::vector<Chat> read_chats(const std::string& file) {
  std::vector<Chat> chats;
  for (Prompt& prompt : read_prompts(file)) {
    Chat chat = prompt.is_chat() ? std::move(prompt.messages) : Chat{{"user", prompt.text}};
    while (!chat.empty() && chat.back().role == "assistant") chat.pop_back();
    if (chat.empty() || chat.back().role != "user") {
      throw Error("{}: prompt {} holds no user's turn to answer", file, chats.size() + 1);
    }
    chats.push_back(std::move(chat));
  }
  return chats;
}

void run_synthesize(SynthesizeVerb& verb) {
  apply_common_options(verb.common, Devices::cpu_or_cuda);
  verb.synthesis.sampling.seed = verb.common.seed;
  verb.synthesis.sampling.check();
  const std::vector<Chat> prompts =
      verb.prompts.empty() ? std::vector<Chat>{} : read_chats(verb.prompts);
  const LoadedModel teacher(verb.teacher, verb.common);
  const PackedWeights packed = pack_weights(teacher.model, "native", verb.common);
  verb.synthesis.packed = &packed;

  const auto start = std::chrono::steady_clock::now();
  Progress progress("synthesize", verb.synthesis.tokens, "tokens");
  const SynthesisResult result =
      synthesize(teacher.model, teacher.tokenizer, teacher.chat_template(verb.chat_template),
                 prompts, verb.synthesis, [&](int64_t tokens) { progress.update(tokens); });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;

  write_examples(verb.out, result.chats, result.texts);
  spdlog::info(
      "{}: {} conversations, {} plain texts ({} of all cut), {} tokens; left out: {} unfinished, "
      "{} "
      "malformed",
      verb.out, result.chats.size(), result.texts.size(), result.cut, result.tokens,
      result.unfinished, result.malformed);
  if (verb.common.json) {
    print_json({{"conversations", result.chats.size()},
                {"texts", result.texts.size()},
                {"tokens", result.tokens},
                {"cut", result.cut},
                {"unfinished", result.unfinished},
                {"malformed", result.malformed},
                {"tokens_per_second", result.tokens / seconds.count()}});
  }
}

}  // namespace

void add_synthesize(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("synthesize", "Training text that a teacher writes");
  auto options = std::make_shared<SynthesizeVerb>();
  add_model_option(*verb, "--teacher", options->teacher, "the chat model that writes")->required();
  verb->add_option("--out", options->out, "the file to write: {\"messages\": [...]} a line")
      ->required();
  verb->add_option("--tokens", options->synthesis.tokens, "how much to write")
      ->required()
      ->check(CLI::PositiveNumber);
  verb->add_option(
      "--prompts", options->prompts,
      "what to answer: {\"prompt\": ...} or {\"messages\": [...]} a line (default: the "
      "teacher writes the user's turn too)");
  verb->add_option("--plain-share", options->synthesis.plain_share,
                   "of the texts, the share that is no conversation but a document as in "
                   "pretraining, which the teacher writes from its beginning")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb->add_option("--max-length", options->synthesis.max_length, "most tokens of a conversation")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--batch", options->synthesis.rows, "conversations written side by side")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  add_chat_template_option(*verb, options->chat_template);
  add_sampling_options(*verb, options->synthesis.sampling);
  add_common_options(*verb, options->common);
  verb->callback([options] { run_synthesize(*options); });
}

}  // namespace mambify
