// mambify synthesize: what a teacher writes, as training text, and pairs of its answers and a
// student's.
#include "decode/synthesize.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <memory>

#include "checkpoint_options.h"
#include "core/error.h"
#include "core/progress.h"
#include "data/examples.h"
#include "data/pairs.h"
#include "decode/preferences.h"
#include "decoding_options.h"
#include "prompts.h"
#include "verbs.h"

namespace mambify {
namespace {

struct SynthesizeVerb {
  CommonOptions common;
  SynthesisOptions synthesis;
  std::string teacher, student, out, prompts, chat_template;
  bool pairs = false;
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

struct Written {
  SynthesisResult text;
  double seconds = 0;
};

// The teacher's part. Its weights are gone when it is done: a student's may take their place.
Written write_text(const SynthesizeVerb& verb, const std::vector<Chat>& prompts) {
  const LoadedModel teacher(verb.teacher, verb.common);
  const PackedWeights packed = pack_weights(teacher.model, "native", verb.common);
  SynthesisOptions options = verb.synthesis;
  options.packed = &packed;
  const auto start = std::chrono::steady_clock::now();
  Progress progress("teacher", options.tokens, "tokens");
  SynthesisResult text =
      synthesize(teacher.model, teacher.tokenizer, teacher.chat_template(verb.chat_template),
                 prompts, options, [&](int64_t tokens) { progress.update(tokens); });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return {std::move(text), seconds.count()};
}

// The student's part of --pairs.
Preferences write_preferences(const SynthesizeVerb& verb, const std::vector<Chat>& taught) {
  const LoadedModel student(verb.student, verb.common);
  const PackedWeights packed = pack_weights(student.model, "native", verb.common);
  SynthesisOptions options = verb.synthesis;
  options.packed = &packed;
  // With the teacher's random numbers it would draw the teacher's tokens as long as they agree.
  ++options.sampling.seed;
  Progress progress("student", std::ssize(taught), "answers");
  return prefer_teacher(taught, student.model, student.tokenizer,
                        student.chat_template(verb.chat_template), options,
                        [&](int64_t done) { progress.update(done); });
}

nlohmann::json describe(const Written& written) {
  const SynthesisResult& text = written.text;
  return {{"conversations", text.chats.size()},
          {"texts", text.texts.size()},
          {"tokens", text.tokens},
          {"cut", text.cut},
          {"unfinished", text.unfinished},
          {"malformed", text.malformed},
          {"tokens_per_second", static_cast<double>(text.tokens) / written.seconds}};
}

void run_synthesize(SynthesizeVerb& verb) {
  apply_common_options(verb.common, Devices::cpu_or_cuda);
  verb.synthesis.sampling.seed = verb.common.seed;
  verb.synthesis.sampling.check();
  const std::vector<Chat> prompts =
      verb.prompts.empty() ? std::vector<Chat>{} : read_chats(verb.prompts);
  if (verb.pairs) {
    check_same_vocabulary(verb.student, Tokenizer::load(verb.student), verb.teacher,
                          Tokenizer::load(verb.teacher));
  }
  const Written written = write_text(verb, prompts);
  const SynthesisResult& text = written.text;
  spdlog::info(
      "the teacher wrote {} conversations, {} plain texts ({} of all cut), {} tokens; left out: {} "
      "unfinished, {} malformed",
      text.chats.size(), text.texts.size(), text.cut, text.tokens, text.unfinished, text.malformed);
  nlohmann::json summary = describe(written);
  if (verb.pairs) {
    const Preferences preferences = write_preferences(verb, text.chats);
    if (preferences.pairs.empty()) {
      throw Error(
          "{}: none of {} conversations became a pair: {} answers of the student's are longer than "
          "--max-length ({}), empty or not plain text, {} are the teacher's own",
          verb.out, text.chats.size(), preferences.unanswered, verb.synthesis.max_length,
          preferences.equal);
    }
    write_pairs(verb.out, preferences.pairs);
    spdlog::info("{}: {} pairs; left out: {} without a usable answer, {} of equal answers",
                 verb.out, preferences.pairs.size(), preferences.unanswered, preferences.equal);
    summary["pairs"] = preferences.pairs.size();
    summary["unanswered"] = preferences.unanswered;
    summary["equal"] = preferences.equal;
  } else {
    write_examples(verb.out, text.chats, text.texts);
    spdlog::info("wrote {}", verb.out);
  }
  if (verb.common.json) print_json(summary);
}

}  // namespace

void add_synthesize(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("synthesize", "Training text that a teacher writes");
  auto options = std::make_shared<SynthesizeVerb>();
  add_model_option(*verb, "--teacher", options->teacher, "the chat model that writes")->required();
  verb->add_option("--out", options->out,
                   "the file to write: {\"messages\": [...]} a line, or with --pairs "
                   "{\"prompt\": [...], \"chosen\": [...], \"rejected\": [...]}")
      ->required();
  verb->add_option("--tokens", options->synthesis.tokens,
                   "how much the teacher is to write, prompts included")
      ->required()
      ->check(CLI::PositiveNumber);
  auto* pairs = verb->add_flag("--pairs", options->pairs,
                               "preference pairs for the stage dpo: the teacher's answer is "
                               "preferred to the student's own to the same prompt");
  auto* student =
      add_model_option(*verb, "--student", options->student, "with --pairs: who answers, too");
  pairs->needs(student);
  student->needs(pairs);
  verb->add_option(
      "--prompts", options->prompts,
      "what to answer: {\"prompt\": ...} or {\"messages\": [...]} a line (default: the "
      "teacher writes the user's turn too)");
  auto* plain =
      verb->add_option("--plain-share", options->synthesis.plain_share,
                       "of the texts, the share that is no conversation but a document as in "
                       "pretraining, which the teacher writes from its beginning")
          ->check(CLI::Range(0.0, 1.0))
          ->capture_default_str();
  plain->excludes(pairs);
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
