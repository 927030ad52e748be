// The model that tasks are run on.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "eval/decoding_copy.h"
#include "model/model.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace mambify {

struct TaskSubjectOptions {
  std::string chat_template = "";  // a kind of ChatTemplate::named; "": the checkpoint's own
  int64_t rows = 32;               // answers generated side by side
  uint64_t seed = 0;               // of answers that are sampled
};

class TaskSubject {
 public:
  TaskSubject(Model model, Tokenizer tokenizer, TaskSubjectOptions options = {});

  const Model& model() const { return model_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const TaskSubjectOptions& options() const { return options_; }
  // Throws Error when the template is none that is known.
  ChatTemplate chat_template() const;
  // The model as an engine takes it; made when it is first asked for.
  const DecodingCopy& decoding() const;

 private:
  Model model_;
  Tokenizer tokenizer_;
  TaskSubjectOptions options_;
  mutable std::unique_ptr<DecodingCopy> decoding_;
};

}  // namespace mambify
