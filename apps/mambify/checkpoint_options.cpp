#include "checkpoint_options.h"

#include "core/error.h"
#include "io/gguf.h"
#include "model/load.h"
#include "ops/cuda.h"

namespace mambify {

at::ScalarType compute_dtype(const CommonOptions& options) {
  return options.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
}

at::Device compute_device(const CommonOptions& options) {
  const std::optional<int> number = cuda_device(options);
  return number ? load_torch_cuda(*number) : at::Device(at::kCPU);
}

Model load_compute_model(const std::string& path, const CommonOptions& options) {
  const at::Device device = compute_device(options);
  Model model = load_model(path, compute_dtype(options));
  to(model, device, compute_dtype(options));
  return model;
}

bool has_tokenizer(const std::string& model) {
  return fs::is_directory(model) ? fs::exists(fs::path(model) / "tokenizer.json") : is_gguf(model);
}

void check_output_folder(const fs::path& out) {
  recover_directory(out);
  if (!fs::exists(out)) return;
  if (!fs::is_directory(out)) throw Error("{} is a file, expected a folder to write", out.string());
  if (fs::is_empty(out) || fs::exists(out / "config.json")) return;
  throw Error("{} is a folder with other files in it and no config.json; it is left alone",
              out.string());
}

void check_same_vocabulary(const std::string& name, const Tokenizer& tokenizer,
                           const std::string& other_name, const Tokenizer& other) {
  if (tokenizer.vocabulary_hash() == other.vocabulary_hash()) return;
  throw Error("the vocabularies of {} ({} tokens) and {} ({} tokens) differ, expected the same",
              name, tokenizer.vocab_size(), other_name, other.vocab_size());
}

}  // namespace mambify
