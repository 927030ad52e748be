// The rate at which the CUDA device in use reads its memory: the ceiling of decoding.
#pragma once

namespace mambify::kernels {

// Of two gigabytes, the best of several times.
double cuda_read_gigabytes_per_second();

}  // namespace mambify::kernels
