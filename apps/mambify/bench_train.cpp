// mambify bench train: a step of training, its arithmetic against the machine's measured rate.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "bench_verbs.h"
#include "checkpoint_options.h"
#include "convert/convert.h"
#include "convert/layer_plan.h"
#include "core/random.h"
#include "device_profile.h"
#include "distill/optimizer.h"
#include "distill/parameters.h"
#include "distill/stages.h"

namespace mambify {
namespace {

struct BenchTrainOptions {
  CommonOptions common;
  BenchModelOptions teacher;
  std::string attention_fraction = "1/4";
  std::string mixer = "mamba2";
  std::string stage = "distill", train = "mixers";
  bool activation_checkpointing = false;
  bool profile = false;
  int64_t batch = 4;
  int64_t length = 512;
  int64_t runs = 5;
};

StageSection section_of(const BenchTrainOptions& options) {
  StageSection stage;
  stage.kind = options.stage == "align" ? StageKind::align : StageKind::distill;
  stage.train = options.train == "all" ? TrainSet::all : TrainSet::mixers;
  stage.learning_rate = stage.learning_rate_rest = 1e-6;  // random weights stay what they are
  return stage;
}

// Documents of random tokens, all of which count.
Batch random_batch(const BenchTrainOptions& options, int64_t vocab_size) {
  const CounterRandom random(options.common.seed, RandomPurpose::init);
  const int64_t tokens = options.batch * options.length;
  Batch batch;
  for (int64_t t = 0; t < tokens; ++t) {
    batch.ids.push_back(random.bits(0, static_cast<uint32_t>(t)) % vocab_size);
    batch.labels.push_back(random.bits(1, static_cast<uint32_t>(t)) % vocab_size);
  }
  batch.weights.assign(tokens, 1);
  batch.segments.starts = {0};
  for (int64_t i = 1; i <= options.batch; ++i) {
    batch.segments.starts.push_back(i * options.length);
  }
  return batch;
}

// A teacher, the student that is trained, and its optimizer.
struct Training {
  explicit Training(const BenchTrainOptions& options) : device(compute_device(options.common)) {
    // What is not trained may be the same tensors in all layers.
    teacher = bench_model(options.teacher, options.common, /*alike=*/options.train == "mixers");
    ConvertOptions convert_options;
    convert_options.attention_layers = evenly_kept_layers(
        parse_layer_fraction(options.attention_fraction), teacher.config.n_layer());
    convert_options.mixer = parse_mixer_kind(options.mixer);
    master = convert(teacher, convert_options);
    if (options.train == "all") master = clone(master);
    const at::ScalarType dtype = compute_dtype(options.common);
    to(teacher, device, dtype);
    student = master;
    to(student, device, dtype);
    const StageSection stage = section_of(options);
    std::vector<TrainedParameter> parameters = select_parameters(master, student, stage);
    for (const TrainedParameter& parameter : parameters) {
      trained += parameter.master.numel();
      if (parameter.master.dim() == 2) trained_weights += parameter.master.numel();
    }
    optimizer.emplace(std::move(parameters), stage);
  }

  at::Device device;
  Model teacher, student, master;
  std::optional<AdamW> optimizer;
  int64_t trained = 0, trained_weights = 0;  // parameters; and of matrices
};

int64_t matrix_weights(const Model& model, bool with_output) {
  Model view = model;  // tensors are handles: nothing is copied
  int64_t count = 0;
  for_each_parameter(view, [&](const std::string& name, at::Tensor& tensor) {
    if (tensor.dim() == 2 && name != "embedding" && name != "lm_head") count += tensor.numel();
  });
  return count + (with_output ? model.lm_head.numel() : 0);
}

// Multiply-adds count twice. A matrix takes 2 a weight and token forward, 2 for the gradient of its
// input and 2 for its own if it is trained. Attention and the scans are small beside it and not
// counted, so the fraction is of useful work, from below.
double flop_per_token(const Training& training, const StageSection& stage) {
  const auto trained = static_cast<double>(training.trained_weights);
  if (stage.kind == StageKind::align) {
    // Each mixer alone behind the teacher's states: no gradient of what is in front of it.
    return 2.0 * static_cast<double>(matrix_weights(training.teacher, false)) + 4 * trained;
  }
  return 2.0 * static_cast<double>(matrix_weights(training.teacher, true)) +
         4.0 * static_cast<double>(matrix_weights(training.student, true)) + 2 * trained;
}

// One step, to its end; returns its seconds.
double time_step(Objective& objective, AdamW& optimizer, const Batch& batch) {
  const auto start = std::chrono::steady_clock::now();
  const LossTensors losses = objective.accumulate(batch, /*share=*/1);
  optimizer.collect_gradients();
  const at::Tensor norm = optimizer.gradient_norm();
  optimizer.step(/*rate_factor=*/1, norm, /*clip=*/1, losses.total);
  losses.read();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

nlohmann::json memory_of(const Training& training, at::ScalarType dtype) {
  const auto peak = static_cast<double>(peak_device_bytes(training.device));
  const auto trained = static_cast<double>(training.trained);
  const auto weights = static_cast<double>(parameter_bytes({&training.teacher, &training.student}));
  const double master = dtype == at::kFloat ? 0 : 4 * trained;
  // In fp32: those of the compute type are gone as they are collected.
  const double moments = 8 * trained, gradients = 4 * trained;
  return {{"peak", peak},
          {"weights", weights},
          {"fp32_weights", master},
          {"moments", moments},
          {"gradients", gradients},
          {"activations_and_logits", peak - weights - master - moments - gradients}};
}

void print_text(const BenchTrainOptions& options, const nlohmann::json& result) {
  const auto number = [&](const char* key) { return result[key].get<double>(); };
  fmt::print(
      "train   {:.1f} tokens/s (a step of {}, {} trained, {} x {} tokens, {}, {}, median of {})\n"
      "matrix  {:.1f} GFLOP/s of {:.1f} GFLOP/s measured here: {:.0f} %\n",
      number("tokens_per_second"), options.stage, options.train, options.batch, options.length,
      options.common.dtype, result["machine"].get<std::string>(), options.runs,
      number("achieved_gigaflops"), number("measured_gemm_gigaflops"),
      100 * number("fraction_of_gemm_rate"));
  if (result.contains("memory")) {
    fmt::print("memory ");
    for (const auto& [part, bytes] : result["memory"].items()) {
      fmt::print(" {} {:.2f} GB", part, bytes.get<double>() / 1e9);
    }
    fmt::print("\n");
  }
  if (!result.contains("kernels")) return;
  fmt::print("{:>9} {:>6} {:>7}  kernel\n", "ms a step", "share", "calls");
  for (const auto& kernel : result["kernels"]) {
    fmt::print("{:>9.3f} {:>5.1f} % {:>7}  {}\n", kernel["milliseconds"].get<double>(),
               100 * kernel["share"].get<double>(), kernel["calls"].get<int64_t>(),
               kernel["name"].get<std::string>());
  }
}

void run_bench_train(const BenchTrainOptions& options) {
  apply_common_options(options.common, Devices::cpu_or_cuda);
  Training training(options);
  const StageSection stage = section_of(options);
  const auto objective = stage.kind == StageKind::align
                             ? make_align(training.teacher, training.student)
                             : make_distill(training.teacher, training.student, stage,
                                            options.activation_checkpointing);
  const Batch batch = random_batch(options, training.teacher.config.vocab_size);
  const auto tokens = static_cast<double>(batch.tokens());
  const auto step = [&] { return time_step(*objective, *training.optimizer, batch); };
  std::vector<double> rates;
  for (int64_t run = 0; run <= options.runs; ++run) {
    const double seconds = step();
    if (run > 0) rates.push_back(tokens / seconds);  // the first warms up
  }
  const at::ScalarType dtype = compute_dtype(options.common);
  const double rate = median(rates);
  const double achieved = rate * flop_per_token(training, stage) / 1e9;
  const double ceiling = measured_gemm_gigaflops(dtype, training.device);
  nlohmann::json result = {{"tokens_per_second", rate},
                           {"stage", options.stage},
                           {"train", options.train},
                           {"batch", options.batch},
                           {"length", options.length},
                           {"machine", bench_machine(options.common)},
                           {"dtype", options.common.dtype},
                           {"achieved_gigaflops", achieved},
                           {"measured_gemm_gigaflops", ceiling},
                           {"fraction_of_gemm_rate", achieved / ceiling}};
  if (training.device.is_cuda()) result["memory"] = memory_of(training, dtype);
  if (options.profile) result["kernels"] = profile_device(step);
  if (options.common.json) {
    print_json(result);
  } else {
    print_text(options, result);
  }
}

}  // namespace

void add_bench_train(CLI::App& bench) {
  CLI::App* verb = bench.add_subcommand("train", "A step of training, with random text");
  auto options = std::make_shared<BenchTrainOptions>();
  add_bench_model_options(*verb, options->teacher);
  verb->add_option("--attention-fraction", options->attention_fraction,
                   "of the student's layers, those that keep attention")
      ->capture_default_str();
  verb->add_option("--mixer", options->mixer, "what the others become: mamba2 or mamba1")
      ->check(CLI::IsMember({"mamba2", "mamba1"}))
      ->capture_default_str();
  verb->add_option("--stage", options->stage,
                   "align: each mixer against the attention it replaces; distill: end to end, as "
                   "in stages stepwise and distill")
      ->check(CLI::IsMember({"align", "distill"}))
      ->capture_default_str();
  verb->add_option("--train", options->train, "mixers, or all: every parameter")
      ->check(CLI::IsMember({"mixers", "all"}))
      ->capture_default_str();
  verb->add_flag("--activation-checkpointing", options->activation_checkpointing,
                 "recompute each block in the backward pass");
  verb->add_flag("--profile", options->profile, "the time of each kernel of a CUDA device");
  const auto count = [&](const char* flag, int64_t& value, const char* help) {
    verb->add_option(flag, value, help)->check(CLI::Range(1, 1 << 24))->capture_default_str();
  };
  count("--batch", options->batch, "documents in a step");
  count("--length", options->length, "tokens of a document");
  count("--runs", options->runs, "steps; the median counts");
  add_common_options(*verb, options->common);
  verb->callback([options] { run_bench_train(*options); });
}

}  // namespace mambify
