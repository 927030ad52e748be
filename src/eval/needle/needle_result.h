// Needle cells as JSON.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "eval/needle/needle.h"

namespace mambify {

struct NeedleScope {
  int64_t training_length = 0;  // rates are told up to it and beyond it
  int64_t max_positions = 0;    // of the model; 0: not limited
  bool likelihood = false;      // whether keys were ranked
};

// {"max_positions", "cells": [{"length", "depth", rates, "prompt_tokens"}], "overall": rates,
// "within_training_length": rates, "beyond_training_length": rates}. Rates are {"n", "hits",
// "rate", "stderr"}, with likelihoods also {"ranked_first", "ranked_first_stderr", "key_nll",
// "key_nll_stderr"}; of no trial {"n": 0}. A cell longer than the model's positions has
// "beyond_positions": true, one without trials has "error".
nlohmann::json to_json(const std::vector<NeedleCell>& cells, const NeedleScope& scope);

}  // namespace mambify
