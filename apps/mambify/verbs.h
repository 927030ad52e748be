// One function per verb: it adds the subcommand, its options and its callback. Each stands in the
// file of its name; main.cpp lists them.
#pragma once

#include <CLI/CLI.hpp>

namespace mambify {

void add_inspect(CLI::App& app);
void add_convert(CLI::App& app);
void add_synthesize(CLI::App& app);
void add_distill(CLI::App& app);
void add_generate(CLI::App& app);
void add_chat(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_score(CLI::App& app);
void add_eval(CLI::App& app);
void add_bench(CLI::App& app);
void add_demo(CLI::App& app);

}  // namespace mambify
