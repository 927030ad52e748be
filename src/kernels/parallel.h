// Dividing the work of a kernel over threads.
#pragma once

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

// As many as OpenMP, and so LibTorch, is set to use; 1 inside a parallel region of theirs.
int64_t usable_threads();

// While it lives, OpenMP and LibTorch compute on this thread alone, and kernels on as many as
// before. Threads of OpenMP go on using their processors for milliseconds after a region, in case
// another comes; between small operations of LibTorch, kernels would have to do without them.
class KernelsHaveTheThreads {
 public:
  KernelsHaveTheThreads();
  ~KernelsHaveTheThreads();
  KernelsHaveTheThreads(const KernelsHaveTheThreads&) = delete;
  KernelsHaveTheThreads& operator=(const KernelsHaveTheThreads&) = delete;

 private:
  int64_t before_;
};

// Calls job(context, thread) on this thread, as thread 0, and on those of threads 1 to threads - 1
// that come while it runs: a thread that the system has no processor for is not waited for, as at
// the end of a region of OpenMP. Returns when all calls have, and throws what one of them threw.
void run_on_threads(int64_t threads, void (*job)(void* context, int64_t thread), void* context);

// Calls body(task) for every task in [0, tasks), on one thread when there is little to do: starting
// the others costs more than that. Each thread has neighbouring tasks, which reads memory in order,
// and then helps the others, as cores do not get the same share of the memory. Every task runs
// whole on one thread, so that results do not depend on how many threads there are.
template <typename Body>
void parallel_tasks(int64_t tasks, int64_t operations, const Body& body) {
  constexpr int64_t kSmall = 1 << 14;
  const int64_t threads = tasks <= 1 || operations <= kSmall ? 1 : usable_threads();
  if (threads == 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  struct Job {
    const Body& body;
    std::vector<TaskQueue> queues;
  };
  Job job{body, std::vector<TaskQueue>(threads)};
  for (int64_t i = 0; i < threads; ++i) job.queues[i].fill(part_of(tasks, threads, i));
  const auto work = [](void* context, int64_t own) {
    Job& job = *static_cast<Job*>(context);
    for (int64_t task; (task = job.queues[own].take_first()) >= 0;) job.body(task);
    const auto threads = static_cast<int64_t>(job.queues.size());
    for (int64_t i = 1; i < threads; ++i) {
      TaskQueue& other = job.queues[(own + i) % threads];
      for (int64_t task; (task = other.take_last()) >= 0;) job.body(task);
    }
  };
  run_on_threads(threads, work, &job);
}

}  // namespace mambify::kernels
