#include "ops/panel_memory.h"

#include <ATen/ops/from_blob.h>
#include <c10/util/accumulate.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>

#include "core/error.h"

namespace mambify {
namespace {

constexpr int64_t kHugePage = 2 << 20, kBlock = 64 << 20, kCacheLine = 64;

int64_t round_up(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

// Pages that nothing is written to take no memory, so that a block may be larger than its content.
at::Tensor map_block(int64_t bytes) {
  const int64_t mapped = round_up(bytes, kHugePage) + kHugePage;  // for the alignment
  void* const base =
      mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) throw Error("no memory for {} bytes of packed weights", bytes);
  const auto address = reinterpret_cast<int64_t>(base);
  void* const aligned = static_cast<std::byte*>(base) + (round_up(address, kHugePage) - address);
#if defined(MADV_HUGEPAGE)
  madvise(aligned, round_up(bytes, kHugePage), MADV_HUGEPAGE);  // where it is refused: small pages
#endif
  return at::from_blob(
      aligned, {bytes}, [base, mapped](void*) { munmap(base, mapped); },
      at::TensorOptions(at::kByte));
}

}  // namespace

at::Tensor PanelMemory::allocate(at::IntArrayRef sizes, at::ScalarType type) {
  const int64_t bytes =
      c10::multiply_integers(sizes) * static_cast<int64_t>(c10::elementSize(type));
  if (!block_.defined() || used_ + bytes > block_.numel()) {
    block_ = map_block(std::max(bytes, kBlock));
    used_ = 0;
  }
  const at::Tensor taken = block_.narrow(0, used_, bytes);
  used_ = std::min(round_up(used_ + bytes, kCacheLine), block_.numel());
  return taken.view(type).view(sizes);
}

}  // namespace mambify
