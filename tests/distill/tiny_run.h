// A run small enough for tests: the tiny Llama fixture as teacher, random tokens as data.
#pragma once

#include <string>

#include "convert/convert.h"
#include "core/random.h"
#include "distill/trainer.h"
#include "model/load.h"
#include "testing.h"

namespace mambify::testing {

inline Dataset random_documents(int64_t documents, int64_t vocab, uint64_t seed) {
  const CounterRandom random(seed, RandomPurpose::sample);
  Dataset dataset;
  for (int64_t d = 0; d < documents; ++d) {
    Document document;
    const auto at = static_cast<uint32_t>(d);
    const int64_t length = 5 + random.bits(at, 0) % 60;
    for (int64_t i = 0; i < length; ++i) {
      const auto index = static_cast<uint32_t>(i + 1);
      document.ids.push_back(static_cast<TokenId>(random.bits(at, index) % vocab));
      document.counts.push_back(d % 2 == 0 || i % 3 != 0);
    }
    dataset.documents.push_back(std::move(document));
  }
  return dataset;
}

// Pairs of random answers to random prompts; a side has at most 30 tokens.
inline PairDataset random_pairs(int64_t pairs, int64_t vocab, uint64_t seed) {
  const CounterRandom random(seed, RandomPurpose::sample);
  PairDataset dataset;
  for (int64_t p = 0; p < pairs; ++p) {
    const auto at = [&](int64_t index) {
      return random.bits(static_cast<uint32_t>(p), static_cast<uint32_t>(index));
    };
    const int64_t prompt = 2 + at(0) % 8;
    const auto side = [&](int64_t from) {
      Document document;
      const int64_t length = prompt + 1 + at(from) % 20;
      for (int64_t i = 0; i < length; ++i) {
        document.ids.push_back(static_cast<TokenId>(at(i < prompt ? 100 + i : from + i) % vocab));
        document.counts.push_back(i >= prompt);
      }
      return document;
    };
    dataset.pairs.push_back({side(200), side(300)});
  }
  return dataset;
}

// The student keeps attention in the layers of `kept`; all of them: nothing is converted yet.
inline RunInputs tiny_inputs(std::vector<int64_t> kept = {1}, MixerKind mixer = MixerKind::mamba2) {
  RunInputs inputs;
  inputs.teacher = load_model(fixtures() / "tiny-llama");
  ConvertOptions options;
  options.attention_layers = std::move(kept);
  options.mixer = mixer;
  options.seed = 5;
  inputs.student = convert(inputs.teacher, options);
  inputs.data = random_documents(40, inputs.teacher.config.vocab_size, /*seed=*/11);
  return inputs;
}

// With pairs for a stage of kind dpo.
inline RunInputs tiny_inputs_with_pairs(int64_t stage, std::vector<int64_t> kept = {1},
                                        MixerKind mixer = MixerKind::mamba2) {
  RunInputs inputs = tiny_inputs(std::move(kept), mixer);
  inputs.stage_data[stage] = random_pairs(30, inputs.teacher.config.vocab_size, /*seed=*/12);
  return inputs;
}

// teacher, files and keep_attention are names only: tests bring their inputs.
inline std::string tiny_recipe(const fs::path& dir, const std::string& stages) {
  return "[model]\nteacher = \"tiny\"\nkeep_attention = \"1\"\n[data]\nfiles = [\"none\"]\n"
         "sequence_length = 32\n" +
         stages + "[run]\ndir = \"" + dir.string() + "\"\nseed = 3\ncheckpoint_every = 4\n";
}

inline RunSummary train_tiny(const fs::path& dir, const std::string& stages, RunInputs inputs,
                             const std::vector<std::string>& overrides = {},
                             at::Device device = at::kCPU) {
  const Recipe recipe = parse_recipe(tiny_recipe(dir, stages), "tiny.toml", overrides);
  return train(recipe, std::move(inputs), {.device = device});
}

inline constexpr const char* kDpo =
    "[[stage]]\nkind = \"dpo\"\nsteps = 40\nbatch_tokens = 256\nlearning_rate = 1e-3\n"
    "learning_rate_rest = 1e-3\nfiles = [\"pairs\"]\n";

inline constexpr const char* kSftThenDpo =
    "[[stage]]\nkind = \"sft\"\nsteps = 8\nbatch_tokens = 64\nlearning_rate = 1e-3\n"
    "[[stage]]\nkind = \"dpo\"\nsteps = 9\nbatch_tokens = 256\naccumulation = 2\n"
    "learning_rate = 1e-4\nfiles = [\"pairs\"]\n";

inline constexpr const char* kAlignThenDistill =
    "[[stage]]\nkind = \"align\"\nsteps = 10\nbatch_tokens = 64\n"
    "[[stage]]\nkind = \"distill\"\ntokens = 576\nbatch_tokens = 64\naccumulation = 2\n"
    "train = \"all\"\nce_weight = 0.1\n";

}  // namespace mambify::testing
