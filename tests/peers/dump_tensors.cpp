// dump_tensors IN OUT.safetensors: every tensor of a GGUF or safetensors file, decoded to fp32.
// For check_io.py, which compares the result with what the formats' own libraries read.
#include <cstdio>

#include "core/error.h"
#include "io/gguf.h"
#include "io/safetensors.h"

int main(int argc, char** argv) try {
  if (argc != 3) throw mambify::Error("usage: {} IN OUT.safetensors", argv[0]);
  const mambify::fs::path in = argv[1];
  const mambify::TensorMap tensors =
      mambify::is_gguf(in) ? mambify::open_gguf(in).tensors : mambify::open_safetensors(in);

  std::vector<std::vector<float>> values;
  std::vector<mambify::TensorToWrite> decoded;
  for (const auto& [name, view] : tensors) {
    auto& out = values.emplace_back(static_cast<size_t>(view.elements()));
    mambify::dequantize(view, out.data());
    decoded.push_back({name, mambify::DType::f32, view.shape, std::as_bytes(std::span(out))});
  }
  mambify::write_safetensors(argv[2], decoded);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
