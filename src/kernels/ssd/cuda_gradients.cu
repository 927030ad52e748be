// Gradients of a chunk from dy, the state before it and the gradient of the state after it.
#include "kernels/ssd/cuda_step_gradients.cuh"

namespace mambify::kernels::ssd {
namespace {

template <typename T, int kP, int kN, int kRowParts, int kColumnParts>
struct GradientTiles {
  static constexpr int kTokens = kChunk<T>;

  // What a head reads of its own.
  struct Head {
    T C[kTokens * pitch_of<T>(kN)];
    T dy[kTokens * pitch_of<T>(kP)];
    float steps[kStepRows][kTokens];
  };
  T x[kTokens * pitch_of<T>(kP)];
  T B[kTokens * pitch_of<T>(kN)];
  T state[kP * pitch_of<T>(kN)];
  T adjoint[kP * pitch_of<T>(kN)];
  // [input, output]: what an output has of an input, and what its gradient has of the input's.
  T weights[kTokens * pitch_of<T>(kTokens)];
  T products[kTokens * pitch_of<T>(kTokens)];
  StepSums<kTokens, kRowParts, kColumnParts>
      sums[2];  // of this head and the one before, which may still be summed up
  // One or two of Head follow.
};

template <typename T, int kP, int kN, int kRowParts, int kColumnParts>
constexpr int shared_bytes(int head_buffers) {
  using Tiles = GradientTiles<T, kP, kN, kRowParts, kColumnParts>;
  static_assert(sizeof(Tiles) % 16 == 0);
  return static_cast<int>(sizeof(Tiles) + head_buffers * sizeof(typename Tiles::Head));
}

// The sum over this lane's pairs of each of its rows, added over the four lanes that share a row,
// goes to rows[...].
template <int kRowTiles>
__device__ inline void store_row_sums(const float (&sums)[2 * kRowTiles], float* rows) {
#pragma unroll
  for (int r = 0; r < 2 * kRowTiles; ++r) {
    float sum = sums[r];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    if (threadIdx.x % 4 == 0) rows[Fragment<kRowTiles, 1>::lane_row() + 8 * r] = sum;
  }
}

// Inner products of a fragment's rows with those of a tile.
template <int kRowTiles, int kColumnTiles, typename T>
__device__ inline void store_row_products(Fragment<kRowTiles, kColumnTiles>& c, const T* tile,
                                          int pitch, float* rows) {
  float sums[2 * kRowTiles] = {};
  c.each_pair([&](int r, int, int row, int column, float low, float high) {
    const float2 other = load_pair(tile + row * pitch + column);
    sums[r] = multiply_add(low, other.x, multiply_add(high, other.y, sums[r]));
  });
  store_row_sums<kRowTiles>(sums, rows);
}

// A block per chunk and heads that share x and B.
template <typename T, int kP, int kN, int kRowParts, int kColumnParts>
__global__ void __launch_bounds__(32 * kRowParts * kColumnParts)
    gradients_of_chunks(GradientParams<T> p) {
  using Tiles = GradientTiles<T, kP, kN, kRowParts, kColumnParts>;
  constexpr int kTokens = kChunk<T>, kThreads = 32 * kRowParts * kColumnParts;
  constexpr int kRows = kTokens / kRowParts, kRowTiles = kRows / 16;
  // Columns of a warp in matrices over outputs, head_dim and d_state.
  constexpr int kOutputs = kTokens / kColumnParts, kColumnsP = kP / kColumnParts,
                kColumnsN = kN / kColumnParts;
  extern __shared__ __align__(16) char shared[];
  Tiles& tiles = *reinterpret_cast<Tiles*>(shared);
  const SsdCudaParams<T>& in = p.b.forward;
  const int heads = static_cast<int>(in.heads), P = static_cast<int>(in.head_dim),
            N = static_cast<int>(in.d_state);
  const int blocks = heads / p.heads_together;
  const int64_t chunk = blockIdx.x / blocks;
  const int slot = static_cast<int>(blockIdx.x) % blocks, first_head = slot * p.heads_together;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const int row = warp / kColumnParts * kRows, part = warp % kColumnParts;
  const auto group = [&](int head, int64_t groups) {
    return head / (heads / static_cast<int>(groups));
  };
  wait_for_predecessor();
  const Chunk place = p.table[chunk];
  if (place.tokens == 0) {
    for (int i = thread; i < 3 * p.heads_together; i += kThreads) {
      const int head = first_head + i / 3;
      p.sums[(i % 3 * in.heads + head) * p.chunks + chunk] = 0;
    }
    return;
  }
  const int64_t token = place.token;

  const auto head_tiles = [&](int j) -> typename Tiles::Head& {
    auto* buffers = reinterpret_cast<typename Tiles::Head*>(shared + sizeof(Tiles));
    return buffers[p.head_buffers == 2 ? j % 2 : 0];
  };
  const auto ask_for_head = [&](int j) {
    const int head = first_head + j;
    auto& to = head_tiles(j);
    copy_tile<kTokens, kN, kThreads>(to.C,
                                     in.C + token * in.c_stride + group(head, in.c_groups) * N,
                                     in.c_stride, place.tokens, N);
    copy_tile<kTokens, kP, kThreads>(to.dy, p.b.dy + (token * heads + head) * P, int64_t{heads} * P,
                                     place.tokens, P);
    const float* steps = p.steps + (chunk * heads + head) * kStepRows * kTokens;
    for (int i = thread * 4; i < kStepRows * kTokens; i += kThreads * 4) {
      copy_async(to.steps[0] + i, steps + i);
    }
  };
  // Each a group of copies: the head's tiles, its state, its adjoint.
  const auto ask_for_states = [&](int j) {
    const int64_t at = (chunk * heads + first_head + j) * kP * kN;
    copy_tile<kP, kN, kThreads>(tiles.state, p.states + at, kN, kP, kN);
    end_copy_group();
    copy_tile<kP, kN, kThreads>(tiles.adjoint, p.adjoints + at, kN, kP, kN);
    end_copy_group();
  };
  copy_tile<kTokens, kP, kThreads>(tiles.x,
                                   in.x + token * in.x_stride + group(first_head, in.x_groups) * P,
                                   in.x_stride, place.tokens, P);
  copy_tile<kTokens, kN, kThreads>(tiles.B,
                                   in.B + token * in.b_stride + group(first_head, in.b_groups) * N,
                                   in.b_stride, place.tokens, N);
  ask_for_head(0);
  end_copy_group();
  ask_for_states(0);

  Fragment<kRowTiles, kColumnsP / 8> dx;
  Fragment<kRowTiles, kColumnsN / 8> dB;
#pragma unroll 1
  for (int j = 0; j < p.heads_together; ++j) {
    const int head = first_head + j;
    const auto& of_head = head_tiles(j);
    auto& sums = tiles.sums[j % 2];
    const auto& step = of_head.steps;
    await_copies<2>();
    __syncthreads();
    const bool early = p.head_buffers == 2, more = j + 1 < p.heads_together;
    if (early && more) ask_for_head(j + 1);
    end_copy_group();

    // Of inputs (rows) and outputs (columns): B C^T and x dy^T, each decayed and, where it is a
    // factor of what follows, times s.
    {
      Fragment<kRowTiles, kOutputs / 8> scores, products;
      if (part * kOutputs + kOutputs > row) {
        multiply<kN>(scores, along<kN>(tiles.B) + row, along<kN>(of_head.C) + part * kOutputs);
        multiply<kP>(products, along<kP>(tiles.x) + row, along<kP>(of_head.dy) + part * kOutputs);
      }
      const float D = in.D ? in.D[head] : 0.0f;
      float of_input[2 * kRowTiles] = {}, of_output[2 * (kOutputs / 8)] = {};
      scores.each_pair([&](int r, int c, int k_in_part, int i_in_part, float low, float high) {
        const int k = row + k_in_part, first = part * kOutputs + i_in_part;
        const float* product = products.at[r / 2][c] + r % 2 * 2;
        const float s = step[kStep][k], from = step[kLogDecay][k];
        float weights[2], decayed[2];
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          const int i = first + n;
          const float decay = i < k ? 0.0f : fast_exp2(step[kLogDecay][i] - from);
          const float score = (n == 0 ? low : high) * decay;
          const float both = score * product[n];
          weights[n] = score * s + (i == k ? D : 0.0f);
          decayed[n] = product[n] * decay * s;
          if (i == k) {
            sums.own_score[k] = both;
            sums.own_product[k] = product[n];
          } else {
            of_input[r] += both;
            of_output[2 * c + n] += both * s;
          }
        }
        const int at = k * pitch_of<T>(kTokens) + first;
        store_pair(tiles.weights + at, weights[0], weights[1]);
        store_pair(tiles.products + at, decayed[0], decayed[1]);
      });
      store_row_sums<kRowTiles>(of_input, sums.scores_of_input[part] + row);
#pragma unroll
      for (int c = 0; c < 2 * (kOutputs / 8); ++c) {
        float sum = of_output[c];
#pragma unroll
        for (int distance = 4; distance < 32; distance *= 2) {
          sum += __shfl_xor_sync(~0u, sum, distance);
        }
        if (thread % 32 < 4) {
          sums.scores_of_output[warp / kColumnParts]
                               [part * kOutputs + scores.lane_column() + c / 2 * 8 + c % 2] = sum;
        }
      }
    }

    await_copies<2>();
    __syncthreads();
    {
      Fragment<kRowTiles, kColumnsN / 8> dC;
      multiply<kP>(dC, along<kP>(of_head.dy) + row, across<kN>(tiles.state) + part * kColumnsN);
      dC.each_pair([&](int, int, int r, int, float& low, float& high) {
        const float decay = step[kSinceBegin][row + r];
        low *= decay, high *= decay;
      });
      store_row_products(dC, of_head.C + row * pitch_of<T>(kN) + part * kColumnsN, pitch_of<T>(kN),
                         sums.state_to_output[part] + row);
      multiply<kTokens>(dC, across<kTokens>(tiles.products) + row,
                        across<kN>(tiles.B) + part * kColumnsN, 0, row + kRows);
      p.dC.store(dC, token + row, group(head, p.dC.slots), N, part * kColumnsN, place.tokens - row);
    }

    await_copies<1>();
    __syncthreads();
    {
      constexpr int kSize = Vector<T>::kSize;
      float sum = 0;
      for (int i = thread * kSize; i < kP * kN; i += kThreads * kSize) {
        const int at = i / kN * pitch_of<T>(kN) + i % kN;
        const auto h = unpack<T>(*reinterpret_cast<const uint4*>(tiles.state + at)),
                   g = unpack<T>(*reinterpret_cast<const uint4*>(tiles.adjoint + at));
#pragma unroll
        for (int n = 0; n < kSize; ++n) sum = multiply_add(h.values[n], g.values[n], sum);
      }
      sum = warp_sum(sum);
      if (thread % 32 == 0) sums.state_to_adjoint[warp] = sum;
    }
    const auto add_weighted = [&](auto& to, auto& from) {
      from.each_pair([&](int r, int c, int k, int, float low, float high) {
        const float weight = step[kInput][row + k];
        float* sum = to.at[r / 2][c] + r % 2 * 2;
        sum[0] = multiply_add(weight, low, sum[0]);
        sum[1] = multiply_add(weight, high, sum[1]);
      });
    };
    {
      Fragment<kRowTiles, kColumnsN / 8> from_end;
      multiply<kP>(from_end, along<kP>(tiles.x) + row,
                   across<kN>(tiles.adjoint) + part * kColumnsN);
      add_weighted(dB, from_end);
      multiply<kTokens>(dB, along<kTokens>(tiles.products) + row,
                        across<kN>(of_head.C) + part * kColumnsN, row, kTokens);
    }
    {
      Fragment<kRowTiles, kColumnsP / 8> from_end;
      multiply<kN>(from_end, along<kN>(tiles.B) + row, along<kN>(tiles.adjoint) + part * kColumnsP);
      store_row_products(from_end, tiles.x + row * pitch_of<T>(kP) + part * kColumnsP,
                         pitch_of<T>(kP), sums.input_to_adjoint[part] + row);
      add_weighted(dx, from_end);
      multiply<kTokens>(dx, along<kTokens>(tiles.weights) + row,
                        across<kP>(of_head.dy) + part * kColumnsP, row, kTokens);
    }
    __syncthreads();
    if (warp == 0) finish_steps(p, of_head.steps, sums, place, chunk, head);
    if (more) {
      if (!early) {
        // The steps are among what is overwritten.
        __syncthreads();
        ask_for_head(j + 1);
        end_copy_group();
      }
      ask_for_states(j + 1);
    }
  }
  p.dx.store(dx, token + row, slot, P, part * kColumnsP, place.tokens - row);
  p.dB.store(dB, token + row, slot, N, part * kColumnsN, place.tokens - row);
}

// Two buffers, where they fit, hide a head's copies behind the work on the one before; small tiles
// are better off with more blocks at once.
template <typename T, int kP, int kN, int kRowParts, int kColumnParts>
int head_buffers() {
  int device = 0, most = 0;
  check_cuda(cudaGetDevice(&device));
  check_cuda(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  const auto fit = [&](int buffers) {
    return shared_bytes<T, kP, kN, kRowParts, kColumnParts>(buffers) <= most;
  };
  require(fit(1), "ssd: head_dim and d_state take more shared memory than this device has");
  return kP * kN > 64 * 64 && fit(2) ? 2 : 1;
}

}  // namespace

template <typename T>
void launch_gradients(GradientParams<T>& p, const Plan& plan, CudaStream stream) {
  with_widths(plan, [&]<int kP, int kN>() {
    constexpr bool kSmall = kP == 64 && kN == 64, kNarrow = sizeof(T) == 2;
    constexpr int kRowParts = 2, kColumnParts = kNarrow && kSmall ? 2 : 4;
    p.head_buffers = head_buffers<T, kP, kN, kRowParts, kColumnParts>();
    launch_with_shared(gradients_of_chunks<T, kP, kN, kRowParts, kColumnParts>,
                       plan.chunks * (plan.heads / p.heads_together), 32 * kRowParts * kColumnParts,
                       shared_bytes<T, kP, kN, kRowParts, kColumnParts>(p.head_buffers), stream, p);
  });
}

template void launch_gradients(GradientParams<float>&, const Plan&, CudaStream);
template void launch_gradients(GradientParams<Bf16>&, const Plan&, CudaStream);

}  // namespace mambify::kernels::ssd
