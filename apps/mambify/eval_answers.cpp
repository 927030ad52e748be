// mambify eval answers: what a model answers to benchmarks that another model judges.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <memory>

#include "core/error.h"
#include "core/progress.h"
#include "decoding_options.h"
#include "eval/answers/answer_file.h"
#include "eval/answers/answer_journal.h"
#include "eval/answers/answer_questions.h"
#include "eval/answers/answer_summary.h"
#include "eval/tasks/questions.h"
#include "eval_verbs.h"

namespace mambify {
namespace {

using nlohmann::json;

struct AnswersVerbOptions {
  CommonOptions common;
  SamplingOptions sampling;
  DraftOptions draft;
  AnswerOptions answer;
  std::string model, questions, instructions, out, model_id, chat_template;
  std::string weights = "native";
  bool temperature_given = false;
  int64_t limit = 0;
  int64_t batch = 16;

  bool is_mt_bench() const { return !questions.empty(); }
  const std::string& input() const { return is_mt_bench() ? questions : instructions; }
};

int64_t time_of(const fs::path& path) {
  std::error_code error;
  const auto time = fs::last_write_time(path, error);
  if (error) throw Error("{}: {}", path.string(), error.message());
  return time.time_since_epoch().count();
}

// What answers depend on: they go on only in a run of the same. Files are told by their times.
json settings_of(const AnswersVerbOptions& options) {
  const SamplingOptions& sampling = options.sampling;
  return {{"model", options.model},
          {"model_time", time_of(options.model)},
          {"input", options.input()},
          {"input_time", time_of(options.input())},
          {"limit", options.limit},
          {"dtype", options.common.dtype},
          {"weights", options.weights},
          {"seed", options.common.seed},
          {"temperature", options.is_mt_bench() && !options.temperature_given
                              ? json("by category")
                              : json(sampling.temperature)},
          {"top_k", sampling.top_k},
          {"top_p", sampling.top_p},
          {"min_p", sampling.min_p},
          {"max_tokens", options.answer.max_tokens},
          {"accept", options.draft.draft.empty() ? "exact" : options.draft.accept},
          {"system", options.answer.system},
          {"chat_template", options.chat_template}};
}

std::vector<AnswerJob> make_jobs(const AnswersVerbOptions& options,
                                 const std::vector<Question>& questions) {
  std::vector<AnswerJob> jobs;
  for (int64_t number = 0; number < std::ssize(questions); ++number) {
    AnswerJob job{number, &questions[number], options.sampling};
    if (options.is_mt_bench() && !options.temperature_given) {
      job.sampling.temperature = mt_bench_temperature(questions[number].category);
    }
    jobs.push_back(job);
  }
  return jobs;
}

// Answers what is not answered.
void answer_rest(const AnswersVerbOptions& options, const std::vector<Question>& questions,
                 AnswerJournal& journal) {
  if (journal.entries().size() == questions.size()) return;
  const LoadedModel loaded(options.model, options.common);
  const ChatTemplate chat = loaded.chat_template(options.chat_template);
  std::vector<AnswerJob> jobs = make_jobs(options, questions);
  // Of all, so that a conversation has the same room in every part of a run.
  const int64_t context = answers_context(jobs, options.answer, loaded.tokenizer, chat);
  std::erase_if(jobs, [&](const AnswerJob& job) { return journal.entries().contains(job.number); });
  const int64_t rows = std::min<int64_t>(options.batch, std::ssize(jobs));
  EngineOptions decoding{.rows = rows,
                         .context = std::min(context, context_limit(loaded.model.config)),
                         .min_prefill = std::max<int64_t>(rows / 8, 1)};
  LoadedDrafter drafter(options.draft, options.common, options.model, loaded);
  drafter.attach_to(decoding);
  const PackedWeights packed = pack_weights(loaded.model, options.weights, options.common);
  decoding.packed = &packed;
  Engine engine(loaded.model, &loaded.tokenizer, decoding);
  Progress progress("answers", std::ssize(jobs), "questions");
  int64_t done = 0;
  answer_questions(engine, loaded.tokenizer, chat, jobs, options.answer,
                   [&](const AnswerJob& job, Answer answer) {
                     journal.add(job.number, std::move(answer));
                     progress.update(++done);
                   });
}

void print_row(const std::string& name, const json& row) {
  fmt::print("{:<20} {:>9} {:>6} {:>12.1f} {:>6} {:>6} {:>9}\n", name,
             row["questions"].get<int64_t>(), row["turns"].get<int64_t>(),
             row["tokens_per_turn"].get<double>(), row["cut"].get<int64_t>(),
             row["empty"].get<int64_t>(), row["without_room"].get<int64_t>());
}

void print_summary(const json& summary) {
  fmt::print("{:<20} {:>9} {:>6} {:>12} {:>6} {:>6} {:>9}\n", "", "questions", "turns",
             "tokens/turn", "cut", "empty", "no room");
  for (const auto& [name, row] : summary["categories"].items()) print_row(name, row);
  print_row("all", summary);
}

// The judges find files by their endings.
void check_ending(const AnswersVerbOptions& options) {
  const char* ending = options.is_mt_bench() ? ".jsonl" : ".json";
  if (fs::path(options.out).extension() == ending) return;
  throw UsageError("--out {}: expected a name that ends in {}, as {} reads it", options.out, ending,
                   options.is_mt_bench() ? "FastChat" : "AlpacaEval");
}

void run(AnswersVerbOptions& options) {
  apply_common_options(options.common, Devices::cpu_or_cuda);
  options.sampling.seed = options.common.seed;
  options.sampling.check();
  check_ending(options);
  const fs::path out = options.out;
  if (fs::exists(out)) {
    throw Error("{} is there already; delete it to answer anew, or name another file with --out",
                out.string());
  }
  if (options.model_id.empty()) options.model_id = out.stem().string();
  const std::vector<Question> questions =
      options.is_mt_bench() ? read_mt_bench_questions(options.questions, options.limit)
                            : read_alpaca_instructions(options.instructions, options.limit);
  if (!out.parent_path().empty()) fs::create_directories(out.parent_path());
  AnswerJournal journal(out.string() + ".partial", settings_of(options));
  const auto before = std::ssize(journal.entries());
  if (before > 0) spdlog::info("{} of {} questions are answered", before, questions.size());
  answer_rest(options, questions, journal);
  write_file_atomically(out, options.is_mt_bench()
                                 ? mt_bench_answers(questions, journal.entries(), options.model_id)
                                 : alpaca_answers(questions, journal.entries(), options.model_id));
  json summary = summarise_answers(questions, journal.entries());
  journal.remove();
  summary["about"] =
      about_result("answers", options.common, options.model, /*teacher=*/"", options.input());
  summary["format"] = options.is_mt_bench() ? "mt_bench" : "alpaca_eval";
  summary["out"] = options.out;
  summary["model"] = options.model;
  summary["model_id"] = options.model_id;
  summary["input"] = options.input();
  summary["max_tokens"] = options.answer.max_tokens;
  summary["answered_before"] = before;
  if (options.common.json) {
    print_json(summary);
  } else {
    print_summary(summary);
  }
}

}  // namespace

void add_eval_answers(CLI::App& eval) {
  CLI::App* verb = eval.add_subcommand(
      "answers",
      "Answer the questions of MT-Bench or AlpacaEval, in the files that their judges read. A run "
      "that was stopped goes on when it is started again: what is answered stands in OUT.partial, "
      "OUT appears when all is");
  auto options = std::make_shared<AnswersVerbOptions>();
  add_model_option(*verb, "--model", options->model, "the chat model")->required();
  auto* input = verb->add_option_group("input");
  input->add_option("--questions", options->questions,
                    "MT-Bench: FastChat's question.jsonl; writes its model_answer/MODEL.jsonl");
  input->add_option("--instructions", options->instructions,
                    "AlpacaEval: its list of {\"instruction\", \"dataset\"}; writes its "
                    "model_outputs.json");
  input->require_option(1);
  verb->add_option("--out", options->out,
                   "the file to write, .jsonl for MT-Bench and .json for AlpacaEval; FastChat goes "
                   "by its name")
      ->required();
  verb->add_option("--model-id", options->model_id,
                   "what the file calls the model (default: its own name without extension)");
  verb->add_option("--max-tokens", options->answer.max_tokens, "most tokens of one answer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--limit", options->limit, "the first so many questions (0: all)")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--system", options->answer.system, "a system message");
  add_chat_template_option(*verb, options->chat_template);
  verb->add_option("--batch", options->batch, "questions answered side by side")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  add_sampling_options(*verb, options->sampling);
  CLI::Option* temperature = verb->get_option("--temperature");
  temperature->description(
      "divides the logits; 0 takes the likeliest token (default: 0, and for MT-Bench by category "
      "as FastChat: 0.7 writing and roleplay, 0.1 stem and humanities, else 0)");
  temperature->default_str("");
  add_draft_options(*verb, options->draft);
  add_weights_option(*verb, options->weights);
  add_common_options(*verb, options->common);
  verb->callback([options, temperature] {
    options->temperature_given = temperature->count() > 0;
    run(*options);
  });
}

}  // namespace mambify
