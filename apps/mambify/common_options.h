// Options that several verbs share, declared once so that they read the same everywhere.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace mambify {

struct CommonOptions {
  std::string device = "cpu";  // cpu, cuda or cuda:N
  std::string dtype = "fp32";  // compute: fp32 or bf16
  int threads = 0;             // 0: all cores
  uint64_t seed = 0;
  bool json = false;
};

// --device, --dtype, --threads, --seed, --json.
void add_common_options(CLI::App& verb, CommonOptions& options);

// Applies --threads and takes the --device, or throws Error when there is none of the kind. Verbs
// that decode, train or evaluate take a CUDA device, too.
enum class Devices { cpu, cpu_or_cuda };
void apply_common_options(const CommonOptions& options, Devices devices = Devices::cpu);

// The number of the CUDA device that --device names; none for the CPU.
std::optional<int> cuda_device(const CommonOptions& options);

// --model/--teacher style option: an existing GGUF file or folder.
CLI::Option* add_model_option(CLI::App& verb, const std::string& flag, std::string& path,
                              const std::string& help);

// One JSON object on stdout, and a newline.
void print_json(const nlohmann::json& result);

}  // namespace mambify
