// mambify bench decode: plain decoding, its memory traffic against the machine's measured rate.
#include <fmt/format.h>

#include <memory>

#include "bench_load.h"
#include "bench_verbs.h"
#include "decoding_options.h"

namespace mambify {
namespace {

struct BenchDecodeOptions {
  CommonOptions common;
  BenchModelOptions model;
  DecodeLoad load;
  std::string weights = "native";
};

void run_bench_decode(const BenchDecodeOptions& options) {
  apply_common_options(options.common, Devices::cpu_or_cuda);
  const Model model = bench_model(options.model, options.common);
  const PackedWeights packed = pack_weights(model, options.weights, options.common);
  const DecodeLoad& load = options.load;
  const std::vector<GenerationRequest> requests =
      requests_of(load, model.config, options.common.seed);
  std::vector<double> decode, prefill;
  for (int64_t run = 0; run <= load.runs; ++run) {
    Engine engine(model, /*tokenizer=*/nullptr, engine_options_of(load, packed));
    const GenerationResult result = generate(engine, requests).front();
    if (run == 0) continue;  // warms up caches and threads
    decode.push_back(load.batch * result.decode_tokens_per_second());
    prefill.push_back(load.batch * result.prefill_tokens_per_second());
  }
  const double rate = median(decode);
  const StepBytes bytes = step_bytes(model, packed, load);
  const double bytes_per_step = static_cast<double>(bytes.weights + load.batch * bytes.state);
  const double achieved = bytes_per_step * rate / load.batch / 1e9;
  const double ceiling = measured_read_gigabytes_per_second(options.common);

  if (options.common.json) {
    print_json({{"decode_tokens_per_second", rate},
                {"prefill_tokens_per_second", median(prefill)},
                {"batch", load.batch},
                {"context", load.context},
                {"machine", bench_machine(options.common)},
                {"dtype", options.common.dtype},
                {"weights", options.weights},
                {"weight_bytes", bytes.weights},
                {"state_bytes_per_sequence", bytes.state},
                {"achieved_gigabytes_per_second", achieved},
                {"measured_gigabytes_per_second", ceiling},
                {"fraction_of_memory_rate", achieved / ceiling}});
    return;
  }
  fmt::print(
      "decode   {:.1f} tokens/s (batch {}, after {} tokens, {}, {} weights, {}, median of "
      "{})\n"
      "prefill  {:.1f} tokens/s\n"
      "a step   reads {:.1f} MB of weights and {} x {:.2f} MB of state\n"
      "memory   {:.2f} GB/s of {:.2f} GB/s measured here: {:.0f} %\n",
      rate, load.batch, load.context, options.common.dtype, options.weights,
      bench_machine(options.common), load.runs, median(prefill), bytes.weights / 1e6, load.batch,
      bytes.state / 1e6, achieved, ceiling, 100 * achieved / ceiling);
}

}  // namespace

void add_bench_decode(CLI::App& bench) {
  CLI::App* verb = bench.add_subcommand("decode", "Plain decoding");
  auto options = std::make_shared<BenchDecodeOptions>();
  add_bench_model_options(*verb, options->model);
  add_load_options(*verb, options->load);
  add_weights_option(*verb, options->weights);
  add_common_options(*verb, options->common);
  verb->callback([options] { run_bench_decode(*options); });
}

}  // namespace mambify
