// A small run as a program of its own, for tests that kill it: train_tiny FOLDER DEVICE resumes or
// starts the run in FOLDER. DEVICE: cpu or cuda.
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <string_view>

#include "core/progress.h"
#include "ops/cuda.h"
#include "tiny_run.h"

int main(int argc, char** argv) {
  using namespace mambify;
  if (argc != 3) return 2;
  at::set_num_threads(2);
  Progress::set_enabled(false);
  try {
    const std::string stages =
        "[[stage]]\nkind = \"align\"\nsteps = 30\nbatch_tokens = 128\n"
        "[[stage]]\nkind = \"distill\"\nsteps = 30\nbatch_tokens = 128\ntrain = \"all\"\n"
        "accumulation = 2\nce_weight = 0.1\n"
        "[[stage]]\nkind = \"sft\"\nsteps = 15\nbatch_tokens = 128\nlearning_rate = 1e-4\n"
        "[[stage]]\nkind = \"dpo\"\nsteps = 15\nbatch_tokens = 256\naccumulation = 2\n"
        "learning_rate = 1e-4\nreference = \"start\"\nfiles = [\"pairs\"]\n";
    const Recipe recipe = parse_recipe(testing::tiny_recipe(argv[1], stages), "tiny.toml",
                                       {"run.checkpoint_every=3"});
    const bool on_cuda = std::string_view(argv[2]) == "cuda";
    train(recipe, testing::tiny_inputs_with_pairs(/*stage=*/3),
          {.resume = true, .device = on_cuda ? load_torch_cuda(0) : at::Device(at::kCPU)});
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
