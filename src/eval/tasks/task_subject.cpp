#include "eval/tasks/task_subject.h"

#include <utility>

namespace mambify {

TaskSubject::TaskSubject(Model model, Tokenizer tokenizer, TaskSubjectOptions options)
    : model_(std::move(model)), tokenizer_(std::move(tokenizer)), options_(std::move(options)) {}

ChatTemplate TaskSubject::chat_template() const {
  return options_.chat_template.empty() ? ChatTemplate::recognise(tokenizer_)
                                        : ChatTemplate::named(options_.chat_template, tokenizer_);
}

const DecodingCopy& TaskSubject::decoding() const {
  if (decoding_ == nullptr) decoding_ = std::make_unique<DecodingCopy>(model_);
  return *decoding_;
}

}  // namespace mambify
