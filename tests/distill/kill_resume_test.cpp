// kill -9 at ten random moments, then the run to its end: the bits of a run left alone.
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdlib>
#include <random>
#include <thread>

#include "devices.h"
#include "distill/metrics.h"
#include "testing.h"

extern char** environ;

namespace mambify {
namespace {

using Seconds = std::chrono::duration<double>;

pid_t start(const fs::path& run, const std::string& device) {
  const std::string folder = run.string();
  char program[] = MAMBIFY_TRAIN_TINY;
  char* arguments[] = {program, const_cast<char*>(folder.c_str()),
                       const_cast<char*>(device.c_str()), nullptr};
  pid_t child = 0;
  EXPECT_EQ(posix_spawn(&child, program, nullptr, nullptr, arguments, environ), 0);
  return child;
}

int wait_for(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

class KillAndResume : public ::testing::TestWithParam<std::string> {};

TEST_P(KillAndResume, EndsInTheSameBits) {
  // Threads that wait by spinning would starve each other on a busy machine.
  setenv("OMP_WAIT_POLICY", "passive", /*overwrite=*/0);
  const testing::ScratchFolder folder;
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(wait_for(start(folder / "whole", GetParam())), 0);
  const Seconds whole = std::chrono::steady_clock::now() - begin;

  // Spread over a whole run: start-up, all stages, checkpoints being written, the end.
  const unsigned seed = std::random_device()();
  RecordProperty("seed", std::to_string(seed));
  std::mt19937 engine(seed);
  for (int killed = 0; killed < 10;) {
    const double share = std::uniform_real_distribution<double>(0.05, 0.4)(engine);
    const pid_t child = start(folder / "killed", GetParam());
    std::this_thread::sleep_for(share * whole);
    kill(child, SIGKILL);
    const int status = wait_for(child);
    if (WIFSIGNALED(status)) {
      ++killed;
    } else {
      ASSERT_EQ(status, 0) << "seed " << seed;
      // The run came to its end between two kills: the next one starts over.
      fs::remove_all(folder / "killed");
    }
  }
  ASSERT_EQ(wait_for(start(folder / "killed", GetParam())), 0) << "seed " << seed;

  EXPECT_EQ(read_text_file(folder / "whole" / "final" / "model.safetensors"),
            read_text_file(folder / "killed" / "final" / "model.safetensors"))
      << "seed " << seed;
  const auto expected = read_metrics(folder / "whole" / "metrics.jsonl");
  const auto found = read_metrics(folder / "killed" / "metrics.jsonl");
  ASSERT_EQ(found.size(), expected.size()) << "seed " << seed;
  for (size_t i = 0; i < found.size(); ++i) {
    for (const char* key : {"step", "tokens", "loss", "gradient_norm"}) {
      EXPECT_EQ(found[i][key], expected[i][key]) << key << " of line " << i << ", seed " << seed;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, KillAndResume, ::testing::ValuesIn(testing::devices()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace mambify
