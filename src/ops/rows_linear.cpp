#include "ops/rows_linear.h"

#include <ATen/ATen.h>

#include <cstring>

#include "kernels/rows_linear/params.h"
#include "ops/rows.h"

namespace mambify {
namespace {

template <typename Weight, typename Packed>
kernels::PackParams<Weight, Packed> pack_params(const at::Tensor& weight, at::Tensor& panels) {
  return {.outputs = weight.size(0),
          .inputs = weight.size(1),
          .weight = static_cast<const Weight*>(weight.const_data_ptr()),
          .packed = static_cast<Packed*>(panels.mutable_data_ptr())};
}

template <typename Group>
at::Tensor allocate_groups(const PackedMatrix& packed, PanelMemory& memory) {
  return memory.allocate({kernels::panels_of(packed.outputs), kernels::groups_of(packed.inputs),
                          int64_t{sizeof(Group)}},
                         at::kByte);
}

// False when some weight lies on no grid of this kind.
template <typename Weight, typename Grid>
bool pack_on_grid(const at::Tensor& weight, PackedMatrix::Layout layout, PanelMemory& memory,
                  PackedMatrix& packed) {
  PanelMemory attempt;
  packed.panels = allocate_groups<Grid>(packed, attempt);
  if (!kernels::pack_grid_cpu(pack_params<Weight, Grid>(weight, packed.panels))) return false;
  packed.panels = allocate_groups<Grid>(packed, memory).copy_(packed.panels);
  packed.layout = layout;
  return true;
}

template <typename Weight>
void pack(const at::Tensor& weight, WeightFormat format, PanelMemory& memory,
          PackedMatrix& packed) {
  using namespace kernels;
  using enum PackedMatrix::Layout;
  if (format == WeightFormat::int8) {
    packed.layout = int8;
    packed.panels = allocate_groups<Int8Group>(packed, memory);
    pack_int8_cpu(pack_params<Weight, Int8Group>(weight, packed.panels));
    return;
  }
  if (pack_on_grid<Weight, Grid4Group>(weight, grid4, memory, packed)) return;
  if (pack_on_grid<Weight, Grid8Group>(weight, grid8, memory, packed)) return;
  packed.panels = memory.allocate({panels_of(packed.outputs), packed.inputs, kPanel}, packed.type);
  pack_cpu(pack_params<Weight, Weight>(weight, packed.panels));
}

template <typename Packed, typename Value>
void multiply(const at::Tensor& x, const PackedMatrix& weight, at::Tensor& y) {
  kernels::rows_linear_cpu(
      kernels::RowsLinearParams<Packed, Value>{.rows = x.size(0),
                                               .inputs = x.size(1),
                                               .outputs = y.size(1),
                                               .x = const_data<Value>(x),
                                               .x_stride = x.stride(0),
                                               .packed = const_data<Packed>(weight.panels),
                                               .y = mutable_data<Value>(y),
                                               .y_stride = y.stride(0)});
}

// Value: what the weight was before it was packed, and x and y are.
template <typename Value>
void multiply_as(const at::Tensor& x, const PackedMatrix& weight, at::Tensor& y) {
  switch (weight.layout) {
    case PackedMatrix::Layout::weights:
      return multiply<Value, Value>(x, weight, y);
    case PackedMatrix::Layout::int8:
      return multiply<kernels::Int8Group, Value>(x, weight, y);
    case PackedMatrix::Layout::grid4:
      return multiply<kernels::Grid4Group, Value>(x, weight, y);
    case PackedMatrix::Layout::grid8:
      return multiply<kernels::Grid8Group, Value>(x, weight, y);
  }
}

}  // namespace

PackedMatrix pack_matrix(const at::Tensor& weight, WeightFormat format, PanelMemory& memory) {
  TORCH_CHECK(weight.device().is_cpu(), "rows_linear: no kernel for ", weight.device());
  TORCH_CHECK(weight.dim() == 2 &&
                  (weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kBFloat16),
              "rows_linear: the weight is ", weight.sizes(), " of ", weight.scalar_type());
  const at::Tensor rows = weight.contiguous();
  PackedMatrix packed{.layout = {},
                      .type = weight.scalar_type(),
                      .outputs = weight.size(0),
                      .inputs = weight.size(1),
                      .panels = {}};
  if (packed.type == at::kFloat) {
    pack<float>(rows, format, memory, packed);
  } else {
    pack<kernels::Bf16>(rows, format, memory, packed);
  }
  return packed;
}

at::Tensor rows_linear(const at::Tensor& x, const PackedMatrix& weight) {
  TORCH_CHECK(x.dim() == 2 && x.size(1) == weight.inputs && x.scalar_type() == weight.type,
              "rows_linear: x is ", x.sizes(), " of ", x.scalar_type(), ", the weight takes ",
              weight.inputs, " inputs of ", weight.type);
  const at::Tensor rows = contiguous_rows(x);
  at::Tensor y = at::empty({x.size(0), weight.outputs}, rows.options());
  if (weight.type == at::kFloat) {
    multiply_as<float>(rows, weight, y);
  } else {
    multiply_as<kernels::Bf16>(rows, weight, y);
  }
  return y;
}

bool rows_are_invariant(const PackedMatrix& weight, int64_t rows) {
  const at::Tensor x = at::arange(rows * weight.inputs, at::kFloat)
                           .sin_()
                           .view({rows, weight.inputs})
                           .to(weight.type);
  const at::Tensor together = rows_linear(x, weight);
  for (const int64_t row : {int64_t{0}, rows / 2, rows - 1}) {
    const at::Tensor alone = rows_linear(x.narrow(0, row, 1), weight);
    // Bytes, because a weight that is not a number makes outputs that equal nothing.
    if (std::memcmp(alone.const_data_ptr(), together[row].const_data_ptr(), alone.nbytes()) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace mambify
