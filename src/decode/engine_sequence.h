// A request in a row of an engine.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "decode/engine.h"
#include "decode/stop_strings.h"

namespace mambify {

struct Engine::Sequence {
  Sequence(GenerationRequest taken, const Tokenizer* tokenizer)
      : request(std::move(taken)), stop(request.stop) {
    if (tokenizer != nullptr && (is_heard() || !request.stop.empty())) decoder.emplace(*tokenizer);
  }

  // Whether somebody hears the text as it grows.
  bool is_heard() const { return static_cast<bool>(request.on_text); }
  void emit(const std::string& certain) {
    if (certain.empty()) return;
    result.text += certain;
    if (request.on_text) request.on_text(certain);
  }

  GenerationRequest request;
  GenerationResult result;
  std::optional<StreamDecoder> decoder;  // where the text is asked for before the sequence ends
  StopStrings stop;
  DraftRecord drafts;
  bool prefilling = true;
};

}  // namespace mambify
