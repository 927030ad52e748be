#include "ops/panel_memory.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "core/error.h"

namespace mambify {
namespace {

TEST(PanelMemory, GivesTensorsThatShareNoByte) {
  PanelMemory memory;
  std::vector<at::Tensor> tensors;
  // Together more than a block, one alone more than a block.
  for (const int64_t size : {int64_t{3}, int64_t{1000}, int64_t{20} << 20, int64_t{1}}) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kByte}) {
      at::Tensor t = memory.allocate({size, 2}, type);
      EXPECT_EQ(t.sizes(), at::IntArrayRef({size, 2}));
      EXPECT_EQ(t.scalar_type(), type);
      EXPECT_TRUE(t.is_contiguous());
      EXPECT_EQ(reinterpret_cast<uintptr_t>(t.data_ptr()) % 64, 0u);
      t.fill_(static_cast<double>(tensors.size() + 1));
      tensors.push_back(t);
    }
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_TRUE(tensors[i].eq(static_cast<double>(i + 1)).all().item<bool>()) << i;
  }
}

TEST(PanelMemory, LivesAsLongAsATensorInIt) {
  at::Tensor kept;
  {
    PanelMemory memory;
    kept = memory.allocate({100}, at::kFloat).fill_(7);
  }
  EXPECT_EQ(kept.sum().item<double>(), 700);
}

TEST(PanelMemory, SaysWhenThereIsNone) {
  PanelMemory memory;
  EXPECT_THROW(memory.allocate({int64_t{1} << 50}, at::kByte), Error);
}

}  // namespace
}  // namespace mambify
