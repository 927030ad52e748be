// Dividing the work of a kernel over OpenMP's threads.
#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

namespace mambify::kernels {

// The half-open range [begin, end) of one of `parts` nearly equal parts of [0, count).
struct Range {
  int64_t begin, end;
};
inline Range part_of(int64_t count, int64_t parts, int64_t part) {
  return {count * part / parts, count * (part + 1) / parts};
}

// One thread's tasks, fewer than 2^32. It takes them from the front, others from the back.
class alignas(64) TaskQueue {
 public:
  void fill(Range tasks) { left_ = pack(tasks); }

  // One of the tasks that are left; negative: none.
  int64_t take_first() {
    return take([](Range& left) { return left.begin++; });
  }
  int64_t take_last() {
    return take([](Range& left) { return --left.end; });
  }

 private:
  static uint64_t pack(Range tasks) {
    return static_cast<uint64_t>(tasks.begin) << 32 | static_cast<uint64_t>(tasks.end);
  }

  template <typename From>
  int64_t take(const From& from) {
    uint64_t seen = left_.load(std::memory_order_relaxed);
    while (true) {
      Range left{static_cast<int64_t>(seen >> 32), static_cast<int64_t>(seen & 0xffffffffu)};
      if (left.begin == left.end) return -1;
      const int64_t task = from(left);
      if (left_.compare_exchange_weak(seen, pack(left), std::memory_order_relaxed)) return task;
    }
  }

  std::atomic<uint64_t> left_ = 0;  // begin and end, so that both are read and changed at once
};

// Calls body(task) for every task in [0, tasks), on one thread when there is little to do: starting
// the others costs more than that. Each thread has neighbouring tasks, which reads memory in order,
// and then helps the others, as cores do not get the same share of the memory. Every task runs
// whole on one thread, so that results do not depend on how many threads there are.
template <typename Body>
void parallel_tasks(int64_t tasks, int64_t operations, const Body& body) {
  constexpr int64_t kSmall = 1 << 14;
  // All of them even for few tasks: OpenMP ends the threads that a smaller team leaves over.
  const int64_t threads = omp_get_max_threads();
  if (threads == 1 || tasks <= 1 || operations <= kSmall || omp_in_parallel()) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  std::vector<TaskQueue> queues(threads);
  for (int64_t i = 0; i < threads; ++i) queues[i].fill(part_of(tasks, threads, i));
#pragma omp parallel
  {
    const int64_t own = omp_get_thread_num();
    for (int64_t task; (task = queues[own].take_first()) >= 0;) body(task);
    for (int64_t i = 1; i < threads; ++i) {
      TaskQueue& other = queues[(own + i) % threads];
      for (int64_t task; (task = other.take_last()) >= 0;) body(task);
    }
  }
}

}  // namespace mambify::kernels
