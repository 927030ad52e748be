#include "ops/decode_attention.h"

#include <ATen/ATen.h>
#include <ATen/TensorIndexing.h>

#include <cmath>
#include <cstddef>
#include <cstring>

#include "kernels/decode_attention/params.h"
#include "ops/rows.h"

namespace mambify {
namespace {

void check(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
           const std::vector<int64_t>& rows, const std::vector<int64_t>& lengths) {
  TORCH_CHECK(q.device().is_cpu(), "decode_attention: no kernel for ", q.device());
  TORCH_CHECK(q.dim() == 3 && keys.dim() == 4 && keys.sizes() == values.sizes() &&
                  q.size(2) == keys.size(3) && q.size(1) % keys.size(1) == 0,
              "decode_attention: q is ", q.sizes(), ", keys ", keys.sizes(), ", values ",
              values.sizes());
  TORCH_CHECK(q.scalar_type() == keys.scalar_type() && q.scalar_type() == values.scalar_type() &&
                  (q.scalar_type() == at::kFloat || q.scalar_type() == at::kBFloat16),
              "decode_attention: q is ", q.scalar_type(), ", the cache ", keys.scalar_type());
  TORCH_CHECK(keys.is_contiguous() && values.is_contiguous(),
              "decode_attention: the cache is not contiguous");
  const auto sequences = static_cast<size_t>(q.size(0));
  TORCH_CHECK(rows.size() == sequences && lengths.size() == sequences,
              "decode_attention: ", sequences, " sequences with ", rows.size(), " rows and ",
              lengths.size(), " lengths");
  for (size_t s = 0; s < sequences; ++s) {
    TORCH_CHECK(
        rows[s] >= 0 && rows[s] < keys.size(0) && lengths[s] >= 1 && lengths[s] <= keys.size(2),
        "decode_attention: row ", rows[s], ", length ", lengths[s], " of a cache ", keys.sizes());
  }
}

template <typename T>
void run(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
         const std::vector<int64_t>& rows, const std::vector<int64_t>& lengths, at::Tensor& y) {
  kernels::DecodeAttentionParams<T> p;
  p.sequences = q.size(0);
  p.heads = q.size(1);
  p.groups = keys.size(1);
  p.width = q.size(2);
  p.scale = 1 / std::sqrt(static_cast<float>(p.width));
  p.rows = rows.data();
  p.lengths = lengths.data();
  p.q = const_data<T>(q);
  p.keys = const_data<T>(keys);
  p.values = const_data<T>(values);
  p.row_stride = keys.stride(0);
  p.group_stride = keys.stride(1);
  p.y = mutable_data<T>(y);
  kernels::decode_attention_cpu(p);
}

}  // namespace

void store_in_cache(at::Tensor& cache, const at::Tensor& x, const at::Tensor& rows,
                    const at::Tensor& positions) {
  const int64_t tokens = x.size(0), groups = cache.size(1), width = cache.size(3);
  TORCH_CHECK(x.sizes() == at::IntArrayRef({tokens, groups, width}) &&
                  x.scalar_type() == cache.scalar_type() && rows.sizes() == positions.sizes() &&
                  rows.sizes() == at::IntArrayRef({tokens}),
              "store_in_cache: x is ", x.sizes(), " of ", x.scalar_type(), ", the cache ",
              cache.sizes(), " of ", cache.scalar_type(), ", rows ", rows.sizes(), ", positions ",
              positions.sizes());
  if (!cache.is_cpu()) {
    cache.index_put_({rows, {}, positions}, x);
    return;
  }
  // An indexed assignment takes LibTorch longer than the rest of a step's attention.
  const at::Tensor source = x.stride(2) == 1 ? x : x.contiguous();
  const auto bytes = static_cast<int64_t>(cache.element_size());
  const auto* row = rows.const_data_ptr<int64_t>();
  const auto* position = positions.const_data_ptr<int64_t>();
  const auto* from = static_cast<const std::byte*>(source.const_data_ptr());
  auto* to = static_cast<std::byte*>(cache.mutable_data_ptr());
  for (int64_t t = 0; t < tokens; ++t) {
    TORCH_CHECK(
        row[t] >= 0 && row[t] < cache.size(0) && position[t] >= 0 && position[t] < cache.size(2),
        "store_in_cache: row ", row[t], ", position ", position[t], " of a cache ", cache.sizes());
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t place =
          row[t] * cache.stride(0) + g * cache.stride(1) + position[t] * cache.stride(2);
      std::memcpy(to + place * bytes, from + (t * source.stride(0) + g * source.stride(1)) * bytes,
                  width * bytes);
    }
  }
}

at::Tensor decode_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                            const std::vector<int64_t>& rows, const std::vector<int64_t>& lengths) {
  check(q, keys, values, rows, lengths);
  const at::Tensor queries = q.contiguous();
  at::Tensor y = at::empty(queries.sizes(), queries.options());
  if (keys.scalar_type() == at::kFloat) {
    run<float>(queries, keys, values, rows, lengths, y);
  } else {
    run<kernels::Bf16>(queries, keys, values, rows, lengths, y);
  }
  return y;
}

}  // namespace mambify
