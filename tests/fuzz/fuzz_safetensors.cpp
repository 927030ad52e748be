// Any bytes as a safetensors file: tensors that can be read, or an Error, and nothing else.
#include "io/safetensors.h"
#include "read_tensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    mambify::read_tensors(
        mambify::parse_safetensors(std::as_bytes(std::span(data, size)), "input"));
  } catch (const mambify::Error&) {
  }
  return 0;
}
