// The backward pass: its kernels in order, and the sums over what blocks have in parts.
#include "kernels/ssd/cuda_gradients.cuh"

namespace mambify::kernels {
namespace ssd {
namespace {

// A block per head: sums of the chunks' parts, a plane of them by each of three warps.
__global__ void __launch_bounds__(96)
    add_chunks(const float* sums, int64_t chunks, float* dA, float* dD, float* dt_bias) {
  const int plane = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t heads = gridDim.x, head = blockIdx.x;
  wait_for_predecessor();
  const float* parts = sums + (plane * heads + head) * chunks;
  float sum = 0;
  for (int64_t i = lane; i < chunks; i += 32) sum += parts[i];
  sum = warp_sum(sum);
  float* to = plane == 0 ? dA : plane == 1 ? dD : dt_bias;
  if (lane == 0 && to) to[head] = sum;
}

// values[i, n] = the sum over the `each` parts[i each + ..., n]; `width` is a multiple of 4.
template <typename T>
__global__ void add_parts(const float* parts, int64_t quads, int width, int each, T* values) {
  wait_for_predecessor();
  const int64_t quad = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (quad >= quads) return;
  const int64_t row = quad * 4 / width, column = quad * 4 % width;
  float4 sum = make_float4(0, 0, 0, 0);
  for (int i = 0; i < each; ++i) {
    const float4 part = *reinterpret_cast<const float4*>(parts + (row * each + i) * width + column);
    sum = make_float4(sum.x + part.x, sum.y + part.y, sum.z + part.z, sum.w + part.w);
  }
  store_pair(values + quad * 4, sum.x, sum.y);
  store_pair(values + quad * 4 + 2, sum.z, sum.w);
}

template <typename T>
void finish_target(const Target<T>& target, int64_t tokens, int64_t groups, int64_t width,
                   CudaStream stream) {
  if (!target.parts || tokens == 0) return;
  constexpr int kThreads = 256;
  const int64_t quads = tokens * groups * width / 4;
  launch(add_parts<T>, dim3(static_cast<unsigned>((quads + kThreads - 1) / kThreads)),
         dim3(kThreads), 0, stream, target.parts, quads, static_cast<int>(width),
         static_cast<int>(target.slots / groups), target.whole);
}

template <typename T>
Target<T> target(T* whole, float* parts, int64_t groups, int64_t blocks) {
  return {whole, parts, static_cast<int>(parts ? blocks : groups)};
}

}  // namespace
}  // namespace ssd

template <typename T>
int64_t ssd_backward_scratch_bytes(const SsdCudaParams<T>& p) {
  return ssd::plan_backward(p).bytes;
}

template <typename T>
void ssd_backward_cuda(const SsdCudaBackwardParams<T>& b, CudaStream stream) {
  using namespace ssd;
  const SsdCudaParams<T>& p = b.forward;
  const Plan plan = plan_backward(p);
  require(reinterpret_cast<uintptr_t>(b.dy) % 16 == 0, "ssd: dy is not aligned to 16 bytes");
  const int64_t blocks = p.heads / heads_together(p);
  GradientParams<T> g{.b = b,
                      .dx = target(b.dx, plan.dx, p.x_groups, blocks),
                      .dB = target(b.dB, plan.dB, p.b_groups, blocks),
                      .dC = target(b.dC, plan.dC, p.c_groups, p.heads)};
  if (plan.chunks > 0) {
    prepare_chunks(p, plan, stream);
    scan_states(p, &b, plan, stream);
    g.table = plan.chunk;
    g.steps = plan.steps;
    g.states = static_cast<const T*>(plan.states);
    g.adjoints = static_cast<const T*>(plan.adjoints);
    g.sums = plan.sums;
    g.chunks = plan.chunks;
    g.heads_together = static_cast<int>(heads_together(p));
    launch_gradients(g, plan, stream);
  }
  launch(add_chunks, dim3(static_cast<unsigned>(p.heads)), dim3(96), 0, stream,
         static_cast<const float*>(plan.sums), plan.chunks, b.dA, p.D ? b.dD : nullptr,
         p.dt_bias ? b.ddt_bias : nullptr);
  finish_target(g.dx, p.tokens, p.x_groups, p.head_dim, stream);
  finish_target(g.dB, p.tokens, p.b_groups, p.d_state, stream);
  finish_target(g.dC, p.tokens, p.c_groups, p.d_state, stream);
}

template int64_t ssd_backward_scratch_bytes(const SsdCudaParams<float>&);
template int64_t ssd_backward_scratch_bytes(const SsdCudaParams<Bf16>&);
template void ssd_backward_cuda(const SsdCudaBackwardParams<float>&, CudaStream);
template void ssd_backward_cuda(const SsdCudaBackwardParams<Bf16>&, CudaStream);

}  // namespace mambify::kernels
