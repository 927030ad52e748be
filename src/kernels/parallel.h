// Dividing the work of a kernel over OpenMP's threads.
#pragma once

#include <algorithm>
#include <cstdint>

namespace mambify::kernels {

// Calls body(task) for every task in [0, tasks), on one thread when there is little to do: starting
// the others costs more than that. Every task runs whole on one thread,
// so that results do not depend on how many threads there are.
template <typename Body>
void parallel_tasks(int64_t tasks, int64_t operations, const Body& body) {
  constexpr int64_t kSmall = 1 << 14;
#pragma omp parallel for schedule(static) if (tasks > 1 && operations > kSmall)
  for (int64_t task = 0; task < tasks; ++task) body(task);
}

// The half-open range [begin, end) of one of `parts` nearly equal parts of [0, count).
struct Range {
  int64_t begin, end;
};
inline Range part_of(int64_t count, int64_t parts, int64_t part) {
  return {count * part / parts, count * (part + 1) / parts};
}

}  // namespace mambify::kernels
