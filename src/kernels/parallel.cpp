#include "kernels/parallel.h"

#include <omp.h>

#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mambify::kernels {
namespace {

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Threads that wait for jobs, one at a time.
class Workers {
 public:
  using Job = void (*)(void* context, int64_t thread);

  ~Workers() {
    stops_ = true;
    begin_next();
    for (std::thread& thread : threads_) thread.join();
  }

  void run(int64_t threads, Job job, void* context) {
    const std::unique_lock lock(busy_, std::try_to_lock);
    if (!lock) return job(context, 0);  // another thread's job runs
    while (static_cast<int64_t>(threads_.size()) < threads - 1) {
      const auto index = static_cast<int64_t>(threads_.size()) + 1;
      threads_.emplace_back([this, index, seen = begun_.load()] { work(index, seen); });
    }
    job_ = job;
    context_ = context;
    wanted_ = threads;
    const uint64_t generation =
        (state_.load(std::memory_order_relaxed) & ~kCountMask) + kGeneration;
    state_.store(generation | kOpen, std::memory_order_release);
    begin_next();
    call(0);
    state_.fetch_and(~kOpen, std::memory_order_acq_rel);
    // Whoever came in is within its last task.
    for (int64_t i = 0; (state_.load(std::memory_order_acquire) & kCountMask) != 0; ++i) {
      i < kSpins ? pause_briefly() : std::this_thread::yield();
    }
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  // Of state_: how many threads are in the job, whether more may come, and which job it is.
  static constexpr uint64_t kOpen = uint64_t{1} << 31, kCountMask = kOpen - 1,
                            kGeneration = uint64_t{1} << 32;
  // Some tens of microseconds: longer than what lies between two jobs of a step of decoding.
  static constexpr int64_t kSpins = 2000;

  void begin_next() {
    begun_.fetch_add(1, std::memory_order_release);
    begun_.notify_all();
  }

  // What the job throws is thrown again where it was asked for.
  void call(int64_t thread) {
    try {
      job_(context_, thread);
    } catch (...) {
      const std::lock_guard lock(failing_);
      if (!failure_) failure_ = std::current_exception();
    }
  }

  // Comes into the job that is open, if one is.
  bool enter() {
    uint64_t state = state_.load(std::memory_order_acquire);
    while ((state & kOpen) != 0) {
      if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }

  void work(int64_t index, int seen) {
    while (true) {
      for (int64_t i = 0; i < kSpins && begun_.load(std::memory_order_acquire) == seen; ++i) {
        pause_briefly();
      }
      begun_.wait(seen, std::memory_order_acquire);
      seen = begun_.load(std::memory_order_acquire);
      if (stops_) return;
      if (!enter()) continue;
      if (index < wanted_) call(index);
      state_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::mutex busy_;
  std::atomic<int> begun_ = 0;
  std::atomic<bool> stops_ = false;
  std::atomic<uint64_t> state_ = 0;
  Job job_ = nullptr;
  void* context_ = nullptr;
  int64_t wanted_ = 0;
  std::mutex failing_;
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

// What OpenMP was set to use; 0: what it is.
thread_local int64_t threads_of_kernels = 0;

}  // namespace

int64_t usable_threads() {
  if (omp_in_parallel()) return 1;
  return threads_of_kernels > 0 ? threads_of_kernels : omp_get_max_threads();
}

KernelsHaveTheThreads::KernelsHaveTheThreads() : before_(threads_of_kernels) {
  threads_of_kernels = usable_threads();
  omp_set_num_threads(1);
}

KernelsHaveTheThreads::~KernelsHaveTheThreads() {
  if (before_ == 0) omp_set_num_threads(static_cast<int>(threads_of_kernels));
  threads_of_kernels = before_;
}

void run_on_threads(int64_t threads, void (*job)(void* context, int64_t thread), void* context) {
  static Workers workers;
  workers.run(threads, job, context);
}

}  // namespace mambify::kernels
