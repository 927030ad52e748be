// Random numbers in device memory, for measurements: speed must not come from zeros.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"

namespace mambify::kernels {

// `count` numbers between -scale and scale, on the device in use.
template <typename T>
void fill_random(T* data, int64_t count, float scale);

}  // namespace mambify::kernels
