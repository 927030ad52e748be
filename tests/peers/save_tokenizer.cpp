// save_tokenizer MODEL FOLDER: writes a model's tokenizer as Hugging Face reads it.
#include <cstdio>
#include <exception>

#include "text/tokenizer.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  try {
    mambify::Tokenizer::load(argv[1]).save(argv[2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
