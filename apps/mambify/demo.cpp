// mambify demo: the main job on one teacher, small enough for a two-core CPU.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <cmath>
#include <memory>
#include <optional>

#include "checkpoint_options.h"
#include "core/error.h"
#include "core/progress.h"
#include "data/examples.h"
#include "decode/synthesize.h"
#include "decoding_options.h"
#include "distill/trainer.h"
#include "eval/agreement.h"
#include "eval/passes.h"
#include "verbs.h"

namespace mambify {
namespace {

struct DemoOptions {
  CommonOptions common;
  std::string teacher, out = "runs/demo";
  std::string keep_attention = "23/30";
  std::string question = "What is the capital of France?";
  int64_t train_tokens = 60000, held_out_tokens = 6000;
  double align_minutes = 2.5, distill_minutes = 4;
};

// The seed of the held-out text: the trained-on text never has it.
constexpr uint64_t kHeldOutSeed = 0x68656c646f7574;

void announce(int step, const std::string& what) {
  fmt::print(stderr, "\n[{}/5] {}\n", step, what);
}

fs::path write_text(const LoadedModel& teacher, const PackedWeights& packed,
                    const DemoOptions& options, const char* name, int64_t tokens, uint64_t seed) {
  SynthesisOptions synthesis;
  synthesis.tokens = tokens;
  synthesis.max_length = 512;
  synthesis.sampling = {.temperature = 1, .seed = seed};
  synthesis.packed = &packed;
  Progress progress(name, tokens, "tokens");
  const SynthesisResult result =
      synthesize(teacher.model, teacher.tokenizer, teacher.chat_template(""), {}, synthesis,
                 [&](int64_t done) { progress.update(done); });
  const fs::path file = fs::path(options.out) / (std::string(name) + ".jsonl");
  write_examples(file, result.chats);
  return file;
}

RunSummary distill_student(const DemoOptions& options, const fs::path& text) {
  const auto quoted = [](const std::string& value) { return nlohmann::json(value).dump(); };
  const std::string recipe = fmt::format(
      R"(# What `mambify demo` runs; `mambify distill` takes it too.
[model]
teacher = {teacher}
keep_attention = {keep}
start = "published"

[data]
files = [{text}]
sequence_length = 512

[[stage]]
kind = "align"
minutes = {align}
batch_tokens = 512
learning_rate = 1e-2

[[stage]]
kind = "distill"
minutes = {distill}
batch_tokens = 512
train = "mixers"
learning_rate = 1e-3
warmup = 0.1

[run]
dir = {dir}
seed = {seed}
checkpoint_every = 0
)",
      fmt::arg("teacher", quoted(options.teacher)),
      fmt::arg("keep", quoted(options.keep_attention)), fmt::arg("text", quoted(text.string())),
      fmt::arg("align", options.align_minutes), fmt::arg("distill", options.distill_minutes),
      fmt::arg("dir", quoted((fs::path(options.out) / "run").string())),
      fmt::arg("seed", options.common.seed));
  return run_recipe(parse_recipe(recipe, "the demo's recipe"), RunOptions{});
}

// exp of the mean negative log-likelihood of the tokens that count, nats.
double perplexity_of(const Model& model, std::span<const Document> documents) {
  std::vector<TokenSpan> spans;
  for (const Document& document : documents) spans.push_back(document.ids);
  double sum = 0;
  int64_t count = 0;
  for (const Pass& pass : make_passes(spans)) {
    const Predictions asked = predictions(pass, [&](int64_t document, int64_t token) {
      return static_cast<bool>(documents[document].counts[token]);
    });
    if (asked.rows.numel() == 0) continue;
    const TokenScores scores =
        score_tokens(model, pass_hidden(model, pass, asked.rows), asked.labels);
    sum += scores.nll.sum().item<double>();
    count += asked.rows.numel();
  }
  return std::exp(sum / static_cast<double>(count));
}

GenerationResult answer(const LoadedModel& loaded, const ChatTemplate& chat,
                        const std::string& question) {
  Engine engine(loaded.model, &loaded.tokenizer, {.rows = 1, .context = 512});
  GenerationRequest request;
  request.prompt =
      chat.tokenize({{"user", question}}, /*add_generation_prompt=*/true, loaded.tokenizer).ids;
  request.max_tokens = 96;
  request.stop_ids = loaded.stop_ids(&chat);
  std::vector<GenerationRequest> requests;
  requests.push_back(std::move(request));
  return std::move(generate(engine, std::move(requests)).front());
}

// What is measured of each of the two models.
struct Column {
  double perplexity;
  GenerationResult answer;
};

Column measure(const LoadedModel& loaded, const ChatTemplate& chat,
               std::span<const Document> held_out, const std::string& question) {
  return {perplexity_of(loaded.model, held_out), answer(loaded, chat, question)};
}

void print_text(const DemoOptions& options, const RunSummary& run, const AgreementResult& close,
                const Column& teacher, const Column& student, double minutes) {
  fmt::print("\n{:<34}{:>12}{:>12}\n", "on text the student never saw", "teacher", "student");
  fmt::print("{:<34}{:>12.3f}{:>12.3f}\n", "perplexity", teacher.perplexity, student.perplexity);
  fmt::print("{:<34}{:>12}{:>12.3f}\n", "KL from the teacher, nats per token", "0", close.kl);
  fmt::print("{:<34}{:>12}{:>12.3f}\n", "top-1 agreement", "1", close.top1);
  fmt::print("{:<34}{:>12.1f}{:>12.1f}\n", "decoding, tokens per second",
             teacher.answer.decode_tokens_per_second(), student.answer.decode_tokens_per_second());
  fmt::print("\n{}\n  teacher: {}\n  student: {}\n", options.question, teacher.answer.text,
             student.answer.text);
  fmt::print("\n{:.1f} minutes. Student: {}  report: {}\n", minutes, run.final_model.string(),
             (run.folder / "report.html").string());
  fmt::print("Talk to it: mambify chat --model {}\n", run.final_model.string());
}

nlohmann::json as_json(const Column& column) {
  return {{"perplexity", column.perplexity},
          {"answer", column.answer.text},
          {"decode_tokens_per_second", column.answer.decode_tokens_per_second()}};
}

void run_demo(const DemoOptions& options) {
  apply_common_options(options.common);
  const fs::path run_folder = fs::path(options.out) / "run";
  if (fs::exists(run_folder)) {
    throw Error("{} is there already: remove it, or give another --out", run_folder.string());
  }
  fs::create_directories(options.out);
  const auto start = std::chrono::steady_clock::now();

  announce(1, "The teacher writes text to learn from");
  const LoadedModel teacher(options.teacher, options.common);
  std::optional<PackedWeights> packed(teacher.model);
  const fs::path text =
      write_text(teacher, *packed, options, "train", options.train_tokens, options.common.seed);
  announce(2, "It writes text to be judged by");
  const fs::path held_out = write_text(teacher, *packed, options, "held-out",
                                       options.held_out_tokens, options.common.seed ^ kHeldOutSeed);
  packed.reset();  // training wants the memory
  announce(3, "Attention becomes Mamba-2, and the student learns from the teacher");
  const RunSummary run = distill_student(options, text);

  announce(4, "Both are measured");
  const LoadedModel student(run.final_model.string(), options.common);
  const std::vector<Example> examples = read_examples(held_out);
  const Dataset data =
      tokenize_examples(examples, teacher.tokenizer, /*chat_template=*/"", LossOn::assistant);
  const ChatTemplate chat = teacher.chat_template("");
  const AgreementResult close = agreement(student.model, teacher.model, data.documents,
                                          AgreementOptions{.greedy_prompts = 0});
  const Column of_teacher = measure(teacher, chat, data.documents, options.question);
  const Column of_student = measure(student, chat, data.documents, options.question);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;

  announce(5, "Teacher and student side by side");
  if (options.common.json) {
    print_json({{"teacher", as_json(of_teacher)},
                {"student", as_json(of_student)},
                {"kl", close.kl},
                {"top1", close.top1},
                {"tokens", close.tokens},
                {"seconds", seconds.count()},
                {"final", run.final_model.string()},
                {"report", (run.folder / "report.html").string()}});
  } else {
    print_text(options, run, close, of_teacher, of_student, seconds.count() / 60);
  }
}

}  // namespace

void add_demo(CLI::App& app) {
  CLI::App* verb = app.add_subcommand(
      "demo", "The main job in about 13 minutes on two cores: convert, distill, compare, answer");
  auto options = std::make_shared<DemoOptions>();
  add_model_option(*verb, "--teacher", options->teacher, "a chat model; `make demo` fetches one")
      ->required();
  verb->add_option("--out", options->out, "folder for the text, the run and its report")
      ->capture_default_str();
  verb->add_option("--keep-attention", options->keep_attention,
                   "layers that keep attention: a fraction, a list or none")
      ->capture_default_str();
  verb->add_option("--train-tokens", options->train_tokens, "text the teacher writes")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--held-out-tokens", options->held_out_tokens, "unseen text to measure on")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--align-minutes", options->align_minutes, "fitting each mixer alone")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--distill-minutes", options->distill_minutes, "end to end")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--question", options->question, "what both are asked")->capture_default_str();
  add_common_options(*verb, options->common);
  verb->callback([options] { run_demo(*options); });
}

}  // namespace mambify
