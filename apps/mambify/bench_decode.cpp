// mambify bench decode: plain decoding, its memory traffic against the machine's measured rate.
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <memory>

#include "bench_verbs.h"
#include "core/random.h"
#include "decode/engine.h"

namespace mambify {
namespace {

struct BenchDecodeOptions {
  CommonOptions common;
  BenchModelOptions model;
  int64_t batch = 1;
  int64_t context = 128;
  int64_t tokens = 64;
  int64_t runs = 5;
};

// Bytes of weights that a decoding step reads: all but an embedding of its own, of which it reads a
// row for each sequence.
int64_t weight_bytes(const Model& model) {
  Model view = model;  // tensors are handles: nothing is copied
  int64_t bytes = 0;
  for_each_parameter(view, [&](const std::string& name, at::Tensor& tensor) {
    const bool gathered = name == "embedding" && !model.lm_head.is_same(model.embedding);
    if (!gathered) bytes += static_cast<int64_t>(tensor.nbytes());
  });
  return bytes;
}

// Bytes of state that a decoding step reads for each sequence: recurrent state whole, keys and
// values of the tokens seen.
int64_t state_bytes(const Model& model, int64_t tokens_seen) {
  // Recurrent state does not grow, so a state of one row and a given capacity tells the sizes.
  return ModelState(model.config, 1, tokens_seen, model.embedding.options()).bytes();
}

std::vector<GenerationRequest> make_requests(const BenchDecodeOptions& options,
                                             const Model& model) {
  const CounterRandom random(options.common.seed, RandomPurpose::init);
  std::vector<GenerationRequest> requests(options.batch);
  for (int64_t i = 0; i < options.batch; ++i) {
    requests[i].max_tokens = options.tokens + 1;  // the first comes with the prompt
    for (int64_t t = 0; t < options.context; ++t) {
      requests[i].prompt.push_back(
          static_cast<TokenId>(random.bits(static_cast<uint32_t>(i), static_cast<uint32_t>(t)) %
                               model.config.vocab_size));
    }
  }
  return requests;
}

void run_bench_decode(const BenchDecodeOptions& options) {
  apply_common_options(options.common);
  const Model model = bench_model(options.model, options.common);
  const std::vector<GenerationRequest> requests = make_requests(options, model);
  std::vector<double> decode, prefill;
  for (int64_t run = 0; run <= options.runs; ++run) {
    Engine engine(model, /*tokenizer=*/nullptr,
                  {.rows = options.batch, .context = options.context + options.tokens + 1});
    const GenerationResult result = generate(engine, requests).front();
    if (run == 0) continue;  // warms up caches and threads
    decode.push_back(options.batch * result.decode_tokens_per_second());
    prefill.push_back(options.batch * result.prefill_tokens_per_second());
  }
  const double rate = median(decode);
  const int64_t weights = weight_bytes(model);
  const int64_t state = state_bytes(model, options.context + options.tokens / 2);
  const double bytes_per_step = static_cast<double>(weights + options.batch * state);
  const double achieved = bytes_per_step * rate / options.batch / 1e9;
  const double ceiling = measured_read_gigabytes_per_second();

  if (options.common.json) {
    print_json({{"decode_tokens_per_second", rate},
                {"prefill_tokens_per_second", median(prefill)},
                {"batch", options.batch},
                {"context", options.context},
                {"threads", at::get_num_threads()},
                {"dtype", options.common.dtype},
                {"weight_bytes", weights},
                {"state_bytes_per_sequence", state},
                {"achieved_gigabytes_per_second", achieved},
                {"measured_gigabytes_per_second", ceiling},
                {"fraction_of_memory_rate", achieved / ceiling}});
    return;
  }
  fmt::print(
      "decode   {:.1f} tokens/s (batch {}, after {} tokens, {}, {} threads, median of {})\n"
      "prefill  {:.1f} tokens/s\n"
      "a step   reads {:.1f} MB of weights and {} x {:.2f} MB of state\n"
      "memory   {:.2f} GB/s of {:.2f} GB/s measured here: {:.0f} %\n",
      rate, options.batch, options.context, options.common.dtype, at::get_num_threads(),
      options.runs, median(prefill), weights / 1e6, options.batch, state / 1e6, achieved, ceiling,
      100 * achieved / ceiling);
}

}  // namespace

void add_bench_decode(CLI::App& bench) {
  CLI::App* verb = bench.add_subcommand("decode", "Plain decoding");
  auto options = std::make_shared<BenchDecodeOptions>();
  add_bench_model_options(*verb, options->model);
  const auto count = [&](const char* flag, int64_t& value, const char* help) {
    verb->add_option(flag, value, help)->check(CLI::Range(1, 1 << 24))->capture_default_str();
  };
  count("--batch", options->batch, "sequences side by side");
  count("--context", options->context, "tokens before the first that is timed");
  count("--tokens", options->tokens, "tokens decoded in a run");
  count("--runs", options->runs, "runs; the median counts");
  add_common_options(*verb, options->common);
  verb->callback([options] { run_bench_decode(*options); });
}

}  // namespace mambify
