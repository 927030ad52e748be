#include "kernels/multi_step/dt_tile.cuh"

namespace mambify::kernels {
namespace {

using namespace multi_step;

constexpr int kMostStates = 128;
constexpr int kMostTokens = 24;  // in shared memory
constexpr int kSharedBytes = 48 << 10;

// How a kernel divides the states. kLanes threads hold a channel, four states each; a thread holds
// such a piece of kChannels channels, which share its reads of B and C. kBlocks fit into a
// multiprocessor.
template <int kLanes_, int kChannels_, int kWarps_, int kStates_, int kBlocks_>
struct Tiling {
  static constexpr int kLanes = kLanes_, kChannels = kChannels_, kWarps = kWarps_;
  static constexpr int kBlocks = kBlocks_;
  static constexpr int kStates = kStates_;  // 0: any number up to kMostStates
  static constexpr bool kExact = kStates > 0;
  static constexpr int kWidth = 4 * kLanes;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kWarpChannels = 32 / kLanes * kChannels;
  static constexpr int kBlockChannels = kWarps * kWarpChannels;
  // Tokens that the threads prepare at once, and times that they do so with loads under way.
  static constexpr int kTokensAtOnce = kThreads / kBlockChannels;
  static constexpr int kRounds = kTokensAtOnce >= 8 ? 1 : 3;
  static_assert(kThreads % kBlockChannels == 0);
  static_assert(kExact ? kStates == kWidth : kWidth == kMostStates);
};

// Whether there is a kernel of this tiling that projects dt: where a block's channels are a tile of
// the product, for the number of states that published models have.
template <typename T, typename Tiling>
constexpr bool kCanProject = sizeof(T) == sizeof(Bf16) && Tiling::kStates == 16 &&
                             Tiling::kBlockChannels == DtTile::kChannels;
// It takes more registers.
template <typename Tiling, bool kProjects>
constexpr int kResidentBlocks = kProjects ? Tiling::kBlocks * 2 / 3 : Tiling::kBlocks;

// What the host decides. The grid is [blocks of a sequence, sequences], and behind these what
// prefetches.
struct Division {
  Divider b_share, c_share;  // channels of a group
  Divider repeats;           // channels of d_inner for one of d_xb
  int b_groups, c_groups;    // that the channels of a block may touch
  int chunk;                 // tokens in shared memory, a multiple of kQuad
  int split;                 // of the sum that is dt
};

// What a channel needs of one token.
struct __align__(16) Input {
  float dt;
  float dt_x;
  float D_x;
  float gate;  // silu(z)
};

// A ring of B or of C from a group on, and where a block keeps `groups` groups of a chunk's tokens:
// [tokens, groups, kWidth].
template <typename T>
struct Staged {
  const T* ring;
  int stride, groups;
  float* out;

  __device__ float load(int t, int group, int n, int N, const Places& places) const {
    return input_at(ring + min(group, groups - 1) * N + n, stride, places, t);
  }
};

// Copies B and C of a chunk's tokens, with zeros behind each group's N.
template <typename Tiling, typename T>
__device__ inline void stage(const Staged<T>& B, const Staged<T>& C, int N, const Places& places,
                             int tokens) {
  constexpr int kWidth = Tiling::kWidth, kAtOnce = Tiling::kThreads / kWidth, kLoads = 4;
  const int n = threadIdx.x % kWidth, n_loaded = min(n, N - 1);
#pragma unroll 1
  for (int group = 0; group < max(B.groups, C.groups); ++group) {
#pragma unroll 1
    for (int first = threadIdx.x / kWidth; first < tokens; first += kLoads * kAtOnce) {
      float b[kLoads], c[kLoads];
#pragma unroll
      for (int load = 0; load < kLoads; ++load) {
        const int t = min(first + load * kAtOnce, tokens - 1);
        b[load] = B.load(t, group, n_loaded, N, places);
        c[load] = C.load(t, group, n_loaded, N, places);
      }
#pragma unroll
      for (int load = 0; load < kLoads; ++load) {
        const int t = first + load * kAtOnce;
        if (t >= tokens) break;
        if (group < B.groups) B.out[(t * B.groups + group) * kWidth + n] = n < N ? b[load] : 0.0f;
        if (group < C.groups) C.out[(t * C.groups + group) * kWidth + n] = n < N ? c[load] : 0.0f;
      }
    }
  }
}

// One block: kBlockChannels channels of one sequence. kProjects: dt of new tokens is computed here,
// and x has been convolved.
template <typename T, typename Tiling, bool kProjects>
__global__ void __launch_bounds__(Tiling::kThreads, kResidentBlocks<Tiling, kProjects>)
    mamba1_step(const Mamba1StepParams<T> p, const Prefetch next, const Division division) {
  constexpr int kChannels = Tiling::kChannels, kBlockChannels = Tiling::kBlockChannels;
  constexpr int kWidth = Tiling::kWidth, kLanes = Tiling::kLanes;
  extern __shared__ __align__(16) Input inputs[];  // [chunk, kBlockChannels], then B, C and dt
  float* B = reinterpret_cast<float*>(inputs + division.chunk * kBlockChannels);
  float* C = B + division.chunk * division.b_groups * kWidth;
  float* projected = C + division.chunk * division.c_groups * kWidth;  // [tokens, kBlockChannels]

  start_successor();
  const int number = blockIdx.y, extra = number - static_cast<int>(p.n_sequences);
  if (extra >= 0) {
    return prefetch_to_l2(next, extra * gridDim.x + blockIdx.x,
                          (gridDim.y - static_cast<int>(p.n_sequences)) * gridDim.x);
  }
  const PassSequence s = load_sequence(p.sequences + number);
  // One warp projects.
  const auto dt_tile = [&] {
    if constexpr (kProjects) {
      return DtTile(p, reinterpret_cast<uint4*>(projected + DtTile::kTokens * kBlockChannels));
    }
  };
  const bool has_tile = kProjects && threadIdx.x < 32 && s.tokens > 0;
  if constexpr (kProjects) {
    if (has_tile) dt_tile().request_weight(blockIdx.x * kBlockChannels);
  }
  const int N = Tiling::kExact ? Tiling::kStates : static_cast<int>(p.d_state);
  const int d_inner = static_cast<int>(p.d_inner), first_channel = blockIdx.x * kBlockChannels;
  const int last_channel = min(first_channel + kBlockChannels, d_inner) - 1;
  const int thread = threadIdx.x, warp_lane = thread % 32;
  const int lane = warp_lane % kLanes, first_state = 4 * lane;
  const int local = thread / 32 * Tiling::kWarpChannels + warp_lane / kLanes * kChannels;
  const int channel = first_channel + local;

  // e^(dt A) = 2^(dt A log2(e)).
  float A[kChannels][4];
#pragma unroll
  for (int i = 0; i < kChannels; ++i) {
    const int c = min(channel + i, d_inner - 1);
    load_states<Tiling::kExact>(A[i], p.A + static_cast<int64_t>(c) * N, first_state, N);
  }
  const int first_b = division.b_share(first_channel), first_c = division.c_share(first_channel);
  const int b_groups = division.b_share(last_channel) - first_b + 1;
  const int c_groups = division.c_share(last_channel) - first_c + 1;
  // Of the first of the thread's channels; a tiling with more than one is for shares of whole ones.
  const int b_group = division.b_share(min(channel, last_channel)) - first_b;
  const int c_group = division.c_share(min(channel, last_channel)) - first_c;

  // A thread prepares the inputs of one channel, of some tokens.
  const int mine = thread % kBlockChannels, my_channel = min(first_channel + mine, d_inner - 1);
  const int source = division.repeats(my_channel / N) * N + my_channel % N;
  const bool convolves = !kProjects && p.convolved == nullptr;
  Filter<T> filter;
  if (convolves) {
    filter = Filter<T>(p.conv_weight, p.conv_bias, my_channel, static_cast<int>(p.d_conv));
  }
  const float dt_bias = p.dt_bias[my_channel], D = p.D[my_channel];

  // The state is on its way while the kernel waits, loaded also where it is not read: a branch
  // would wait for what is loaded before it.
  float* state = p.state + static_cast<int64_t>(s.row) * d_inner * N;
  float h[kChannels][4];
#pragma unroll
  for (int i = 0; i < kChannels; ++i) {
    const int c = min(channel + i, d_inner - 1);
    load_states<Tiling::kExact>(h[i], state + static_cast<int64_t>(c) * N, first_state, N);
  }
  const int total = s.pending + s.tokens;
  const int slots = static_cast<int>(p.ring_slots), x_stride = static_cast<int>(p.x_stride);
  const int z_stride = static_cast<int>(p.z_stride), dt_stride = static_cast<int>(p.dt_stride);
  Places places(s, slots, s.base);

  wait_for_predecessor();
  if (total == 0) return;
  if constexpr (kProjects) {
    if (has_tile) dt_tile().request_tokens(places, s.pending, s.tokens);
  }
#pragma unroll 1
  for (int begin = 0; begin < total; begin += division.chunk) {
    const int tokens = min(division.chunk, total - begin);
    if (begin > 0) {
      __syncthreads();
      places = Places(s, slots, s.base + begin);
    }

    const Staged<T> staged_b{p.B + first_b * N, static_cast<int>(p.b_stride), b_groups, B};
    const Staged<T> staged_c{p.C + first_c * N, static_cast<int>(p.c_stride), c_groups, C};
    // Tokens from `first` on, in kRounds rounds; what is loaded is on its way before any is
    // computed.
    const auto prepare = [&](int first) {
      constexpr int kRounds = Tiling::kRounds;
      float x[kRounds][kTaps], dt[kRounds], z[kRounds];
#pragma unroll
      for (int round = 0; round < kRounds; ++round) {
        const int t = min(first + round * Tiling::kTokensAtOnce, tokens - 1);
        if (convolves) {
          filter.template load<1>(x[round], p.x + source, x_stride, places, t, t);
        } else {
          x[round][0] =
              input_at(p.convolved + my_channel, static_cast<int>(p.convolved_stride), places, t);
        }
        dt[round] = input_at(p.dt + my_channel, dt_stride, places, t);
        z[round] = input_at(p.z + my_channel, z_stride, places, t);
      }
      if (first < Tiling::kTokensAtOnce) {
        stage<Tiling>(staged_b, staged_c, N, places, tokens);
        if constexpr (kProjects) {
          if (begin == 0) {
            if (has_tile) dt_tile().multiply(s.tokens, division.split, projected);
            __syncthreads();
          }
        }
      }
#pragma unroll
      for (int round = 0; round < kRounds; ++round) {
        const int t = first + round * Tiling::kTokensAtOnce;
        if (t >= tokens) break;
        if constexpr (kProjects) {
          const int new_token = begin + t - s.pending;
          if (new_token >= 0) {
            dt[round] = projected[new_token * kBlockChannels + mine];
            if (first_channel + mine < d_inner) {
              p.dt[static_cast<int64_t>(places.at(t)) * dt_stride + my_channel] =
                  rounded<T>(dt[round]);
            }
          }
        }
        const float convolved = convolves ? filter(x[round], /*activation=*/true) : x[round][0];
        const float step = softplus(__fadd_rn(dt[round], dt_bias));
        // z of a pending token may be anything: its gate is not read.
        inputs[t * kBlockChannels + mine] = {.dt = step,
                                             .dt_x = __fmul_rn(step, convolved),
                                             .D_x = __fmul_rn(D, convolved),
                                             .gate = silu(z[round])};
      }
    };
    const int first_token = thread / kBlockChannels;
#pragma unroll 1
    for (int begun = 0; begun < tokens; begun += Tiling::kRounds * Tiling::kTokensAtOnce) {
      prepare(begun + first_token);
    }
    if (begin == 0) {
#pragma unroll
      for (int i = 0; i < kChannels; ++i) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          A[i][n] = __fmul_rn(A[i][n], kLog2E);
          if (s.base == 0) h[i][n] = 0;
        }
      }
    }
    __syncthreads();

#pragma unroll 1
    for (int quad = 0; quad < tokens; quad += kQuad) {
      float sums[kQuad * kChannels] = {};
#pragma unroll
      for (int k = 0; k < kQuad; ++k) {
        const int t = quad + k;
        // With few lanes to a channel there are few threads: these compute on what is left in
        // memory behind the last token rather than wait for one token before they begin the next.
        if (kLanes <= 4 || t < tokens) {
          float b[4], c[4];
          load_shared(b, B + (t * b_groups + b_group) * kWidth + first_state);
          load_shared(c, C + (t * c_groups + c_group) * kWidth + first_state);
#pragma unroll
          for (int i = 0; i < kChannels; ++i) {
            const float2 in =
                *reinterpret_cast<const float2*>(&inputs[t * kBlockChannels + local + i]);
            float sum;
#pragma unroll
            for (int n = 0; n < 4; ++n) {
              const float decay = fast_exp2(__fmul_rn(in.x, A[i][n]));
              h[i][n] = multiply_add(decay, h[i][n], __fmul_rn(in.y, b[n]));
              sum = n == 0 ? __fmul_rn(h[i][n], c[n]) : multiply_add(h[i][n], c[n], sum);
            }
            sums[k * kChannels + i] = sum;
          }
          if (begin + t + 1 == s.commit) {
#pragma unroll
            for (int i = 0; i < kChannels; ++i) {
              if (channel + i < d_inner) {
                store_states<Tiling::kExact>(state + static_cast<int64_t>(channel + i) * N, h[i],
                                             first_state, N);
              }
            }
          }
        }
      }
      if (begin + min(quad + kQuad, tokens) <= s.pending) continue;
      const float sum = sum_over_lanes<kQuad * kChannels, kLanes>(sums, lane);
      constexpr int kCopies = kLanes / (kQuad * kChannels);
      const int t = quad + lane / kCopies / kChannels, i = lane / kCopies % kChannels;
      const int new_token = begin + t - s.pending;
      if (lane % kCopies == 0 && t < tokens && new_token >= 0 && channel + i < d_inner) {
        const Input in = inputs[t * kBlockChannels + local + i];
        p.y[static_cast<int64_t>(s.first + new_token) * d_inner + channel + i] =
            rounded<T>(__fmul_rn(round_to<T>(__fadd_rn(in.D_x, sum)), in.gate));
      }
    }
  }
}

// The most groups of `share` channels that a block of `channels` touches, whichever it is.
int groups_touched(int64_t share, int64_t channels) {
  if (share % channels == 0) return 1;
  if (channels % share == 0) return static_cast<int>(channels / share);
  return static_cast<int>((channels - 2) / share + 2);
}

template <typename Tiling, bool kProjects, typename T>
void launch_divided(const Mamba1StepParams<T>& p, const Prefetch& next, CudaStream stream) {
  constexpr int kBlockChannels = Tiling::kBlockChannels;
  const int dt_bytes = kProjects ? DtTile::bytes(p.rank) : 0;
  const int64_t blocks = (p.d_inner + kBlockChannels - 1) / kBlockChannels;
  const int64_t prefetching = (prefetch_blocks(next) + blocks - 1) / blocks;
  const int64_t b_share = p.d_inner / p.b_groups, c_share = p.d_inner / p.c_groups;
  Division division{.b_share = Divider(b_share),
                    .c_share = Divider(c_share),
                    .repeats = Divider(p.d_inner / p.d_xb),
                    .b_groups = groups_touched(b_share, kBlockChannels),
                    .c_groups = groups_touched(c_share, kBlockChannels),
                    .chunk = 0,
                    .split = kProjects ? linear::split_of(p.rank) : 0};
  const size_t token_bytes =
      kBlockChannels * sizeof(Input) +
      (division.b_groups + division.c_groups) * Tiling::kWidth * sizeof(float);
  division.chunk = std::min(
      kMostTokens, static_cast<int>((kSharedBytes - dt_bytes) / token_bytes) / kQuad * kQuad);
  launch(mamba1_step<T, Tiling, kProjects>, dim3(blocks, p.n_sequences + prefetching),
         dim3(Tiling::kThreads), division.chunk * token_bytes + dt_bytes, stream, p, next,
         division);
}

template <typename Tiling, typename T>
void launch_step(const Mamba1StepParams<T>& p, const Prefetch& next, CudaStream stream) {
  if constexpr (kCanProject<T, Tiling>) {
    if (p.dt_weight != nullptr) return launch_divided<Tiling, true>(p, next, stream);
  }
  require(p.dt_weight == nullptr, "Mamba-1 on CUDA: no kernel projects dt for these sizes");
  launch_divided<Tiling, false>(p, next, stream);
}

// Calls `use` with the tiling for the sizes.
template <typename T, typename Use>
auto with_tiling(const Mamba1StepParams<T>& p, const Use& use) {
  const int64_t shares = (p.d_inner / p.b_groups) | (p.d_inner / p.c_groups);
  const bool whole_shares = shares % 8 == 0;
  // Few sequences want many threads, many want little to do besides their states.
  const bool many = p.n_sequences > 4;
  if (p.d_state == 16) return use.template operator()<Tiling<4, 1, 2, 16, 12>>();
  if (p.d_state == 64 && whole_shares) return use.template operator()<Tiling<16, 2, 4, 64, 6>>();
  if (p.d_state == 128 && whole_shares && many) {
    return use.template operator()<Tiling<32, 8, 4, 128, 4>>();
  }
  if (p.d_state == 128 && whole_shares) {
    return use.template operator()<Tiling<32, 4, 8, 128, 2>>();
  }
  return use.template operator()<Tiling<32, 1, 4, 0, 6>>();
}

}  // namespace

template <typename T>
bool mamba1_step_projects_dt(const Mamba1StepParams<T>& p, int64_t longest) {
  // Every sequence reads the weight anew.
  constexpr int64_t kMostSequences = 4, kMostRank = 256;
  return p.convolved != nullptr && longest <= DtTile::kTokens && p.n_sequences <= kMostSequences &&
         p.rank <= kMostRank &&
         with_tiling(p, [&]<typename Tiling>() { return kCanProject<T, Tiling>; });
}

template <typename T>
void mamba1_step_cuda(const Mamba1StepParams<T>& p, const Prefetch& next, CudaStream stream) {
  require(p.d_state >= 1 && p.d_state <= kMostStates, "Mamba-1 on CUDA: d_state is not 1 to 128");
  require(p.d_conv >= 1 && p.d_conv <= kTaps, "Mamba-1 on CUDA: d_conv is not 1 to 4");
  if (p.n_sequences == 0) return;
  with_tiling(p, [&]<typename Tiling>() { launch_step<Tiling>(p, next, stream); });
}

template bool mamba1_step_projects_dt(const Mamba1StepParams<float>&, int64_t);
template bool mamba1_step_projects_dt(const Mamba1StepParams<Bf16>&, int64_t);
template void mamba1_step_cuda(const Mamba1StepParams<float>&, const Prefetch&, CudaStream);
template void mamba1_step_cuda(const Mamba1StepParams<Bf16>&, const Prefetch&, CudaStream);

}  // namespace mambify::kernels
