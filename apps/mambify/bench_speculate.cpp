// mambify bench speculate: speculative decoding beside plain decoding of the same sequences.
#include <fmt/format.h>

#include <memory>
#include <optional>

#include "bench_load.h"
#include "bench_verbs.h"
#include "core/error.h"
#include "core/random.h"
#include "decoding_options.h"

namespace mambify {
namespace {

struct BenchSpeculateOptions {
  CommonOptions common;
  BenchModelOptions model;
  DecodeLoad load;
  std::vector<int64_t> draft_lengths = {1, 2, 3, 4, 6, 8};
  double acceptance = 0.8;
  std::string draft;
  std::string weights = "native";
};

// Knows what the sequences are and guesses each next token rightly with a given probability, at no
// cost: what is left is the price of verifying. With a drafter beside it, that guesses too, for the
// time that it takes.
class KnowingDrafter : public Drafter {
 public:
  KnowingDrafter(const std::vector<GenerationRequest>& requests,
                 const std::vector<GenerationResult>& plain, double acceptance, int64_t vocabulary,
                 uint64_t seed, Drafter* beside)
      : acceptance_(acceptance), vocabulary_(vocabulary), seed_(seed), beside_(beside) {
    for (size_t i = 0; i < plain.size(); ++i) {
      truth_.push_back(requests[i].prompt);
      truth_[i].insert(truth_[i].end(), plain[i].ids.begin(), plain[i].ids.end());
    }
  }

  std::vector<Draft> draft(std::span<const DraftRequest> requests) override {
    if (beside_ != nullptr) beside_->draft(requests);
    std::vector<Draft> drafts;
    for (const DraftRequest& request : requests) {
      const CounterRandom random(seed_, RandomPurpose::accept, request.sequence);
      const std::vector<TokenId>& truth = truth_[request.sequence];
      std::vector<TokenId>& draft = drafts.emplace_back().tokens;
      for (size_t at = request.tokens.size();
           static_cast<int64_t>(draft.size()) < request.length && at < truth.size(); ++at) {
        const bool right = random.uniform(static_cast<uint32_t>(at), 0) < acceptance_;
        draft.push_back(right ? truth[at] : static_cast<TokenId>((truth[at] + 1) % vocabulary_));
      }
    }
    return drafts;
  }

 private:
  double acceptance_;
  int64_t vocabulary_;
  uint64_t seed_;
  Drafter* beside_;
  std::vector<std::vector<TokenId>> truth_;  // by sequence, prompts included
};

// Of all sequences of one run, side by side from beginning to end.
struct Speed {
  double tokens_per_second = 0, seconds_per_pass = 0, tokens_per_pass = 0, accepted = 0;
};

Speed speed_of(const std::vector<GenerationResult>& results) {
  double seconds = 0;
  int64_t tokens = 0, passes = 0, cycles = 0, drafted = 0, accepted = 0;
  for (const GenerationResult& result : results) {
    seconds = std::max(seconds, result.decode_seconds);
    passes = std::max(passes, result.cycles);
    tokens += static_cast<int64_t>(result.ids.size()) - 1;
    cycles += result.cycles;
    drafted += result.drafted;
    accepted += result.accepted;
  }
  return {
      .tokens_per_second = static_cast<double>(tokens) / seconds,
      .seconds_per_pass = seconds / static_cast<double>(passes),
      .tokens_per_pass = static_cast<double>(tokens) / static_cast<double>(cycles),
      .accepted = drafted > 0 ? static_cast<double>(accepted) / static_cast<double>(drafted) : 0};
}

Speed median_of(const std::vector<Speed>& runs) {
  const auto middle = [&](double Speed::*part) {
    std::vector<double> values;
    for (const Speed& run : runs) values.push_back(run.*part);
    return median(values);
  };
  return {.tokens_per_second = middle(&Speed::tokens_per_second),
          .seconds_per_pass = middle(&Speed::seconds_per_pass),
          .tokens_per_pass = middle(&Speed::tokens_per_pass),
          .accepted = middle(&Speed::accepted)};
}

// A draft model as `generate` has it by default: the format, and the tokens that it guesses among.
struct DraftModel {
  DraftModel(const BenchSpeculateOptions& options, const ModelConfig& target)
      : model(bench_model(options.draft.ends_with(".toml")
                              ? BenchModelOptions{.model = "", .shape = options.draft}
                              : BenchModelOptions{.model = options.draft, .shape = ""},
                          options.common)) {
    if (model.config.vocab_size != target.vocab_size) {
      throw Error("{}: a vocabulary of {} tokens, that of the model has {}", options.draft,
                  model.config.vocab_size, target.vocab_size);
    }
    tokens = keep_draft_vocabulary(own_draft_vocabulary(options.draft), model);
    packed.emplace(pack_weights(model, default_draft_weights(options.common), options.common));
  }

  Model model;
  std::vector<TokenId> tokens;  // empty: all
  std::optional<PackedWeights> packed;
};

class Bench {
 public:
  // draft: null, or what guesses beside.
  Bench(const BenchSpeculateOptions& options, const Model& model, const PackedWeights& packed,
        const DraftModel* draft)
      : options_(options),
        model_(model),
        packed_(packed),
        draft_(draft),
        requests_(requests_of(options.load, model.config, options.common.seed)) {}

  Speed plain() {
    return measure([&] {
      Engine engine(model_, /*tokenizer=*/nullptr, engine_options_of(options_.load, packed_));
      return plain_ = generate(engine, requests_);
    });
  }

  Speed speculative(int64_t draft_length) {
    EngineOptions decoding = engine_options_of(options_.load, packed_);
    const std::unique_ptr<Drafter> beside =
        draft_ == nullptr ? nullptr
                          : model_drafter(draft_->model, decoding.rows, decoding.context,
                                          draft_length, &*draft_->packed, draft_->tokens);
    KnowingDrafter drafter(requests_, plain_, options_.acceptance, model_.config.vocab_size,
                           options_.common.seed, beside.get());
    decoding.drafter = &drafter;
    decoding.draft_length = draft_length;
    return measure([&] {
      Engine engine(model_, /*tokenizer=*/nullptr, decoding);
      std::vector<GenerationResult> results = generate(engine, requests_);
      for (size_t i = 0; i < results.size(); ++i) {
        if (results[i].ids != plain_[i].ids) {
          throw Error("speculation with {} drafts changed the tokens of sequence {}", draft_length,
                      i);
        }
      }
      return results;
    });
  }

 private:
  template <typename Run>
  Speed measure(const Run& run) const {
    std::vector<Speed> speeds;
    for (int64_t i = 0; i <= options_.load.runs; ++i) {
      const Speed speed = speed_of(run());
      if (i > 0) speeds.push_back(speed);  // the first warms up caches and threads
    }
    return median_of(speeds);
  }

  const BenchSpeculateOptions& options_;
  const Model& model_;
  const PackedWeights& packed_;
  const DraftModel* draft_;
  const std::vector<GenerationRequest> requests_;
  std::vector<GenerationResult> plain_;
};

void run_bench_speculate(const BenchSpeculateOptions& options) {
  apply_common_options(options.common, Devices::cpu_or_cuda);
  const Model model = bench_model(options.model, options.common);
  const PackedWeights packed = pack_weights(model, options.weights, options.common);
  std::optional<DraftModel> draft;
  if (!options.draft.empty()) draft.emplace(options, model.config);
  Bench bench(options, model, packed, draft ? &*draft : nullptr);
  const Speed plain = bench.plain();
  const StepBytes bytes = step_bytes(model, packed, options.load);
  const double step_gigabytes =
      static_cast<double>(bytes.weights + options.load.batch * bytes.state) / 1e9;
  const double ceiling = measured_read_gigabytes_per_second(options.common);

  nlohmann::json rows = nlohmann::json::array();
  if (!options.common.json) {
    fmt::print(
        "plain: {:.1f} tokens/s, {:.2f} GB/s of {:.2f} GB/s measured here ({}, {} weights, "
        "{})\n",
        plain.tokens_per_second, step_gigabytes / plain.seconds_per_pass, ceiling,
        options.common.dtype, options.weights, bench_machine(options.common));
    fmt::print("{:>6} {:>12} {:>14} {:>10} {:>10} {:>9}\n", "drafts", "accepted", "tokens/cycle",
               draft ? "cycle" : "verify", "tokens/s", "speed-up");
  }
  for (int64_t draft_length : options.draft_lengths) {
    const Speed speed = bench.speculative(draft_length);
    const double pass = speed.seconds_per_pass / plain.seconds_per_pass;
    const double gain = speed.tokens_per_second / plain.tokens_per_second;
    rows.push_back({{"draft_length", draft_length},
                    {"acceptance", speed.accepted},
                    {"tokens_per_cycle", speed.tokens_per_pass},
                    {draft ? "cycle_over_plain_step" : "verify_over_plain_step", pass},
                    {"tokens_per_second", speed.tokens_per_second},
                    {"speed_up", gain}});
    if (!options.common.json) {
      fmt::print("{:>6} {:>12.3f} {:>14.2f} {:>9.2f}x {:>10.1f} {:>8.2f}x\n", draft_length,
                 speed.accepted, speed.tokens_per_pass, pass, speed.tokens_per_second, gain);
    }
  }
  if (options.common.json) {
    print_json({{"plain_tokens_per_second", plain.tokens_per_second},
                {"batch", options.load.batch},
                {"context", options.load.context},
                {"machine", bench_machine(options.common)},
                {"dtype", options.common.dtype},
                {"weights", options.weights},
                {"achieved_gigabytes_per_second", step_gigabytes / plain.seconds_per_pass},
                {"measured_gigabytes_per_second", ceiling},
                {"speculation", rows}});
  }
}

}  // namespace

void add_bench_speculate(CLI::App& bench) {
  CLI::App* verb = bench.add_subcommand(
      "speculate", "Speculative beside plain decoding, with guesses of a given quality");
  auto options = std::make_shared<BenchSpeculateOptions>();
  add_bench_model_options(*verb, options->model);
  verb->add_option("--draft-lengths", options->draft_lengths, "tokens guessed at once, e.g. 2,4")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, kMaxDraftLength));
  verb->add_option("--acceptance", options->acceptance, "probability that a guess is right")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb->add_option("--draft", options->draft,
                   "a draft model, a checkpoint or a TOML file with sizes: its time counts, its "
                   "guesses are replaced by those of --acceptance");
  add_load_options(*verb, options->load);
  add_weights_option(*verb, options->weights);
  add_common_options(*verb, options->common);
  verb->callback([options] { run_bench_speculate(*options); });
}

}  // namespace mambify
