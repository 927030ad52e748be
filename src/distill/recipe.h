// A recipe: what one run of `mambify distill` does, as a TOML file.
//
// Each section is a struct whose for_each_key names its keys, explains them and bounds their
// values. The parser, its error messages and `mambify distill --print-keys` are made from that one
// place. This part needs no LibTorch, so that it can be fuzzed on its own.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace mambify {

enum class StageKind { align, stepwise, distill, sft, dpo };
enum class ScheduleKind { cosine, wsd, constant };
enum class TrainSet { mixers, all, newest };
enum class CountedTokens { assistant, all };
enum class ReferenceModel { teacher, start };
enum class RotaryChoice { automatic, keep, drop };
enum class ComputeType { fp32, bf16 };

// A value's name in a recipe is its place in this list.
template <typename Enum>
constexpr std::array<std::string_view, 0> kNamesOf{};
template <>
inline constexpr std::array<std::string_view, 5> kNamesOf<StageKind> = {"align", "stepwise",
                                                                        "distill", "sft", "dpo"};
template <>
inline constexpr std::array<std::string_view, 3> kNamesOf<ScheduleKind> = {"cosine", "wsd",
                                                                           "constant"};
template <>
inline constexpr std::array<std::string_view, 3> kNamesOf<TrainSet> = {"mixers", "all", "new"};
template <>
inline constexpr std::array<std::string_view, 2> kNamesOf<CountedTokens> = {"assistant", "all"};
template <>
inline constexpr std::array<std::string_view, 2> kNamesOf<ReferenceModel> = {"teacher", "start"};
template <>
inline constexpr std::array<std::string_view, 3> kNamesOf<RotaryChoice> = {"auto", "keep", "drop"};
template <>
inline constexpr std::array<std::string_view, 2> kNamesOf<ComputeType> = {"fp32", "bf16"};

template <typename Enum>
constexpr std::string_view name_of(Enum value) {
  return kNamesOf<Enum>[static_cast<size_t>(value)];
}

// Bounds of a number, both included.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
};
inline constexpr Range kNotNegative{0};
inline constexpr Range kFraction{0, 1};
inline constexpr Range kCount{1, 1e12};

// [model]: who teaches whom. The student is a converted checkpoint, or is made from the teacher.
struct ModelSection {
  std::string teacher;
  std::string student;
  std::string keep_attention;
  std::string layer_choice = "even";
  std::string mixer = "mamba2";
  std::string init = "attention";
  std::string start = "auto";
  RotaryChoice rotary = RotaryChoice::automatic;
  bool untie_output = false;
  int64_t draft_vocabulary = 0;

  template <typename Self, typename Visit>
  static void for_each_key(Self& self, Visit&& visit) {
    visit("teacher", self.teacher, "GGUF file or Hugging Face folder of the teacher; required");
    visit("student", self.student,
          "folder of a student to go on with, converted from the teacher or another model of its "
          "vocabulary; \"\" makes it from the teacher");
    visit("keep_attention", self.keep_attention,
          "layers of the new student that keep attention: a fraction (\"1/4\"), a list "
          "(\"3,7,11\") or \"none\"; \"\" converts none before the first stage");
    visit("layer_choice", self.layer_choice,
          "how a fraction picks layers: \"even\", or a file of `eval sensitivity`");
    visit("mixer", self.mixer, "what attention becomes: \"mamba2\" or \"mamba1\"");
    visit("init", self.init, "projections of a new mixer: \"attention\" (copied) or \"random\"");
    visit("start", self.start,
          "parameters attention does not have: \"published\", \"neutral\" (mamba2), or \"auto\": "
          "as the student's Mamba layers began, where it has none neutral for mamba2 and published "
          "for mamba1");
    visit("rotary", self.rotary,
          "rotary embedding on B and C (mamba2): \"keep\", \"drop\", or \"auto\": as the student's "
          "Mamba layers have it, where it has none kept with the neutral start");
    visit("untie_output", self.untie_output,
          "give the student an output matrix of its own, which begins as its embedding");
    visit("draft_vocabulary", self.draft_vocabulary,
          "of a student that is to draft: so many tokens, the most frequent of those in the text "
          "that the loss counts, are all that it will guess; 0: any token",
          Range{0, 1 << 24});
  }
};

// [data]: what is read.
struct DataSection {
  std::vector<std::string> files;
  int64_t sequence_length = 512;
  std::string chat_template;
  CountedTokens loss_on = CountedTokens::assistant;

  template <typename Self, typename Visit>
  static void for_each_key(Self& self, Visit&& visit) {
    visit("files", self.files,
          "JSON-lines files, {\"messages\": [...]} or {\"text\": ...} a line; required where a "
          "stage has none of its own");
    visit("sequence_length", self.sequence_length,
          "longer documents are cut into pieces of this many tokens; dpo leaves longer ones out",
          Range{2, 1 << 24});
    visit("chat_template", self.chat_template,
          "\"chatml\", \"smollm2\" or \"llama3\"; \"\" takes the teacher's own");
    visit("loss_on", self.loss_on,
          "tokens of a conversation that count: the assistant's, or all; align uses every token, "
          "sft and dpo the assistant's");
  }
};

// [[stage]]: one after another. Exactly one of steps, tokens and minutes limits a stage.
struct StageSection {
  StageKind kind = StageKind::distill;
  int64_t steps = 0;
  int64_t tokens = 0;
  double minutes = 0;
  int64_t batch_tokens = 2048;
  int64_t accumulation = 1;
  TrainSet train = TrainSet::mixers;
  std::vector<std::string> freeze;
  std::vector<std::string> keep_attention;
  std::vector<std::string> files;
  std::string save;
  double kl_weight = 1;
  double ce_weight = 0;
  double beta = 0.1;
  double label_smoothing = 0;
  ReferenceModel reference = ReferenceModel::teacher;
  double learning_rate = 1e-3;
  double learning_rate_rest = 1e-4;
  ScheduleKind schedule = ScheduleKind::cosine;
  double warmup = 0.05;
  double decay = 0.2;
  double final_rate = 0.1;
  double weight_decay = 0;
  std::array<double, 2> betas = {0.9, 0.95};
  double epsilon = 1e-8;
  double clip = 1;

  template <typename Self, typename Visit>
  static void for_each_key(Self& self, Visit&& visit) {
    visit("kind", self.kind,
          "align: each new mixer fits the attention it replaces, fed the teacher's own hidden "
          "state; stepwise: attention is replaced in rounds; distill: end to end; sft: "
          "cross-entropy of the assistant's turns; dpo: preference pairs");
    visit("steps", self.steps, "optimizer steps of the stage (stepwise: of all its rounds)",
          Range{0, 1e12});
    visit("tokens", self.tokens, "or tokens, rounded up to whole steps", Range{0, 1e15});
    visit("minutes", self.minutes,
          "or minutes of wall clock; such a stage is resumed, but not "
          "to the same bits",
          Range{0, 1e7});
    visit("batch_tokens", self.batch_tokens,
          "tokens of one optimizer step; dpo: at most, since it takes whole pairs", Range{2, 1e9});
    visit("accumulation", self.accumulation,
          "parts a step's tokens are computed in, to save memory; divides batch_tokens", kCount);
    visit(
        "train", self.train,
        "\"mixers\": the converted layers' mixers; \"new\": of them those of the last conversion; "
        "\"all\": every parameter (align and stepwise train mixers only)");
    visit("freeze", self.freeze,
          "parameters left as they are; * matches any characters: [\"embedding\", "
          "\"blocks.*.mlp.*\"]");
    visit("keep_attention", self.keep_attention,
          "stepwise: the layers that keep attention in each round, as in [model]: [\"1/2\", "
          "\"1/4\"]; other kinds: one entry, to which the student is converted further before the "
          "stage begins");
    visit("files", self.files,
          "what this stage reads instead of the files of [data]; dpo: required, {\"prompt\": ..., "
          "\"chosen\": ..., \"rejected\": ...} a line, each a string or a list of messages");
    visit("save", self.save,
          "folder in that of the run where the student is left at the end of the stage, as in "
          "final/; \"\" leaves none");
    visit("kl_weight", self.kl_weight, "weight of KL(teacher to student), nats per token",
          kNotNegative);
    visit("ce_weight", self.ce_weight, "weight of the cross-entropy of the text, nats per token",
          kNotNegative);
    visit("beta", self.beta,
          "dpo: how dear it is to leave the reference model; rewards are beta times the log of the "
          "ratio of probabilities",
          Range{1e-6, 1e6});
    visit("label_smoothing", self.label_smoothing,
          "dpo: the share of pairs that are thought to be the wrong way round", Range{0, 0.5});
    visit(
        "reference", self.reference,
        "dpo: the reference model, \"teacher\" or \"start\" (the student as it begins the stage)");
    visit("learning_rate", self.learning_rate, "peak rate of the converted layers' mixers",
          kNotNegative);
    visit("learning_rate_rest", self.learning_rate_rest, "peak rate of everything else",
          kNotNegative);
    visit("schedule", self.schedule,
          "\"cosine\", \"wsd\" (constant, then linear decay) or \"constant\", after the warm-up");
    visit("warmup", self.warmup, "share of the stage in which the rate rises", kFraction);
    visit("decay", self.decay, "wsd: share of the stage in which the rate falls", kFraction);
    visit("final_rate", self.final_rate, "rate at the end, as a share of the peak (cosine, wsd)",
          kFraction);
    visit("weight_decay", self.weight_decay,
          "of matrices; vectors, A_log and the convolution "
          "have none",
          kNotNegative);
    visit("betas", self.betas, "AdamW's decay rates of the two moments", Range{0, 0.999999});
    visit("epsilon", self.epsilon, "AdamW's epsilon", Range{1e-20, 1});
    visit("clip", self.clip, "largest global norm of the gradient; 0 does not clip", kNotNegative);
  }
};

// A stage without keys. sft and dpo begin with a finished student, all of which then moves slowly.
inline StageSection default_stage(StageKind kind) {
  StageSection stage;
  stage.kind = kind;
  if (kind != StageKind::sft && kind != StageKind::dpo) return stage;
  stage.train = TrainSet::all;
  stage.learning_rate = stage.learning_rate_rest = kind == StageKind::sft ? 2e-5 : 5e-7;
  return stage;
}

// [run]: the folder and what all stages share.
struct RunSection {
  std::string dir;
  uint64_t seed = 0;
  ComputeType dtype = ComputeType::fp32;
  ComputeType save_dtype = ComputeType::fp32;
  int64_t checkpoint_every = 200;
  int64_t log_every = 1;
  int64_t max_skipped = 5;
  bool activation_checkpointing = false;

  template <typename Self, typename Visit>
  static void for_each_key(Self& self, Visit&& visit) {
    visit("dir", self.dir, "folder of the run; required, new unless resumed");
    visit("seed", self.seed, "of new parameters and of the order of the data");
    visit("dtype", self.dtype,
          "compute type, \"fp32\" or \"bf16\"; optimized weights are fp32 either way");
    visit("save_dtype", self.save_dtype, "type of the weights in final/");
    visit("checkpoint_every", self.checkpoint_every,
          "steps between checkpoints; 0: at the end of each stage only", Range{0, 1e12});
    visit("log_every", self.log_every,
          "steps between lines of metrics.jsonl; the last step of a stage is always there", kCount);
    visit("max_skipped", self.max_skipped,
          "steps in a row that may be skipped because a loss or gradient is not finite", kCount);
    visit("activation_checkpointing", self.activation_checkpointing,
          "recompute each block in the backward pass: less memory, a third more time");
  }
};

struct Recipe {
  ModelSection model;
  DataSection data;
  std::vector<StageSection> stages;
  RunSection run;
  // The TOML it was read from; with overrides, the whole recipe written anew.
  std::string text;
};

// overrides: "section.key=value" ("stage.0.steps=10"); the value is TOML, or else a string.
// origin: what messages call the text. Throws Error naming the line and the key for anything that
// is not valid TOML, unknown, of another type, out of range or missing.
Recipe parse_recipe(std::string_view text, const std::string& origin,
                    const std::vector<std::string>& overrides = {});
Recipe load_recipe(const std::string& path, const std::vector<std::string>& overrides = {});

// Equal for two recipes exactly when every value that decides the outcome is equal; comments and
// layout of the text do not count.
uint64_t fingerprint(const Recipe& recipe);

// Every key with its default and meaning, as Markdown: the reference in docs/distill.md.
std::string recipe_reference();

}  // namespace mambify
