// Stands in for the CUDA runtime in a build without it: there is no device.
#include "core/error.h"
#include "kernels/cuda/product_rate.h"
#include "kernels/cuda/read_rate.h"
#include "kernels/cuda/runtime.h"

namespace mambify::kernels {
namespace {

[[noreturn]] void refuse() {
  throw Error(
      "this build of mambify computes on the CPU only; `make build` makes one for CUDA where "
      "it finds nvcc");
}

}  // namespace

int cuda_device_count() { return 0; }
void use_cuda_device(int) { refuse(); }
std::string cuda_device_name() { refuse(); }
double cuda_read_gigabytes_per_second() { refuse(); }
double cuda_product_gigaflops() { refuse(); }

}  // namespace mambify::kernels
