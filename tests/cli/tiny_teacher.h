// A small random chat model on disk, for tests of the program.
#pragma once

#include <ATen/ATen.h>

#include "core/file.h"
#include "model/fixtures.h"

namespace mambify::testing {

// A Llama with the vocabulary of the Llama-3-style tokenizer and that tokenizer beside it.
inline void write_teacher(const fs::path& folder) {
  Model model = load_model(fixtures() / "tiny-llama");
  constexpr int64_t kVocab = 3000;
  model.config.vocab_size = kVocab;
  // Repeating the small vocabulary's rows gives logits that are spread like the original's.
  model.embedding = model.embedding.repeat({kVocab / model.embedding.size(0) + 1, 1})
                        .narrow(0, 0, kVocab)
                        .clone();
  model.lm_head = model.embedding;
  fs::create_directories(folder);
  save_model(model, folder);
  for (const char* file : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}) {
    fs::copy_file(fixtures() / "llama3-style-tokenizer" / file, folder / file);
  }
}

}  // namespace mambify::testing
