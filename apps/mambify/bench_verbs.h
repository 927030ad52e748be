// The sub-verbs of bench and what they share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "common_options.h"
#include "model/model.h"

namespace mambify {

void add_bench_decode(CLI::App& bench);
void add_bench_prefill(CLI::App& bench);
void add_bench_speculate(CLI::App& bench);
void add_bench_train(CLI::App& bench);

// A checkpoint, or random weights of a given shape: speed does not depend on their values.
struct BenchModelOptions {
  std::string model, shape;
};

// --model and --shape, one of which is required.
void add_bench_model_options(CLI::App& verb, BenchModelOptions& options);
// alike: as random_model's, of a shape; by default for a CUDA device, where weights are copied.
Model bench_model(const BenchModelOptions& options, const CommonOptions& common);
Model bench_model(const BenchModelOptions& options, const CommonOptions& common, bool alike);

// What this machine can do, measured now with the threads that are set.
double measured_read_gigabytes_per_second();  // a sum over 512 MB, the best of several
double measured_read_gigabytes_per_second(const CommonOptions& common);  // of its --device
// Square products, the best of several.
double measured_gemm_gigaflops(at::ScalarType dtype, at::Device device);
// The same of --device in --dtype; on a CUDA device where LibTorch's library for it is not
// installed, of the kernel that reads prompts.
double measured_gemm_gigaflops(const CommonOptions& common);

// What computes, as a report names it.
std::string bench_machine(const CommonOptions& common);

// The middle one; of an even number the mean of the middle two.
double median(std::vector<double> values);

}  // namespace mambify
