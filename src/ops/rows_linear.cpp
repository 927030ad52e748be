#include "ops/rows_linear.h"

#include <ATen/ATen.h>

#include "kernels/rows_linear/params.h"
#include "ops/rows.h"

namespace mambify {
namespace {

// Weight: how the kernel sees an element; Element: how LibTorch does.
template <typename Weight, typename Element>
void pack(const at::Tensor& weight, at::Tensor& panels) {
  kernels::pack_cpu<Weight>(
      {.outputs = weight.size(0),
       .inputs = weight.size(1),
       .weight = reinterpret_cast<const Weight*>(weight.const_data_ptr<Element>()),
       .packed = reinterpret_cast<Weight*>(panels.mutable_data_ptr<Element>())});
}

template <typename Weight, typename Element>
void multiply(const at::Tensor& x, const at::Tensor& panels, at::Tensor& y) {
  kernels::rows_linear_cpu<Weight>(
      {.rows = x.size(0),
       .inputs = x.size(1),
       .outputs = y.size(1),
       .x = x.const_data_ptr<float>(),
       .x_stride = x.stride(0),
       .packed = reinterpret_cast<const Weight*>(panels.const_data_ptr<Element>()),
       .y = y.mutable_data_ptr<float>(),
       .y_stride = y.stride(0)});
}

}  // namespace

PackedMatrix pack_matrix(const at::Tensor& weight) {
  TORCH_CHECK(weight.device().is_cpu(), "rows_linear: no kernel for ", weight.device());
  TORCH_CHECK(weight.dim() == 2 &&
                  (weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kBFloat16),
              "rows_linear: the weight is ", weight.sizes(), " of ", weight.scalar_type());
  const at::Tensor rows = weight.contiguous();
  PackedMatrix packed;
  packed.outputs = weight.size(0);
  packed.panels = at::empty({kernels::panels_of(packed.outputs), weight.size(1), kernels::kPanel},
                            weight.options());
  if (weight.scalar_type() == at::kFloat) {
    pack<float, float>(rows, packed.panels);
  } else {
    pack<kernels::Bf16, at::BFloat16>(rows, packed.panels);
  }
  return packed;
}

at::Tensor rows_linear(const at::Tensor& x, const PackedMatrix& weight) {
  TORCH_CHECK(x.dim() == 2 && x.size(1) == weight.inputs() &&
                  x.scalar_type() == weight.panels.scalar_type(),
              "rows_linear: x is ", x.sizes(), " of ", x.scalar_type(), ", the weight takes ",
              weight.inputs(), " inputs of ", weight.panels.scalar_type());
  const at::Tensor rows = float_rows(x);
  at::Tensor y = at::empty({x.size(0), weight.outputs}, rows.options());
  if (weight.panels.scalar_type() == at::kFloat) {
    multiply<float, float>(rows, weight.panels, y);
  } else {
    multiply<kernels::Bf16, at::BFloat16>(rows, weight.panels, y);
  }
  return in_type_of(x, y);
}

}  // namespace mambify
