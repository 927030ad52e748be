// mambify score: negative log-likelihood of one sequence, token by token.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <memory>

#include "checkpoint_options.h"
#include "core/error.h"
#include "eval/passes.h"
#include "io/json_reader.h"
#include "io/safetensors.h"
#include "text/tokenizer.h"
#include "verbs.h"

namespace mambify {
namespace {

using nlohmann::json;

struct ScoreOptions {
  CommonOptions common;
  std::string model, text, ids_file, logits_out;
};

std::vector<TokenId> read_ids(const std::string& path) {
  const json ids = read_json(path);
  if (!ids.is_array()) throw Error("{}: expected a JSON list of token ids", path);
  std::vector<TokenId> result;
  for (const json& id : ids) {
    if (!id.is_number_integer() || id < 0 || id > std::numeric_limits<TokenId>::max()) {
      throw Error("{}: entry {} is {}, expected a token id", path, result.size(), id.dump());
    }
    result.push_back(id.get<TokenId>());
  }
  return result;
}

// [T, vocab_size] in fp32; the one place where a whole sequence's logits are held.
void write_logits(const Model& model, const at::Tensor& hidden, const std::string& path) {
  const at::Tensor all = at::empty({hidden.size(0), model.config.vocab_size}, at::kFloat);
  for_each_logits(model, hidden, [&](int64_t first, const at::Tensor& logits) {
    all.narrow(0, first, logits.size(0)).copy_(logits);
  });
  const TensorToWrite tensor{
      "logits", DType::f32, all.sizes().vec(),
      std::as_bytes(std::span(all.const_data_ptr<float>(), static_cast<size_t>(all.numel())))};
  write_safetensors(path, {&tensor, 1});
}

void run_score(const ScoreOptions& options) {
  apply_common_options(options.common, Devices::cpu_or_cuda);
  const c10::InferenceMode inference;
  const std::vector<TokenId> ids = options.ids_file.empty()
                                       ? Tokenizer::load(options.model).encode_prompt(options.text)
                                       : read_ids(options.ids_file);
  if (ids.size() < 2) {
    throw Error("the sequence has {} tokens, expected at least 2: the first is not predicted",
                ids.size());
  }
  const Model model = load_compute_model(options.model, options.common);
  const auto length = static_cast<int64_t>(ids.size());
  const std::vector<TokenSpan> documents = {ids};
  const Pass pass = make_passes(documents).front();
  const at::Tensor hidden = pass_hidden(model, pass, at::arange(length));
  const at::Tensor nll =
      score_tokens(model, hidden.narrow(0, 0, length - 1), pass.ids.narrow(0, 1, length - 1)).nll;
  if (!options.logits_out.empty()) write_logits(model, hidden, options.logits_out);

  const std::vector<double> values(nll.const_data_ptr<double>(),
                                   nll.const_data_ptr<double>() + nll.numel());
  const double mean = nll.mean().item<double>();
  if (options.common.json) {
    print_json({{"ids", ids}, {"nll", values}, {"mean_nll", mean}});
    return;
  }
  fmt::print("{:>8} {:>8}  {:>10}\n", "position", "id", "nll");
  for (size_t i = 0; i < values.size(); ++i) {
    fmt::print("{:>8} {:>8}  {:>10.4f}\n", i + 1, ids[i + 1], values[i]);
  }
  fmt::print("mean {:.4f} nats, perplexity {:.4f}\n", mean, std::exp(mean));
}

}  // namespace

void add_score(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("score", "Negative log-likelihood of a text per token");
  auto options = std::make_shared<ScoreOptions>();
  add_model_option(*verb, "--model", options->model, "the model")->required();
  auto* input = verb->add_option_group("input");
  input->add_option("--text", options->text, "a text");
  input->add_option("--ids-file", options->ids_file, "a JSON list of token ids");
  input->require_option(1);
  verb->add_option("--logits-out", options->logits_out,
                   "write the logits of every position to this safetensors file");
  add_common_options(*verb, options->common);
  verb->callback([options] { run_score(*options); });
}

}  // namespace mambify
