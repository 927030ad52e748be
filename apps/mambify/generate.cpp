// mambify generate: text from a model, for one prompt or a file of them.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>

#include "core/error.h"
#include "decode/engine.h"
#include "decoding_options.h"
#include "prompts.h"
#include "verbs.h"

namespace mambify {
namespace {

struct GenerateOptions {
  CommonOptions common;
  SamplingOptions sampling;
  DraftOptions draft;
  std::string model, prompt, prompts, system, chat_template;
  std::string weights = "native";
  std::vector<std::string> stop;
  int64_t max_tokens = 256;
  int64_t batch = 8;
  bool chat = false;
  bool ignore_eos = false;
};

void print_result(const GenerationRequest& request, const GenerationResult& result) {
  print_json({{"prompt_ids", request.prompt},
              {"ids", result.ids},
              {"text", result.text},
              {"finish_reason", finish_reason_name(result.finish_reason)},
              {"timing",
               {{"prefill_tokens_per_second", result.prefill_tokens_per_second()},
                {"decode_tokens_per_second", result.decode_tokens_per_second()}}},
              {"speculation",
               {{"cycles", result.cycles},
                {"drafting", result.drafting},
                {"drafted", result.drafted},
                {"accepted", result.accepted}}}});
}

std::vector<Prompt> collect_prompts(const GenerateOptions& options) {
  std::vector<Prompt> prompts = options.prompts.empty() ? std::vector<Prompt>{{options.prompt, {}}}
                                                        : read_prompts(options.prompts);
  if (!options.chat) return prompts;
  for (Prompt& prompt : prompts) {
    if (prompt.is_chat()) continue;
    if (!options.system.empty()) prompt.messages.push_back({"system", options.system});
    prompt.messages.push_back({"user", std::move(prompt.text)});
  }
  return prompts;
}

std::vector<GenerationRequest> make_requests(const GenerateOptions& options,
                                             const LoadedModel& loaded) {
  std::optional<ChatTemplate> chat;
  std::vector<GenerationRequest> requests;
  for (const Prompt& prompt : collect_prompts(options)) {
    if (prompt.is_chat() && !chat) chat = loaded.chat_template(options.chat_template);
    GenerationRequest request;
    request.prompt = tokenize_prompt(prompt, loaded.tokenizer, chat ? &*chat : nullptr);
    request.max_tokens = options.max_tokens;
    if (!options.ignore_eos) {
      request.stop_ids = loaded.stop_ids(prompt.is_chat() ? &*chat : nullptr);
    }
    request.stop = options.stop;
    request.sampling = options.sampling;
    request.sequence = static_cast<uint32_t>(requests.size());
    requests.push_back(std::move(request));
  }
  return requests;
}

EngineOptions engine_options(const GenerateOptions& options, const Model& model,
                             const std::vector<GenerationRequest>& requests) {
  int64_t longest = 0;
  for (const GenerationRequest& request : requests) {
    longest = std::max(longest, static_cast<int64_t>(request.prompt.size()) + request.max_tokens);
  }
  return {.rows = std::min<int64_t>(options.batch, requests.size()),
          .context = std::min(longest, context_limit(model.config))};
}

// Results arrive in the order in which they finish and are printed in that of the prompts.
void generate_all(Engine& engine, const std::vector<GenerationRequest>& requests, bool json) {
  std::vector<std::optional<GenerationResult>> results(requests.size());
  size_t printed = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    GenerationRequest request = requests[i];
    request.on_finish = [&, i](GenerationResult result) {
      results[i] = std::move(result);
      for (; printed < results.size() && results[printed]; ++printed) {
        if (json) {
          print_result(requests[printed], *results[printed]);
        } else {
          fmt::print("{}\n", results[printed]->text);
          std::fflush(stdout);
        }
      }
    };
    engine.submit(std::move(request));
  }
  engine.run();
}

void stream_one(Engine& engine, GenerationRequest request) {
  request.on_text = [](std::string_view text) {
    fmt::print("{}", text);
    std::fflush(stdout);
  };
  request.on_finish = [](const GenerationResult&) { fmt::print("\n"); };
  engine.submit(std::move(request));
  engine.run();
}

void run_generate(GenerateOptions& options) {
  apply_common_options(options.common, Devices::cpu_or_cuda);
  options.sampling.seed = options.common.seed;
  options.sampling.check();
  const LoadedModel loaded(options.model, options.common);
  const std::vector<GenerationRequest> requests = make_requests(options, loaded);
  EngineOptions decoding = engine_options(options, loaded.model, requests);
  LoadedDrafter drafter(options.draft, options.common, options.model, loaded);
  drafter.attach_to(decoding);
  const PackedWeights packed = pack_weights(loaded.model, options.weights, options.common);
  decoding.packed = &packed;
  Engine engine(loaded.model, &loaded.tokenizer, decoding);
  if (options.prompts.empty() && !options.common.json) {
    stream_one(engine, requests.front());
  } else {
    generate_all(engine, requests, options.common.json);
  }
}

}  // namespace

void add_generate(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("generate", "Text from a model");
  auto options = std::make_shared<GenerateOptions>();
  add_model_option(*verb, "--model", options->model, "the model")->required();
  auto* prompts = verb->add_option_group("prompt");
  prompts->add_option("--prompt", options->prompt, "the text to continue");
  prompts->add_option("--prompts", options->prompts,
                      "a file with {\"prompt\": ...} or {\"messages\": [...]} a line");
  prompts->require_option(1);
  verb->add_flag("--chat", options->chat, "a prompt is what a user says; answer it");
  verb->add_option("--system", options->system, "the system message of --chat");
  add_chat_template_option(*verb, options->chat_template);
  verb->add_option("--max-tokens", options->max_tokens, "most tokens to generate")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--stop", options->stop, "end at this string (may be given again)")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  verb->add_flag("--ignore-eos", options->ignore_eos, "go on behind an end token");
  verb->add_option("--batch", options->batch, "prompts decoded side by side")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  add_sampling_options(*verb, options->sampling);
  add_draft_options(*verb, options->draft);
  add_weights_option(*verb, options->weights);
  add_common_options(*verb, options->common);
  verb->callback([options] { run_generate(*options); });
}

}  // namespace mambify
