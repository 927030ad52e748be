// Where a CUDA device's time and memory go, as LibTorch counts them.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "model/model.h"

namespace mambify {

// Runs `work` once and lists the kernels it ran, the longest first: [{"name", "milliseconds", in
// all calls, "share" of the sum, "calls"}]. The work must wait for the device.
nlohmann::json profile_device(const std::function<void()>& work);

// The most that LibTorch's tensors held on the device at once.
int64_t peak_device_bytes(at::Device device);
// Of the models' parameters; what several share counts once.
int64_t parameter_bytes(std::initializer_list<const Model*> models);

}  // namespace mambify
