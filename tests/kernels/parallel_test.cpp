#include "kernels/parallel.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <atomic>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

namespace mambify::kernels {
namespace {

constexpr int64_t kMuch = 1 << 20;  // operations that are worth all threads

class Parallel : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    before_ = omp_get_max_threads();
    omp_set_num_threads(GetParam());
  }
  void TearDown() override { omp_set_num_threads(before_); }

 private:
  int before_ = 0;
};

std::vector<int> times_run(int64_t tasks) {
  std::vector<std::atomic<int>> times(tasks);
  parallel_tasks(tasks, kMuch, [&](int64_t task) { ++times[task]; });
  return {times.begin(), times.end()};
}

TEST_P(Parallel, EveryTaskRunsOnce) {
  for (int64_t repeat = 0; repeat < 200; ++repeat) {
    for (const int64_t tasks : {0, 1, 2, 3, 7, 64, 1000}) {
      EXPECT_EQ(times_run(tasks), std::vector<int>(tasks, 1));
    }
  }
}

TEST_P(Parallel, TasksCanBeDividedAgain) {
  std::vector<std::atomic<int>> times(100);
  parallel_tasks(10, kMuch, [&](int64_t tens) {
    parallel_tasks(10, kMuch, [&](int64_t ones) { ++times[10 * tens + ones]; });
  });
  for (const std::atomic<int>& count : times) EXPECT_EQ(count, 1);
}

TEST_P(Parallel, SeveralThreadsMayAskAtOnce) {
  std::vector<std::thread> callers;
  std::atomic<int64_t> wrong = 0;
  for (int64_t caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int64_t repeat = 0; repeat < 100; ++repeat) {
        if (times_run(50) != std::vector<int>(50, 1)) ++wrong;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
}

TEST_P(Parallel, WhatATaskThrowsReachesTheCaller) {
  for (int64_t repeat = 0; repeat < 50; ++repeat) {
    EXPECT_THROW(parallel_tasks(64, kMuch,
                                [&](int64_t task) {
                                  if (task % 16 == 5) throw std::runtime_error("a task's");
                                }),
                 std::runtime_error);
    EXPECT_EQ(times_run(64), std::vector<int>(64, 1));  // and the threads go on
  }
}

TEST_P(Parallel, KernelsKeepTheThreadsThatOpenMpIsDenied) {
  const int64_t all = usable_threads();
  {
    const KernelsHaveTheThreads outer;
    EXPECT_EQ(omp_get_max_threads(), 1);
    EXPECT_EQ(usable_threads(), all);
    {
      const KernelsHaveTheThreads inner;
      EXPECT_EQ(usable_threads(), all);
    }
    EXPECT_EQ(omp_get_max_threads(), 1);
    EXPECT_EQ(times_run(64), std::vector<int>(64, 1));
  }
  EXPECT_EQ(omp_get_max_threads(), all);
  EXPECT_EQ(usable_threads(), all);
}

INSTANTIATE_TEST_SUITE_P(Threads, Parallel, ::testing::Values(1, 2, 3, 8));

}  // namespace
}  // namespace mambify::kernels
