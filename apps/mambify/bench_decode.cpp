// mambify bench decode: plain decoding, its memory traffic against the machine's measured rate.
#include <fmt/format.h>

#include <memory>

#include "bench_load.h"
#include "bench_verbs.h"
#include "core/error.h"
#include "decoding_options.h"

namespace mambify {
namespace {

struct BenchDecodeOptions {
  CommonOptions common;
  BenchModelOptions model;
  DecodeLoad load;
  // Of a table: every batch with every context, instead of the load's own.
  std::vector<int64_t> batches, contexts;
  std::string weights = "native";
};

// What one load gives; or why it cannot be run.
struct Cell {
  DecodeLoad load;
  double decode = 0, prefill = 0;  // tokens per second
  StepBytes bytes = {};
  int64_t row_bytes = 0;  // of the states and what passes work in
  std::string error;

  double achieved() const {
    return static_cast<double>(bytes.weights + load.batch * bytes.state) * decode /
           static_cast<double>(load.batch) / 1e9;
  }
};

Cell measure(const Model& model, const PackedWeights& packed, const DecodeLoad& load,
             uint64_t seed) {
  Cell cell{.load = load, .bytes = step_bytes(model, packed, load), .error = ""};
  const std::vector<GenerationRequest> requests = requests_of(load, model.config, seed);
  std::vector<double> decode, prefill;
  for (int64_t run = 0; run <= load.runs; ++run) {
    Engine engine(model, /*tokenizer=*/nullptr, engine_options_of(load, packed));
    cell.row_bytes = engine.bytes();
    const LoadRates rates = run_load(engine, load, requests);
    if (run == 0) continue;  // warms up caches and threads
    decode.push_back(rates.decode);
    prefill.push_back(rates.prefill);
  }
  cell.decode = median(decode);
  cell.prefill = median(prefill);
  return cell;
}

nlohmann::json json_of(const Cell& cell, const PackedWeights& packed, double ceiling) {
  if (!cell.error.empty()) {
    return {{"batch", cell.load.batch}, {"context", cell.load.context}, {"error", cell.error}};
  }
  return {{"decode_tokens_per_second", cell.decode},
          {"prefill_tokens_per_second", cell.prefill},
          {"batch", cell.load.batch},
          {"context", cell.load.context},
          {"weight_bytes", cell.bytes.weights},
          {"state_bytes_per_sequence", cell.bytes.state},
          {"memory_bytes", packed.bytes() + cell.row_bytes},
          {"achieved_gigabytes_per_second", cell.achieved()},
          {"measured_gigabytes_per_second", ceiling},
          {"fraction_of_memory_rate", cell.achieved() / ceiling}};
}

void run_table(const BenchDecodeOptions& options, const Model& model, const PackedWeights& packed) {
  const auto or_own = [](const std::vector<int64_t>& all, int64_t own) {
    return all.empty() ? std::vector<int64_t>{own} : all;
  };
  std::vector<Cell> cells;
  for (const int64_t context : or_own(options.contexts, options.load.context)) {
    for (const int64_t batch : or_own(options.batches, options.load.batch)) {
      DecodeLoad load = options.load;
      load.batch = batch;
      load.context = context;
      try {
        cells.push_back(measure(model, packed, load, options.common.seed));
      } catch (const Error& error) {  // such as too little memory
        cells.push_back({.load = load, .error = error.what()});
      }
    }
  }
  const double ceiling = measured_read_gigabytes_per_second(options.common);
  if (options.common.json) {
    nlohmann::json all = nlohmann::json::array();
    for (const Cell& cell : cells) all.push_back(json_of(cell, packed, ceiling));
    print_json({{"cells", all},
                {"machine", bench_machine(options.common)},
                {"dtype", options.common.dtype},
                {"weights", options.weights}});
    return;
  }
  for (const Cell& cell : cells) {
    fmt::print("batch {:5}, context {:7}: ", cell.load.batch, cell.load.context);
    if (!cell.error.empty()) {
      fmt::print("{}\n", cell.error);
    } else {
      fmt::print("{:.1f} tokens/s, {:.2f} GB, {:.0f} % of the memory's rate\n", cell.decode,
                 static_cast<double>(packed.bytes() + cell.row_bytes) / 1e9,
                 100 * cell.achieved() / ceiling);
    }
  }
}

void run_bench_decode(const BenchDecodeOptions& options) {
  apply_common_options(options.common, Devices::cpu_or_cuda);
  const Model model = bench_model(options.model, options.common);
  const PackedWeights packed = pack_weights(model, options.weights, options.common);
  if (!options.batches.empty() || !options.contexts.empty()) {
    return run_table(options, model, packed);
  }
  const Cell cell = measure(model, packed, options.load, options.common.seed);
  const double ceiling = measured_read_gigabytes_per_second(options.common);
  if (options.common.json) {
    nlohmann::json json = json_of(cell, packed, ceiling);
    json.update({{"machine", bench_machine(options.common)},
                 {"dtype", options.common.dtype},
                 {"weights", options.weights}});
    print_json(json);
    return;
  }
  const DecodeLoad& load = cell.load;
  fmt::print(
      "decode   {:.1f} tokens/s (batch {}, after {} tokens, {}, {} weights, {}, median of "
      "{})\n"
      "prefill  {:.1f} tokens/s\n"
      "a step   reads {:.1f} MB of weights and {} x {:.2f} MB of state\n"
      "holds    {:.1f} MB of weights and {:.1f} MB of states and what passes work in\n"
      "memory   {:.2f} GB/s of {:.2f} GB/s measured here: {:.0f} %\n",
      cell.decode, load.batch, load.context, options.common.dtype, options.weights,
      bench_machine(options.common), load.runs, cell.prefill, cell.bytes.weights / 1e6, load.batch,
      cell.bytes.state / 1e6, packed.bytes() / 1e6, cell.row_bytes / 1e6, cell.achieved(), ceiling,
      100 * cell.achieved() / ceiling);
}

}  // namespace

void add_bench_decode(CLI::App& bench) {
  CLI::App* verb = bench.add_subcommand("decode", "Plain decoding");
  auto options = std::make_shared<BenchDecodeOptions>();
  add_bench_model_options(*verb, options->model);
  add_load_options(*verb, options->load);
  const auto list = [&](const char* flag, std::vector<int64_t>& values, const char* help) {
    verb->add_option(flag, values, help)->delimiter(',')->check(CLI::Range(1, 1 << 24));
  };
  list("--batches", options->batches, "instead of --batch, such as 1,8,64: a line for each");
  list("--contexts", options->contexts, "instead of --context, such as 2048,32768");
  verb->add_flag(
      "--random-context", options->load.random_context,
      "instead of reading the context, fill states and caches with random numbers (CUDA)");
  add_weights_option(*verb, options->weights);
  add_common_options(*verb, options->common);
  verb->callback([options] { run_bench_decode(*options); });
}

}  // namespace mambify
