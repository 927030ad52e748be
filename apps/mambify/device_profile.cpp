#include "device_profile.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace mambify {

namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;

nlohmann::json profile_device(const std::function<void()>& work) {
  const profiler::ProfilerConfig config(profiler::ProfilerState::KINETO);
  const std::set<ActivityType> activities{ActivityType::CUDA};
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities);
  work();
  const auto result = profiler::disableProfiler();

  struct Total {
    double milliseconds = 0;
    int64_t calls = 0;
  };
  std::map<std::string, Total> by_name;
  double sum = 0;
  for (const auto& event : result->events()) {
    if (event.deviceType() != at::kCUDA) continue;
    Total& total = by_name[event.name()];
    const double milliseconds = static_cast<double>(event.durationNs()) / 1e6;
    total.milliseconds += milliseconds;
    ++total.calls;
    sum += milliseconds;
  }
  std::vector<std::pair<std::string, Total>> sorted(by_name.begin(), by_name.end());
  std::ranges::sort(sorted, std::ranges::greater(),
                    [](const auto& entry) { return entry.second.milliseconds; });
  nlohmann::json kernels = nlohmann::json::array();
  for (const auto& [name, total] : sorted) {
    kernels.push_back({{"name", name},
                       {"milliseconds", total.milliseconds},
                       {"share", total.milliseconds / sum},
                       {"calls", total.calls}});
  }
  return kernels;
}

int64_t peak_device_bytes(at::Device device) {
  const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
  return stats.allocated_bytes.front().peak;
}

int64_t parameter_bytes(std::initializer_list<const Model*> models) {
  std::set<const void*> seen;
  int64_t bytes = 0;
  for (const Model* model : models) {
    Model view = *model;  // handles
    for_each_parameter(view, [&](const std::string&, at::Tensor& tensor) {
      if (seen.insert(tensor.const_data_ptr()).second) {
        bytes += static_cast<int64_t>(tensor.nbytes());
      }
    });
  }
  return bytes;
}

}  // namespace mambify
