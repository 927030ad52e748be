// The rate at which the CUDA device in use multiplies matrices: the ceiling of reading prompts.
#pragma once

namespace mambify::kernels {

// Of bf16, by pass_linear at its best: a large product, the best of several times.
double cuda_product_gigaflops();

}  // namespace mambify::kernels
