// mambify bench train: a step of distillation, its arithmetic against the machine's measured rate.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randint.h>
#include <fmt/format.h>

#include <chrono>
#include <memory>

#include "bench_verbs.h"
#include "convert/convert.h"
#include "convert/layer_plan.h"
#include "distill/optimizer.h"
#include "distill/parameters.h"
#include "distill/student_forward.h"
#include "ops/linear_kl.h"

namespace mambify {
namespace {

struct BenchTrainOptions {
  CommonOptions common;
  BenchModelOptions teacher;
  std::string attention_fraction = "1/4";
  int64_t batch = 4;
  int64_t length = 512;
  int64_t runs = 5;
};

// Multiply-adds count twice. A matrix of n weights takes 2 n a token forward and 4 n more backward:
// 8 n for student and teacher. Attention and the scans are small beside it and not counted, so the
// fraction is of useful work, from below.
double flop_per_token(const Model& teacher, const Model& student) {
  const auto matrix_weights = [](const Model& model) {
    Model view = model;  // tensors are handles: nothing is copied
    int64_t count = 0;
    for_each_parameter(view, [&](const std::string& name, at::Tensor& tensor) {
      const bool gathered = name == "embedding" && !model.lm_head.is_same(model.embedding);
      if (tensor.dim() == 2 && !gathered) count += tensor.numel();
    });
    return static_cast<double>(count);
  };
  return 2 * matrix_weights(teacher) + 6 * matrix_weights(student);
}

// One step; returns its seconds.
double time_step(const Model& teacher, const Model& student, AdamW& optimizer,
                 const at::Tensor& ids, const BenchTrainOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  Segments segments{{0}};
  for (int64_t i = 1; i <= options.batch; ++i) segments.starts.push_back(i * options.length);
  const Context context =
      make_context(teacher.config, std::move(segments), teacher.embedding.options());
  at::Tensor taught;
  {
    const at::NoGradGuard no_gradients;
    taught = hidden_states(teacher, ids, context);
  }
  const at::Tensor hidden =
      student_hidden_states(student, ids, context, /*activation_checkpointing=*/false);
  LinearKlInputs inputs;
  inputs.hidden = hidden;
  inputs.weight = student.lm_head;
  inputs.teacher_hidden = taught;
  inputs.teacher_weight = teacher.lm_head;
  const LinearKlResult loss = linear_kl(inputs, {});
  loss.loss.backward();
  optimizer.collect_gradients();
  optimizer.step(/*rate_factor=*/1, /*gradient_scale=*/1);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void run_bench_train(const BenchTrainOptions& options) {
  apply_common_options(options.common);
  const Model teacher = bench_model(options.teacher, options.common);
  ConvertOptions convert_options;
  convert_options.attention_layers = evenly_kept_layers(
      parse_layer_fraction(options.attention_fraction), teacher.config.n_layer());
  Model student = convert(teacher, convert_options);
  Model master = student;  // the same tensors, unless computed in a smaller type
  if (student.embedding.scalar_type() != at::kFloat) {
    master = clone(student);
    to(master, at::kCPU, at::kFloat);
  }
  AdamW optimizer(select_parameters(master, student, StageSection{}), StageSection{});

  const int64_t tokens = options.batch * options.length;
  const at::Tensor ids = at::randint(teacher.config.vocab_size, {tokens}, at::kLong);
  std::vector<double> rates;
  for (int64_t run = 0; run <= options.runs; ++run) {
    const double seconds = time_step(teacher, student, optimizer, ids, options);
    if (run > 0) rates.push_back(tokens / seconds);  // the first warms up
  }
  const double rate = median(rates);
  const double achieved = rate * flop_per_token(teacher, student) / 1e9;
  const double ceiling = measured_gemm_gigaflops(student.embedding.scalar_type());

  if (options.common.json) {
    print_json({{"tokens_per_second", rate},
                {"batch", options.batch},
                {"length", options.length},
                {"threads", at::get_num_threads()},
                {"dtype", options.common.dtype},
                {"achieved_gigaflops", achieved},
                {"measured_gemm_gigaflops", ceiling},
                {"fraction_of_gemm_rate", achieved / ceiling}});
    return;
  }
  fmt::print(
      "train   {:.1f} tokens/s (a step of KL to the teacher and AdamW on {} x {} tokens, {}, {} "
      "threads, median of {})\n"
      "matrix  {:.1f} GFLOP/s of {:.1f} GFLOP/s measured here: {:.0f} %\n",
      rate, options.batch, options.length, options.common.dtype, at::get_num_threads(),
      options.runs, achieved, ceiling, 100 * achieved / ceiling);
}

}  // namespace

void add_bench_train(CLI::App& bench) {
  CLI::App* verb = bench.add_subcommand("train", "A step of distillation");
  auto options = std::make_shared<BenchTrainOptions>();
  add_bench_model_options(*verb, options->teacher);
  verb->add_option("--attention-fraction", options->attention_fraction,
                   "of the student's layers, those that keep attention")
      ->capture_default_str();
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
