#include "kernels/multi_step/step.cuh"

namespace mambify::kernels {
namespace {

using namespace multi_step;

constexpr int kMostStates = 128, kMostRows = 128;
constexpr int kSpan = 4;  // tokens that a thread convolves at once, where there are several
constexpr int kChunk = 4 * kSpan;  // tokens in shared memory

// How a kernel divides the state of a head. kLanes threads hold a row of d_state, four states each;
// a thread holds such a piece of kRows rows, which share its reads of B and C. The rows that the
// threads of a block hold at once are a tile. kBlocks fit into a multiprocessor.
//
// kBuffered: a tile is loaded one ahead, the first while the kernel waits for its predecessor. If
// not, it is loaded from the L2 cache when it is needed, and the registers serve more rows instead.
// A tiling that spills states has to wait for them: worse than one with fewer of them under way.
template <int kLanes_, int kRows_, int kWarps_, int kStates_, int kBlocks_, bool kBuffered_>
struct Tiling {
  static constexpr int kLanes = kLanes_, kRows = kRows_, kWarps = kWarps_, kBlocks = kBlocks_;
  static constexpr int kStates = kStates_;  // 0: any number up to kMostStates
  static constexpr bool kExact = kStates > 0, kBuffered = kBuffered_;
  static constexpr int kWidth = 4 * kLanes;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRowsPerWarp = 32 / kLanes * kRows;
  static constexpr int kTileRows = kWarps * kRowsPerWarp;
  static_assert(kExact ? kStates == kWidth : kWidth == kMostStates);
};

// What the host decides. The grid is [blocks of a head, heads, sequences], and behind these what
// prefetches.
struct Division {
  int tiles;                          // that a block goes through
  Divider x_share, b_share, c_share;  // heads of a group
};

// Inputs of a chunk's tokens, convolved.
template <typename Tiling>
struct Inputs {
  float B[kChunk][Tiling::kWidth];
  float C[kChunk][Tiling::kWidth];
  float x[kChunk][kMostRows];
  float dt[kChunk];
  float decay[kChunk];
};

// Of kRows neighbouring rows.
template <int kRows>
__device__ inline void load_rows(float (&x)[kRows], const float* at) {
  if constexpr (kRows % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kRows; i += 4) {
      const float4 v = *reinterpret_cast<const float4*>(at + i);
      x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kRows; ++i) x[i] = at[i];
  }
}

// Turns B or C of `tokens` tokens from `position` on.
template <typename T, int kWidth>
__device__ void turn(float (*v)[kWidth], const Mamba2StepParams<T>& p, int position, int tokens) {
  const int half = static_cast<int>(p.d_state) / 2;
  for (int i = threadIdx.x; i < tokens * half; i += blockDim.x) {
    const int t = i / half, n = i % half;
    const int64_t angle = static_cast<int64_t>(position + t) * half + n;
    const float cos = p.cos[angle], sin = p.sin[angle];
    const float first = v[t][n], second = v[t][n + half];
    v[t][n] = round_to<T>(multiply_add(-second, sin, __fmul_rn(first, cos)));
    v[t][n + half] = round_to<T>(multiply_add(first, sin, __fmul_rn(second, cos)));
  }
}

// One channel of B, C or x that a thread convolves, of every token.
template <typename T>
struct Channel {
  Filter<T> filter;
  int input = 0;         // its place among the inputs
  int out = 0;           // in shared memory, for the first token
  int width = 0;         // there, from one token to the next
  bool is_zero = false;  // B and C are padded

  // kTokens tokens from `first` on, of those before `tokens`.
  template <int kTokens>
  __device__ void convolve(float* shared, const float (&window)[kTaps - 1 + kTokens], int first,
                           int tokens, bool activation) const {
    constexpr int kTogether = kTokens < 4 ? kTokens : 4;
#pragma unroll
    for (int begin = 0; begin < kTokens; begin += kTogether) {
      if (first + begin >= tokens) break;
      float y[kTogether];
#pragma unroll
      for (int k = 0; k < kTogether; ++k) y[k] = filter(window + begin + k, activation);
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        const int t = first + begin + k;
        if (t < tokens) shared[out + t * width] = is_zero ? 0.0f : y[k];
      }
    }
  }
};

// One block: some tiles of the state of one head of one sequence.
template <typename T, typename Tiling>
__global__ void __launch_bounds__(Tiling::kThreads, Tiling::kBlocks)
    mamba2_step(const Mamba2StepParams<T> p, const Prefetch next, const Division division) {
  constexpr int kRows = Tiling::kRows, kWidth = Tiling::kWidth, kThreads = Tiling::kThreads;
  constexpr int kTileRows = Tiling::kTileRows;
  __shared__ __align__(16) Inputs<Tiling> in;

  start_successor();
  const int head = blockIdx.y, number = blockIdx.z,
            extra = number - static_cast<int>(p.n_sequences);
  if (extra >= 0) {
    const int blocks = gridDim.x * gridDim.y;
    return prefetch_to_l2(next, extra * blocks + head * gridDim.x + blockIdx.x,
                          (gridDim.z - static_cast<int>(p.n_sequences)) * blocks);
  }
  const PassSequence s = load_sequence(p.sequences + number);
  const int heads = static_cast<int>(p.heads), P = static_cast<int>(p.head_dim);
  const int N = Tiling::kExact ? Tiling::kStates : static_cast<int>(p.d_state);
  const int thread = threadIdx.x, warp_lane = thread % 32;
  const int lane = warp_lane % Tiling::kLanes, first_state = 4 * lane;
  const int row_in_tile = thread / 32 * Tiling::kRowsPerWarp + warp_lane / Tiling::kLanes * kRows;
  const int first_row = blockIdx.x * division.tiles * kTileRows;
  const int rows = min(division.tiles * kTileRows, P - first_row);

  // A thread convolves the same channels of every token.
  constexpr int kPieces = (2 * kWidth + kMostRows + kThreads - 1) / kThreads;
  const int n_channels = 2 * kWidth + rows;
  const int d_conv = static_cast<int>(p.d_conv);
  const int b_offset = static_cast<int>(p.x_groups) * P;
  const int c_offset = b_offset + static_cast<int>(p.b_groups) * N;
  const int dt_offset = c_offset + static_cast<int>(p.c_groups) * N;
  Channel<T> channels[kPieces];
  const auto load_channels = [&] {
    const int first_b = b_offset + division.b_share(head) * N;
    const int first_c = c_offset + division.c_share(head) * N;
    const int first_x = division.x_share(head) * P + first_row;
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      const int i = min(thread + piece * kThreads, n_channels - 1);
      const int n = i % kWidth, r = i - 2 * kWidth;
      Channel<T>& mine = channels[piece];
      const bool is_x = i >= 2 * kWidth, is_c = i >= kWidth;
      mine.input = is_x ? first_x + r : (is_c ? first_c : first_b) + min(n, N - 1);
      mine.out = is_x ? 2 * kChunk * kWidth + r : (is_c ? kChunk * kWidth : 0) + n;
      mine.width = is_x ? kMostRows : kWidth;
      mine.is_zero = !Tiling::kExact && !is_x && n >= N;
      mine.filter = Filter<T>(p.conv_weight, p.conv_bias, mine.input, d_conv);
    }
  };
  load_channels();
  const float dt_bias = p.dt_bias[head], A = p.A[head], D = p.D[head];

  // The state is on its way while the kernel waits, loaded also where it is not read: a branch
  // would wait for what is loaded before it.
  float* state = p.state + ((s.row * p.heads + head) * P + first_row) * static_cast<int64_t>(N);
  const auto load_tile = [&](float(&h)[kRows][4], int tile) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int row = min(tile * kTileRows + row_in_tile + i, rows - 1);
      load_states<Tiling::kExact>(h[i], state + row * N, first_state, N);
    }
  };
  float following[kRows][4];
  if constexpr (Tiling::kBuffered) load_tile(following, 0);
  constexpr int kRequested = Tiling::kBuffered ? kTileRows : 0;
  if (Tiling::kExact && rows > kRequested && thread == 0) {
    prefetch_span(state + kRequested * N,
                  (rows - kRequested) * N * static_cast<int>(sizeof(float)));
  }
  const int total = s.pending + s.tokens;
  const int stride = static_cast<int>(p.input_stride), slots = static_cast<int>(p.ring_slots);
  Places places(s, slots, s.base);

  wait_for_predecessor();
  if (total == 0) return;
  for (int tile = 0; tile * kTileRows < rows; ++tile) {
    const int row = tile * kTileRows + row_in_tile;
    float h[kRows][4];
    if constexpr (Tiling::kBuffered) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
#pragma unroll
        for (int n = 0; n < 4; ++n) h[i][n] = s.base == 0 ? 0.0f : following[i][n];
      }
      if ((tile + 1) * kTileRows < rows) load_tile(following, tile + 1);
    }

    for (int begin = 0; begin < total; begin += kChunk) {
      const int tokens = min(kChunk, total - begin);
      // The inputs of one chunk serve all tiles.
      if (tile == 0 || total > kChunk) {
        if (tile > 0 || begin > 0) {
          __syncthreads();
          load_channels();
          places = Places(s, slots, s.base + begin);
        }
        // The last warp has the fewest channels.
        const int dt_token = thread - (kThreads - 32);
        float raw_dt = 0;
        if (dt_token >= 0) {
          raw_dt = input_at(p.inputs + dt_offset + head, stride, places, min(dt_token, tokens - 1));
        }
        // kTokens tokens at once, of kTogether pieces that are on their way together.
        const auto convolve = [&]<int kTokens, int kTogether>() {
          for (int first = 0; first < tokens; first += kTokens) {
#pragma unroll
            for (int begin_piece = 0; begin_piece < kPieces; begin_piece += kTogether) {
              if (thread + begin_piece * kThreads >= n_channels) break;
              float windows[kTogether][kTaps - 1 + kTokens];
#pragma unroll
              for (int i = 0; i < kTogether; ++i) {
                const Channel<T>& channel = channels[begin_piece + i];
                channel.filter.template load<kTokens>(windows[i], p.inputs + channel.input, stride,
                                                      places, first, tokens - 1);
              }
#pragma unroll
              for (int i = 0; i < kTogether; ++i) {
                if (thread + (begin_piece + i) * kThreads >= n_channels) break;
                channels[begin_piece + i].template convolve<kTokens>(in.B[0], windows[i], first,
                                                                     tokens, p.conv_activation);
              }
            }
          }
        };
        if (tokens == 1) {
          convolve.template operator()<1, kPieces>();
        } else if (tokens == 2) {
          convolve.template operator()<2, kPieces>();
        } else {
          convolve.template operator()<kSpan, 1>();
        }
        if (dt_token >= 0 && dt_token < tokens) {
          const float dt = fminf(fmaxf(softplus(__fadd_rn(raw_dt, dt_bias)), p.dt_min), p.dt_max);
          in.dt[dt_token] = dt;
          in.decay[dt_token] = fast_exp2(__fmul_rn(__fmul_rn(dt, A), kLog2E));
        }
        __syncthreads();
        if (p.cos != nullptr) {
          turn(in.B, p, s.base + begin, tokens);
          turn(in.C, p, s.base + begin, tokens);
          __syncthreads();
        }
      }

      if (!Tiling::kBuffered && begin == 0) {
        load_tile(h, tile);
        if (s.base == 0) {
#pragma unroll
          for (int i = 0; i < kRows; ++i) h[i][0] = h[i][1] = h[i][2] = h[i][3] = 0;
        }
      }
      // kCount tokens from `first` on, of those before `tokens`.
      const auto step = [&]<int kCount>(int first) {
        float sums[kCount * kRows] = {};
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
          const int t = first + k;
          if (kCount == 1 || t < tokens) {
            float B[4], C[4], x[kRows];
            load_shared(B, in.B[t] + first_state);
            load_shared(C, in.C[t] + first_state);
            load_rows(x, in.x[t] + row);
            const float dt = in.dt[t], decay = in.decay[t];
#pragma unroll
            for (int i = 0; i < kRows; ++i) {
              const float u = __fmul_rn(dt, x[i]);
              float sum;
#pragma unroll
              for (int n = 0; n < 4; ++n) {
                h[i][n] = multiply_add(decay, h[i][n], __fmul_rn(u, B[n]));
                sum = n == 0 ? __fmul_rn(h[i][n], C[n]) : multiply_add(h[i][n], C[n], sum);
              }
              sums[k * kRows + i] = sum;
            }
            if (begin + t + 1 == s.commit) {
#pragma unroll
              for (int i = 0; i < kRows; ++i) {
                if (row + i < rows) {
                  store_states<Tiling::kExact>(state + (row + i) * N, h[i], first_state, N);
                }
              }
            }
          }
        }
        if (begin + min(first + kCount, tokens) <= s.pending) return;
        const float sum = sum_over_lanes<kCount * kRows, Tiling::kLanes>(sums, lane);
        constexpr int kCopies = Tiling::kLanes / (kCount * kRows);
        const int t = first + lane / kCopies / kRows, i = lane / kCopies % kRows;
        const int new_token = begin + t - s.pending;
        if (lane % kCopies == 0 && t < tokens && new_token >= 0 && row + i < rows) {
          p.y[(static_cast<int64_t>(s.first + new_token) * heads + head) * P + first_row + row +
              i] = rounded<T>(multiply_add(D, in.x[t][row + i], sum));
        }
      };
      if (tokens == 1) {
        step.template operator()<1>(0);
      } else {
#pragma unroll 1
        for (int first = 0; first < tokens; first += kQuad) {
          step.template operator()<kQuad>(first);
        }
      }
    }
  }
}

// A head's tiles share a convolution where there are blocks enough without dividing it.
bool is_divided(int64_t n_sequences, int64_t heads) {
  constexpr int64_t kManyHeads = 100;
  return n_sequences * heads < kManyHeads;
}

template <typename Tiling, typename T>
void launch_step(const Mamba2StepParams<T>& p, const Prefetch& next, CudaStream stream) {
  const int64_t tiles = (p.head_dim + Tiling::kTileRows - 1) / Tiling::kTileRows;
  const int64_t together = is_divided(p.n_sequences, p.heads) ? 1 : tiles;
  const int64_t blocks = (tiles + together - 1) / together, plane = blocks * p.heads;
  const int64_t prefetching = (prefetch_blocks(next) + plane - 1) / plane;
  const Division division{.tiles = static_cast<int>(together),
                          .x_share = Divider(p.heads / p.x_groups),
                          .b_share = Divider(p.heads / p.b_groups),
                          .c_share = Divider(p.heads / p.c_groups)};
  launch(mamba2_step<T, Tiling>, dim3(blocks, p.heads, p.n_sequences + prefetching),
         dim3(Tiling::kThreads), /*shared=*/0, stream, p, next, division);
}

}  // namespace

template <typename T>
void mamba2_step_cuda(const Mamba2StepParams<T>& p, const Prefetch& next, CudaStream stream) {
  const auto within = [](int64_t value, int64_t most) { return value >= 1 && value <= most; };
  require(within(p.head_dim, kMostStates), "Mamba-2 on CUDA: head_dim is not 1 to 128");
  require(within(p.d_state, kMostStates), "Mamba-2 on CUDA: d_state is not 1 to 128");
  require(within(p.d_conv, kTaps), "Mamba-2 on CUDA: d_conv is not 1 to 4");
  if (p.n_sequences == 0) return;
  if (p.d_state == 128 && is_divided(p.n_sequences, p.heads)) {
    return launch_step<Tiling<32, 4, 8, 128, 2, /*kBuffered=*/true>>(p, next, stream);
  }
  if (p.d_state == 128) {
    return launch_step<Tiling<32, 8, 8, 128, 2, /*kBuffered=*/false>>(p, next, stream);
  }
  if (p.d_state == 64) {
    return launch_step<Tiling<16, 2, 4, 64, 4, /*kBuffered=*/true>>(p, next, stream);
  }
  return launch_step<Tiling<32, 2, 4, 0, 4, /*kBuffered=*/true>>(p, next, stream);
}

template void mamba2_step_cuda(const Mamba2StepParams<float>&, const Prefetch&, CudaStream);
template void mamba2_step_cuda(const Mamba2StepParams<Bf16>&, const Prefetch&, CudaStream);

}  // namespace mambify::kernels
