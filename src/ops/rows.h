// What the ops around kernels share: views of their inputs in the types that kernels compute with.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <initializer_list>
#include <optional>
#include <type_traits>

#include "kernels/bf16.h"

namespace mambify {

// True when autograd would record an operation on these tensors; undefined ones are skipped.
inline bool needs_gradient(std::initializer_list<at::Tensor> tensors) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.defined() && tensor.requires_grad()) return true;
  }
  return false;
}

// True when all are bf16: kernels of forward passes then read and write it as it is.
inline bool are_bf16(std::initializer_list<at::Tensor> tensors) {
  for (const at::Tensor& tensor : tensors) {
    if (tensor.defined() && tensor.scalar_type() != at::kBFloat16) return false;
  }
  return true;
}

// The tensor with everything behind its first dimension contiguous; stride(0) is free. No copy when
// it already is so.
inline at::Tensor contiguous_rows(const at::Tensor& tensor) {
  int64_t expected = 1;
  for (int64_t d = tensor.dim() - 1; d > 0; --d) {
    if (tensor.size(d) != 1 && tensor.stride(d) != expected) return tensor.contiguous();
    expected *= tensor.size(d);
  }
  return tensor;
}

// The dtype of a kernel's T.
template <typename T>
inline constexpr at::ScalarType kTypeOf =
    std::is_same_v<T, kernels::Bf16> ? at::kBFloat16 : at::kFloat;

// contiguous_rows in a kernel's T; undefined stays undefined.
template <typename T>
at::Tensor rows_as(const at::Tensor& tensor) {
  return tensor.defined() ? contiguous_rows(tensor.to(kTypeOf<T>)) : tensor;
}
inline at::Tensor float_rows(const at::Tensor& tensor) { return rows_as<float>(tensor); }

// In a kernel's T and contiguous; undefined stays undefined.
template <typename T>
at::Tensor contiguous_as(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.to(kTypeOf<T>).contiguous() : tensor;
}
inline at::Tensor float_contiguous(const at::Tensor& tensor) {
  return contiguous_as<float>(tensor);
}

// Memory for a kernel on the device of a tensor.
inline at::Tensor scratch_beside(const at::Tensor& tensor, int64_t bytes) {
  return at::empty({bytes}, tensor.options().dtype(at::kByte));
}

// How an input that may be undefined is given to Function::apply, which takes no undefined tensors.
// Where it has no value, it has no place in AutogradContext::needs_input_grad either.
inline std::optional<at::Tensor> optional_input(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

// The data of a tensor of a kernel's T; null when it is undefined.
template <typename T>
const T* const_data(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<const T*>(tensor.const_data_ptr()) : nullptr;
}
template <typename T>
T* mutable_data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// The data of a fp32 tensor, null when it is undefined.
inline const float* data_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
}

// For backward passes: an uninitialised contiguous fp32 tensor of the sizes of `like`, in `out`,
// and its data. Undefined and null where `like` is undefined.
inline float* allocate_like(const at::Tensor& like, at::Tensor& out) {
  if (!like.defined()) return nullptr;
  out = at::empty(like.sizes(), like.options().dtype(at::kFloat));
  return out.mutable_data_ptr<float>();
}

// A gradient in the dtype of what it is the gradient of; undefined stays undefined.
inline at::Tensor in_type_of(const at::Tensor& tensor, const at::Tensor& gradient) {
  return gradient.defined() ? gradient.to(tensor.scalar_type()) : gradient;
}

}  // namespace mambify
