// mambify: turns Transformers into hybrid Mamba models and runs them.
#include <spdlog/spdlog.h>

#include <cstdio>
#include <exception>

#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "ops/vector_math.h"
#include "verbs.h"

namespace {

constexpr int kFailed = 1, kBadUsage = 2;

int run(int argc, char** argv) {
  CLI::App app("Turn a Transformer into a hybrid Mamba model, distill it, evaluate it, run it.",
               "mambify");
  app.set_version_flag("--version", MAMBIFY_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  app.get_formatter()->column_width(34);
  bool verbose = false, quiet = false;
  app.add_flag("--verbose", verbose, "log details");
  app.add_flag("--quiet", quiet, "no progress bars, warnings and errors only");
  app.parse_complete_callback([&] {
    mambify::set_up_logging(verbose);
    mambify::Progress::set_enabled(!quiet);
    if (quiet) spdlog::set_level(spdlog::level::warn);
  });

  // The verbs, in the order --help lists them.
  mambify::add_inspect(app);
  mambify::add_convert(app);
  mambify::add_synthesize(app);
  mambify::add_distill(app);
  mambify::add_generate(app);
  mambify::add_chat(app);
  mambify::add_tokenize(app);
  mambify::add_score(app);
  mambify::add_eval(app);
  mambify::add_bench(app);
  mambify::add_demo(app);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kBadUsage;
  } catch (const mambify::UsageError& error) {
    spdlog::error("{}", error.what());
    return kBadUsage;
  } catch (const std::exception& error) {
    spdlog::error("{}", error.what());
    return kFailed;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  mambify::resolve_vector_math();
  return run(argc, argv);
}
