#include "distill/trainer.h"

#include <ATen/core/grad_mode.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <cmath>

#include "convert/convert.h"
#include "core/error.h"
#include "core/progress.h"
#include "distill/checkpoint.h"
#include "distill/metrics.h"
#include "distill/optimizer.h"
#include "distill/report.h"
#include "distill/schedule.h"
#include "distill/stages.h"
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

class Trainer {
 public:
  Trainer(const Recipe& recipe, RunInputs inputs)
      : recipe_(recipe),
        folder_(recipe.run.dir),
        inputs_(std::move(inputs)),
        stream_(inputs_.data, recipe.data.sequence_length, recipe.run.seed),
        phases_(plan_phases(recipe, inputs_.student.config.n_layer())) {
    for_each_parameter(inputs_.teacher,
                       [](const std::string&, at::Tensor& t) { t.set_requires_grad(false); });
    to(inputs_.teacher, at::kCPU, scalar_type(recipe.run.dtype));
  }

  RunSummary run(const RunOptions& options) {
    open_folder(options);
    while (state_.phase < std::ssize(phases_)) run_phase();
    write_final();
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
    if (phase.keep_attention && state_.phase_step == 0) {
      convert_in_place(inputs_.student, conversion(recipe_, *phase.keep_attention));
    }
    Model compute = inputs_.student;  // handles: the same tensors under fp32
    to(compute, at::kCPU, scalar_type(recipe_.run.dtype));
    AdamW optimizer(select_parameters(inputs_.student, compute, stage), stage);
    if (resumed_ && state_.phase_step > 0) load_optimizer(*resumed_, optimizer);
    resumed_.reset();
    const auto objective =
        stage.kind == StageKind::align
            ? make_align(inputs_.teacher, compute)
            : make_distill(inputs_.teacher, compute, stage, recipe_.run.activation_checkpointing);

    const auto start = Clock::now();
    const double earlier_seconds = state_.phase_seconds;
    const bool timed = phase.seconds > 0;
    Progress progress(std::string(name_of(stage.kind)),
                      timed ? std::lround(phase.seconds) : phase.steps * stage.batch_tokens,
                      timed ? "s" : "tokens");
    double step_seconds = 0;
    const auto done = [&] {
      return timed ? state_.phase_seconds >= phase.seconds : state_.phase_step >= phase.steps;
    };
    while (!done()) {
      const double along =
          timed ? (state_.phase_seconds + step_seconds / 2) / phase.seconds
                : (static_cast<double>(state_.phase_step) + 0.5) / static_cast<double>(phase.steps);
      const auto step_start = Clock::now();
      StepMetrics metrics = step(stage, *objective, optimizer, rate_factor(stage, along));
      step_seconds = seconds_since(step_start);
      state_.phase_seconds = earlier_seconds + seconds_since(start);
      metrics.stage = phase.stage;
      metrics.round = phase.round;
      metrics.seconds = step_seconds;
      metrics.tokens_per_second = static_cast<double>(stage.batch_tokens) / step_seconds;
      if (state_.step % recipe_.run.log_every == 0 || done()) metrics_->append(metrics);
      progress.update(
          timed ? std::lround(state_.phase_seconds) : state_.phase_step * stage.batch_tokens,
          fmt::format("loss {:.4f}", metrics.losses.total));
      stop_when_diverged(stage);
      const int64_t every = recipe_.run.checkpoint_every;
      if (every > 0 && state_.step % every == 0 && !done()) checkpoint(&optimizer);
    }
    for_each_parameter(compute,
                       [](const std::string&, at::Tensor& t) { t.set_requires_grad(false); });
    ++state_.phase;
    state_.phase_step = 0;
    state_.phase_seconds = 0;
    checkpoint(/*optimizer=*/nullptr);
  }

  StepMetrics step(const StageSection& stage, Objective& objective, AdamW& optimizer,
                   double factor) {
    const int64_t part_tokens = stage.batch_tokens / stage.accumulation;
    std::vector<Batch> parts;
    double total_weight = 0;
    for (int64_t i = 0; i < stage.accumulation; ++i) {
      parts.push_back(stream_.batch(state_.tokens + i * part_tokens, part_tokens));
      total_weight += objective.weight(parts.back());
    }
    StepMetrics metrics;
    for (const Batch& part : parts) {
      const double share = objective.weight(part) / std::max(total_weight, 1.0);
      metrics.losses.add(objective.accumulate(part, share), share);
      optimizer.collect_gradients();
    }
    metrics.gradient_norm = optimizer.gradient_norm();

    ++state_.step;
    ++state_.phase_step;
    state_.tokens += stage.batch_tokens;
    if (metrics.losses.is_finite() && std::isfinite(metrics.gradient_norm)) {
      const bool clips = stage.clip > 0 && metrics.gradient_norm > stage.clip;
      optimizer.step(factor, clips ? stage.clip / metrics.gradient_norm : 1);
      state_.skipped_in_row = 0;
    } else {
      optimizer.forget_gradients();
      ++state_.skipped;
      ++state_.skipped_in_row;
      spdlog::warn("step {} skipped: loss {}, gradient norm {}", state_.step, metrics.losses.total,
                   metrics.gradient_norm);
    }
    metrics.kind = name_of(stage.kind);
    metrics.step = state_.step;
    metrics.tokens = state_.tokens;
    metrics.rate = factor * stage.learning_rate;
    metrics.rate_rest = stage.train == TrainSet::all ? factor * stage.learning_rate_rest : 0;
    metrics.skipped = state_.skipped;
    return metrics;
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
    state_.metrics_bytes = metrics_->sync();
    save_checkpoint(folder_, state_, fingerprint(recipe_), inputs_.student, optimizer);
    write_report(recipe_, folder_);
  }

  void write_final() {
    write_directory_atomically(folder_ / "final", [&](const fs::path& folder) {
      save_model(inputs_.student, folder, scalar_type(recipe_.run.save_dtype));
      if (inputs_.tokenizer) inputs_.tokenizer->save(folder);
    });
  }

  const Recipe& recipe_;
  const fs::path folder_;
  RunInputs inputs_;
  PackedStream stream_;
  const std::vector<Phase> phases_;
  TrainingState state_;
  std::optional<Checkpointed> resumed_;
  std::optional<MetricsLog> metrics_;
};

}  // namespace

RunSummary train(const Recipe& recipe, RunInputs inputs, const RunOptions& options) {
  return Trainer(recipe, std::move(inputs)).run(options);
}

}  // namespace mambify
