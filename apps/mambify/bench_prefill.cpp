// mambify bench prefill: how fast prompts are read, against the machine's measured arithmetic.
#include <fmt/format.h>

#include <memory>

#include "bench_load.h"
#include "bench_verbs.h"
#include "decoding_options.h"

namespace mambify {
namespace {

struct BenchPrefillOptions {
  CommonOptions common;
  BenchModelOptions model;
  std::string weights = "native";
  std::vector<int64_t> lengths = {2048, 8192, 32768};
  int64_t runs = 3;
};

// Of reading a token of a prompt, whose `length` tokens attention reads half of on average. The
// output matrix is multiplied by the last one only.
double flop_per_token(const Model& model, int64_t length) {
  Model view = model;  // tensors are handles: nothing is copied
  int64_t weights = 0;
  for_each_parameter(view, [&](const std::string& name, at::Tensor& tensor) {
    if (tensor.dim() == 2 && name != "embedding" && name != "lm_head") weights += tensor.numel();
  });
  const AttentionConfig& attention = model.config.attention;
  const int64_t read =
      model.config.count(MixerKind::attention) * attention.n_heads * attention.head_dim * length;
  return 2.0 * static_cast<double>(weights + read);
}

struct Measured {
  int64_t length;
  double seconds;  // to the first token
  double gigaflops;
};

Measured measure(const Model& model, const PackedWeights& packed,
                 const BenchPrefillOptions& options, int64_t length) {
  const DecodeLoad load{.batch = 1, .context = length, .tokens = 0, .runs = options.runs};
  std::vector<double> seconds;
  Engine engine(model, /*tokenizer=*/nullptr, engine_options_of(load, packed));
  for (int64_t run = 0; run <= options.runs; ++run) {
    // Of another seed each time: what a row has read already would not be read again.
    std::vector<GenerationRequest> requests =
        requests_of(load, model.config, options.common.seed + static_cast<uint64_t>(run));
    const GenerationResult result = generate(engine, std::move(requests)).front();
    if (run > 0) seconds.push_back(result.prefill_seconds);  // the first warms up
  }
  const double middle = median(seconds);
  return {length, middle,
          flop_per_token(model, length) * static_cast<double>(length) / middle / 1e9};
}

void run_bench_prefill(const BenchPrefillOptions& options) {
  apply_common_options(options.common, Devices::cpu_or_cuda);
  // First: LibTorch's CUDA library cannot be loaded later.
  const double ceiling = measured_gemm_gigaflops(options.common);
  const Model model = bench_model(options.model, options.common);
  const PackedWeights packed = pack_weights(model, options.weights, options.common);
  std::vector<Measured> all;
  for (const int64_t length : options.lengths) {
    all.push_back(measure(model, packed, options, length));
  }
  if (options.common.json) {
    nlohmann::json lengths = nlohmann::json::array();
    for (const Measured& m : all) {
      lengths.push_back({{"length", m.length},
                         {"prefill_tokens_per_second", static_cast<double>(m.length) / m.seconds},
                         {"seconds_to_first_token", m.seconds},
                         {"achieved_gigaflops", m.gigaflops},
                         {"fraction_of_gemm_rate", m.gigaflops / ceiling}});
    }
    print_json({{"prompts", lengths},
                {"machine", bench_machine(options.common)},
                {"dtype", options.common.dtype},
                {"weights", options.weights},
                {"measured_gemm_gigaflops", ceiling}});
    return;
  }
  for (const Measured& m : all) {
    fmt::print(
        "prefill  {:7} tokens: {:.1f} tokens/s, {:.1f} ms to the first token, {:.1f} GFLOP/s of "
        "{:.1f} GFLOP/s measured here: {:.0f} %\n",
        m.length, static_cast<double>(m.length) / m.seconds, m.seconds * 1e3, m.gigaflops, ceiling,
        100 * m.gigaflops / ceiling);
  }
  fmt::print("machine  {}, {}, {} weights, median of {}\n", bench_machine(options.common),
             options.common.dtype, options.weights, options.runs);
}

}  // namespace

void add_bench_prefill(CLI::App& bench) {
  CLI::App* verb = bench.add_subcommand("prefill", "Reading prompts");
  auto options = std::make_shared<BenchPrefillOptions>();
  add_bench_model_options(*verb, options->model);
  verb->add_option("--lengths", options->lengths, "tokens of the prompts, such as 2048,8192")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  verb->add_option("--runs", options->runs, "prompts of each length; the median counts")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  add_weights_option(*verb, options->weights);
  add_common_options(*verb, options->common);
  verb->callback([options] { run_bench_prefill(*options); });
}

}  // namespace mambify
