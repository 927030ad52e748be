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

// The student keeps attention in the layers of `kept`; all of them: nothing is converted yet.
inline RunInputs tiny_inputs(std::vector<int64_t> kept = {1}) {
  RunInputs inputs;
  inputs.teacher = load_model(fixtures() / "tiny-llama");
  ConvertOptions options;
  options.attention_layers = std::move(kept);
  options.seed = 5;
  inputs.student = convert(inputs.teacher, options);
  inputs.data = random_documents(40, inputs.teacher.config.vocab_size, /*seed=*/11);
  return inputs;
}

// teacher, files and keep_attention are names only: tests bring their inputs.
inline std::string tiny_recipe(const fs::path& dir, const std::string& stages) {
  return "[model]\nteacher = \"tiny\"\nkeep_attention = \"1\"\n[data]\nfiles = [\"none\"]\n"
         "sequence_length = 32\n" +
         stages + "[run]\ndir = \"" + dir.string() + "\"\nseed = 3\ncheckpoint_every = 4\n";
}

inline constexpr const char* kAlignThenDistill =
    "[[stage]]\nkind = \"align\"\nsteps = 10\nbatch_tokens = 64\n"
    "[[stage]]\nkind = \"distill\"\ntokens = 576\nbatch_tokens = 64\naccumulation = 2\n"
    "train = \"all\"\nce_weight = 0.1\n";

}  // namespace mambify::testing
