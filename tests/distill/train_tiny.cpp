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
        "[[stage]]\nkind = \"align\"\nsteps = 40\nbatch_tokens = 128\n"
        "[[stage]]\nkind = \"distill\"\nsteps = 40\nbatch_tokens = 128\ntrain = \"all\"\n"
        "accumulation = 2\nce_weight = 0.1\n";
    const Recipe recipe = parse_recipe(testing::tiny_recipe(argv[1], stages), "tiny.toml",
                                       {"run.checkpoint_every=3"});
    const bool on_cuda = std::string_view(argv[2]) == "cuda";
    train(recipe, testing::tiny_inputs(),
          {.resume = true, .device = on_cuda ? load_torch_cuda(0) : at::Device(at::kCPU)});
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
