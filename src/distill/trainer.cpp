#include "distill/trainer.h"

#include <ATen/core/grad_mode.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "convert/convert.h"
#include "core/error.h"
#include "core/progress.h"
#include "data/packing.h"
#include "data/pair_stream.h"
#include "data/read_ahead.h"
#include "decode/draft_vocabulary.h"
#include "distill/checkpoint.h"
#include "distill/metrics.h"
#include "distill/optimizer.h"
#include "distill/report.h"
#include "distill/schedule.h"
#include "distill/stages.h"
#include "distill/stepwise.h"
#include "distill/summary.h"
#include "model/load.h"

namespace mambify {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

at::ScalarType scalar_type(ComputeType type) {
  return type == ComputeType::bf16 ? at::kBFloat16 : at::kFloat;
}

// Where a run keeps the student that a stage began with, while it needs it.
constexpr const char* kReference = "reference";

class Trainer {
 public:
  Trainer(const Recipe& recipe, RunInputs inputs, at::Device device)
      : recipe_(recipe),
        device_(device),
        folder_(recipe.run.dir),
        inputs_(std::move(inputs)),
        phases_(plan_phases(recipe, inputs_.student.config.layers)) {
    if (std::ranges::none_of(recipe.stages, needs_teacher)) return;
    for_each_parameter(inputs_.teacher,
                       [](const std::string&, at::Tensor& t) { t.set_requires_grad(false); });
    to(inputs_.teacher, device, scalar_type(recipe.run.dtype));
  }

  RunSummary run(const RunOptions& options) {
    open_folder(options);
    while (state_.phase < std::ssize(phases_)) run_phase();
    write_student("final");
    write_report(recipe_, folder_);
    return summarise(folder_, state_.skipped);
  }

 private:
  void open_folder(const RunOptions& options) {
    const fs::path metrics = folder_ / "metrics.jsonl";
    if (!options.resume && fs::exists(metrics)) {
      throw Error(
          "{} already holds a run; --resume continues it, another dir of [run] starts a "
          "new one",
          folder_.string());
    }
    fs::create_directories(folder_);
    resumed_ = options.resume ? newest_checkpoint(folder_, fingerprint(recipe_)) : std::nullopt;
    if (resumed_) {
      state_ = resumed_->state;
      inputs_.student = load_student(*resumed_);
      spdlog::info("resuming {} at step {}", folder_.string(), state_.step);
    } else {
      if (options.resume)
        spdlog::warn("{} has no checkpoint: from the beginning", folder_.string());
      write_file_atomically(folder_ / "recipe.toml", recipe_.text);
    }
    metrics_.emplace(metrics, state_.metrics_bytes);
  }

  void run_phase() {
    const Phase& phase = phases_[state_.phase];
    const StageSection& stage = recipe_.stages[phase.stage];
    if (phase.keep_attention && state_.phase_step == 0) convert_others(*phase.keep_attention);
    Model master = inputs_.student;  // handles
    if (stage.kind == StageKind::stepwise) {
      lend_attention(inputs_.teacher, *phase.keep_attention, master);
    }
    Model compute = master;  // on the CPU in fp32 the same tensors
    to(compute, device_, scalar_type(recipe_.run.dtype));
    AdamW optimizer(select_parameters(master, compute, stage, phase.newest), stage);
    take_trained(master, inputs_.student);
    optimizer.set_skipped({state_.skipped, state_.skipped_in_row});
    if (resumed_ && state_.phase_step > 0) load_optimizer(*resumed_, optimizer);
    resumed_.reset();
    const std::optional<Model> start_model = reference_at_start(stage);
    const auto objective =
        make_objective(stage, compute, start_model ? *start_model : inputs_.teacher);
    ReadAheadStream stream(make_stream(phase.stage));

    const auto start = Clock::now();
    const double earlier_seconds = state_.phase_seconds;
    const bool timed = phase.seconds > 0;
    Progress progress(std::string(name_of(stage.kind)),
                      timed ? std::lround(phase.seconds) : phase.steps * stage.batch_tokens,
                      timed ? "s" : "tokens");
    const auto done = [&] {
      return timed ? state_.phase_seconds >= phase.seconds : state_.phase_step >= phase.steps;
    };
    StepMetrics metrics;
    metrics.kind = name_of(stage.kind);
    metrics.stage = phase.stage;
    metrics.round = phase.round;
    auto last_log = start;
    int64_t unlogged = 0, tokens_logged = state_.tokens;
    while (!done()) {
      const double along =
          timed ? (state_.phase_seconds + metrics.seconds / 2) / phase.seconds
                : (static_cast<double>(state_.phase_step) + 0.5) / static_cast<double>(phase.steps);
      const double factor = rate_factor(stage, along);
      const StepTensors made = step(stage, stream, *objective, optimizer, factor);
      ++unlogged;
      state_.phase_seconds = earlier_seconds + seconds_since(start);
      if (state_.step % recipe_.run.log_every == 0 || done()) {
        read_step(made, optimizer, metrics);
        metrics.rate = factor * stage.learning_rate;
        metrics.rate_rest = stage.train == TrainSet::all ? factor * stage.learning_rate_rest : 0;
        metrics.seconds = seconds_since(last_log) / static_cast<double>(unlogged);
        metrics.tokens_per_second =
            static_cast<double>(state_.tokens - tokens_logged) / seconds_since(last_log);
        last_log = Clock::now();
        unlogged = 0;
        tokens_logged = state_.tokens;
        metrics_->append(metrics);
        stop_when_diverged(stage);
      }
      progress.update(
          timed ? std::lround(state_.phase_seconds) : state_.phase_step * stage.batch_tokens,
          fmt::format("loss {:.4f}", metrics.losses.total));
      const int64_t every = recipe_.run.checkpoint_every;
      if (every > 0 && state_.step % every == 0 && !done()) checkpoint(&optimizer);
    }
    for_each_parameter(compute,
                       [](const std::string&, at::Tensor& t) { t.set_requires_grad(false); });
    to(inputs_.student, at::kCPU, at::kFloat);
    ++state_.phase;
    state_.phase_step = 0;
    state_.phase_seconds = 0;
    if (ends_stage(phase)) {
      state_.stage_position = 0;
      if (!stage.save.empty()) write_student(stage.save);
    }
    checkpoint(/*optimizer=*/nullptr);
    fs::remove_all(folder_ / kReference);
  }

  bool ends_stage(const Phase& phase) const {
    return state_.phase == std::ssize(phases_) || phases_[state_.phase].stage != phase.stage;
  }

  // The student as it began a stage that takes it for the reference. It lies in the folder of the
  // run until the stage is over, for a run that is resumed.
  std::optional<Model> reference_at_start(const StageSection& stage) const {
    if (stage.kind != StageKind::dpo || stage.reference != ReferenceModel::start) return {};
    if (state_.phase_step == 0) {
      Model on_host = inputs_.student;  // handles
      to(on_host, at::kCPU, at::kFloat);
      write_directory_atomically(folder_ / kReference,
                                 [&](const fs::path& folder) { save_model(on_host, folder); });
    }
    Model reference = load_model(folder_ / kReference);
    to(reference, device_, scalar_type(recipe_.run.dtype));
    return reference;
  }

  // reference: of a dpo stage.
  std::unique_ptr<Objective> make_objective(const StageSection& stage, const Model& compute,
                                            const Model& reference) const {
    const bool saves_memory = recipe_.run.activation_checkpointing;
    switch (stage.kind) {
      case StageKind::align:
        return make_align(inputs_.teacher, compute);
      case StageKind::sft:
        return make_sft(compute, saves_memory);
      case StageKind::dpo:
        return make_dpo(reference, compute, stage, saves_memory);
      case StageKind::stepwise:
      case StageKind::distill:
        break;
    }
    return make_distill(inputs_.teacher, compute, stage, saves_memory);
  }

  std::unique_ptr<BatchStream> make_stream(int64_t stage) const {
    const auto own = inputs_.stage_data.find(stage);
    if (own != inputs_.stage_data.end() && std::holds_alternative<PairDataset>(own->second)) {
      return std::make_unique<PairStream>(std::get<PairDataset>(own->second), recipe_.run.seed);
    }
    return std::make_unique<PackedStream>(
        own == inputs_.stage_data.end() ? inputs_.data : std::get<Dataset>(own->second),
        recipe_.data.sequence_length, recipe_.run.seed);
  }

  // Converts the layers that have attention and are not to keep it.
  void convert_others(const std::vector<int64_t>& keep_attention) {
    std::vector<int64_t> kept;
    for (const int64_t layer : keep_attention) {
      if (inputs_.student.config.layers[layer] == MixerKind::attention) kept.push_back(layer);
    }
    if (std::ssize(kept) == inputs_.student.config.count(MixerKind::attention)) return;
    convert_in_place(inputs_.student, conversion(recipe_, inputs_.student.config, std::move(kept)));
  }

  // What a step leaves on the device.
  struct StepTensors {
    LossTensors losses;
    at::Tensor gradient_norm;
  };

  StepTensors step(const StageSection& stage, BatchStream& stream, Objective& objective,
                   AdamW& optimizer, double factor) {
    const bool reads_own = inputs_.stage_data.contains(phases_[state_.phase].stage);
    int64_t& position = reads_own ? state_.stage_position : state_.data_position;
    std::vector<Batch> parts;
    double total_weight = 0;
    for (int64_t i = 0; i < stage.accumulation; ++i) {
      parts.push_back(stream.batch(position, stage.batch_tokens / stage.accumulation));
      position = parts.back().next;
      state_.tokens += parts.back().tokens();
      total_weight += objective.weight(parts.back());
    }
    StepTensors made;
    for (const Batch& part : parts) {
      const double share = objective.weight(part) / std::max(total_weight, 1.0);
      made.losses.add(objective.accumulate(part, share), share);
      optimizer.collect_gradients();
    }
    made.gradient_norm = optimizer.gradient_norm();
    optimizer.step(factor, made.gradient_norm, stage.clip, made.losses.total);
    ++state_.step;
    ++state_.phase_step;
    return made;
  }

  // Waits for a step and writes down what it made.
  void read_step(const StepTensors& made, const AdamW& optimizer, StepMetrics& metrics) {
    metrics.losses = made.losses.read();
    metrics.gradient_norm = made.gradient_norm.item<float>();
    metrics.step = state_.step;
    metrics.tokens = state_.tokens;
    read_skipped(optimizer);
    if (state_.skipped_in_row > 0) {
      spdlog::warn("step {} skipped: loss {}, gradient norm {}", state_.step, metrics.losses.total,
                   metrics.gradient_norm);
    }
    metrics.skipped = state_.skipped;
  }

  void read_skipped(const AdamW& optimizer) {
    const SkippedSteps skipped = optimizer.skipped();
    state_.skipped = skipped.total;
    state_.skipped_in_row = skipped.in_row;
  }

  void stop_when_diverged(const StageSection& stage) {
    if (state_.skipped_in_row < recipe_.run.max_skipped) return;
    write_report(recipe_, folder_);
    throw Error(
        "stage {} stopped at step {}: the loss or the gradient was not finite in {} steps "
        "in a row; a lower learning_rate ({}) or clip ({}) helps, or weights or data are "
        "damaged. Checkpoints in {} are from before",
        name_of(stage.kind), state_.step, state_.skipped_in_row, stage.learning_rate, stage.clip,
        (folder_ / "checkpoints").string());
  }

  void checkpoint(AdamW* optimizer) {
    if (optimizer != nullptr) read_skipped(*optimizer);
    state_.metrics_bytes = metrics_->sync();
    save_checkpoint(folder_, state_, fingerprint(recipe_), inputs_.student, optimizer);
    write_report(recipe_, folder_);
  }

  void write_student(const std::string& name) const {
    write_directory_atomically(folder_ / name, [&](const fs::path& folder) {
      save_model(inputs_.student, folder, scalar_type(recipe_.run.save_dtype));
      if (inputs_.tokenizer) inputs_.tokenizer->save(folder);
      if (!inputs_.draft_vocabulary.empty()) {
        write_draft_vocabulary(folder / kDraftVocabularyFile, inputs_.draft_vocabulary);
      }
    });
  }

  const Recipe& recipe_;
  const at::Device device_;
  const fs::path folder_;
  RunInputs inputs_;
  const std::vector<Phase> phases_;
  TrainingState state_;
  std::optional<Checkpointed> resumed_;
  std::optional<MetricsLog> metrics_;
};

}  // namespace

RunSummary train(const Recipe& recipe, RunInputs inputs, const RunOptions& options) {
  return Trainer(recipe, std::move(inputs), options.device).run(options);
}

}  // namespace mambify
