// What verbs that read and write checkpoints share.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <string>

#include "common_options.h"
#include "core/file.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace mambify {

// --dtype as LibTorch's type.
at::ScalarType compute_dtype(const CommonOptions& options);

// The device that --device names, with LibTorch ready for it.
at::Device compute_device(const CommonOptions& options);
// A checkpoint in the compute dtype of --dtype, on the device of --device.
Model load_compute_model(const std::string& path, const CommonOptions& options);

// Whether a checkpoint comes with a tokenizer. A GGUF file is taken to.
bool has_tokenizer(const std::string& model);

// A checkpoint may be written to `out` when nothing is there, an empty folder, or an earlier
// checkpoint (a folder with config.json); anything else is an Error, so that a mistyped path costs
// nobody a folder of other files.
void check_output_folder(const fs::path& out);

// Throws Error when two models do not mean the same by a token id.
void check_same_vocabulary(const std::string& name, const Tokenizer& tokenizer,
                           const std::string& other_name, const Tokenizer& other);

}  // namespace mambify
