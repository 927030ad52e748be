// mambify bench: speed, beside what the machine was measured to be able to do in the same run.
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>

#include "bench_verbs.h"
#include "checkpoint_options.h"
#include "core/error.h"
#include "kernels/cuda/product_rate.h"
#include "kernels/cuda/read_rate.h"
#include "kernels/cuda/runtime.h"
#include "model/load.h"
#include "ops/cuda.h"
#include "shape.h"
#include "verbs.h"

namespace mambify {

void add_bench_model_options(CLI::App& verb, BenchModelOptions& options) {
  auto* group = verb.add_option_group("model");
  add_model_option(*group, "--model", options.model, "the model");
  group->add_option("--shape", options.shape, "a TOML file with a model's sizes: random weights");
  group->require_option(1);
}

Model bench_model(const BenchModelOptions& options, const CommonOptions& common) {
  return bench_model(options, common, /*alike=*/cuda_device(common).has_value());
}

Model bench_model(const BenchModelOptions& options, const CommonOptions& common, bool alike) {
  return options.shape.empty()
             ? load_model(options.model, compute_dtype(common))
             : random_model(options.shape, compute_dtype(common), common.seed, alike);
}

double measured_read_gigabytes_per_second(const CommonOptions& common) {
  const std::optional<int> device = cuda_device(common);
  if (!device) return measured_read_gigabytes_per_second();
  kernels::use_cuda_device(*device);
  return kernels::cuda_read_gigabytes_per_second();
}

double measured_gemm_gigaflops(const CommonOptions& common) {
  const std::optional<int> device = cuda_device(common);
  if (!device) return measured_gemm_gigaflops(compute_dtype(common), at::kCPU);
  kernels::use_cuda_device(*device);
  try {
    return measured_gemm_gigaflops(compute_dtype(common), load_torch_cuda(*device));
  } catch (const Error&) {
    return kernels::cuda_product_gigaflops();
  }
}

std::string bench_machine(const CommonOptions& common) {
  if (!cuda_device(common)) return fmt::format("{} threads", at::get_num_threads());
  return kernels::cuda_device_name();
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t n = values.size();
  return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

void add_bench(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("bench", "Speed, beside the machine's own limits");
  verb->require_subcommand(1);
  add_bench_decode(*verb);
  add_bench_prefill(*verb);
  add_bench_speculate(*verb);
  add_bench_train(*verb);
}

}  // namespace mambify
