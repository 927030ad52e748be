// The state before each chunk, and its gradient after each. A block takes a tile of the state of
// one head of a document from chunk to chunk, in fp32 registers; each chunk adds a product over its
// tokens: inputs by B, or, backwards, dy by C.
#include "kernels/cuda/fragment.cuh"
#include "kernels/ssd/cuda_chunks.cuh"

namespace mambify::kernels::ssd {
namespace {

constexpr int kTile = 64, kThreads = 128, kStages = 3;

// What a product reads of each token: `width` elements of group head / heads_each.
template <typename T>
struct Source {
  const T* data;
  int64_t stride;
  int heads_each, width;

  __device__ const T* at(int64_t token, int head, int column) const {
    return data + token * stride + head / heads_each * width + column;
  }
};

template <typename T>
struct StatesParams {
  Source<T> rows, columns;
  const int32_t* starts;
  const int32_t* first_chunk;
  const float* steps;
  int heads;
  int row_tiles, column_tiles;
  const float* initial;
  float* final;
  T* states;  // [chunks, heads, row_tiles kTile, column_tiles kTile]
};

template <typename T>
struct Stage {
  T rows[kChunk<T> * pitch_of<T>(kTile)];
  T columns[kChunk<T> * pitch_of<T>(kTile)];
  float steps[2][kChunk<T>];  // kUntilEnd and kSinceBegin
};

template <typename T, bool kBackwards>
__global__ void __launch_bounds__(kThreads) states_of_chunks(StatesParams<T> p) {
  constexpr int kTokens = kChunk<T>, kPart = 32;  // rows and columns of a warp
  extern __shared__ __align__(16) char shared[];
  Stage<T>* stages = reinterpret_cast<Stage<T>*>(shared);
  int block = static_cast<int>(blockIdx.x);
  const int first_column = block % p.column_tiles * kTile;
  block /= p.column_tiles;
  const int first_row = block % p.row_tiles * kTile;
  block /= p.row_tiles;
  const int head = block % p.heads, document = block / p.heads;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int row = first_row + warp / 2 * kPart, column = first_column + warp % 2 * kPart;
  const int64_t pitch = p.column_tiles * kTile, size = p.row_tiles * kTile * pitch;
  const int64_t whole = int64_t{p.rows.width} * p.columns.width;
  wait_for_predecessor();

  const int64_t begin = p.starts[document], end = p.starts[document + 1];
  const int64_t first = p.first_chunk[document];
  const int chunks = static_cast<int>(p.first_chunk[document + 1] - first);
  const auto number = [&](int i) { return kBackwards ? chunks - 1 - i : i; };
  const auto ask = [&](int i) {
    if (i < chunks) {
      Stage<T>& stage = stages[i % kStages];
      const int64_t token = begin + int64_t{number(i)} * kTokens;
      const int tokens = static_cast<int>(min(end - token, int64_t{kTokens}));
      copy_tile<kTokens, kTile, kThreads>(stage.rows, p.rows.at(token, head, first_row),
                                          p.rows.stride, tokens, p.rows.width - first_row);
      copy_tile<kTokens, kTile, kThreads>(stage.columns, p.columns.at(token, head, first_column),
                                          p.columns.stride, tokens, p.columns.width - first_column);
      const float* steps = p.steps + ((first + number(i)) * p.heads + head) * kStepRows * kTokens +
                           kUntilEnd * kTokens;
      static_assert(kSinceBegin == kUntilEnd + 1);
      const int vector = static_cast<int>(threadIdx.x) * 4;
      if (vector < 2 * kTokens) copy_async(stage.steps[0] + vector, steps + vector);
    }
    end_copy_group();
  };

  Fragment<kPart / 16, kPart / 8> h;
  const int64_t place = (int64_t{document} * p.heads + head) * whole;
  if (p.initial) {
    h.each_pair([&](int, int, int r, int c, float& low, float& high) {
      if (row + r < p.rows.width && column + c < p.columns.width) {
        const float* at = p.initial + place + int64_t{row + r} * p.columns.width + column + c;
        low = at[0], high = at[1];
      }
    });
  }
  for (int i = 0; i < kStages - 1; ++i) ask(i);
  for (int i = 0; i < chunks; ++i) {
    await_copies<kStages - 2>();
    __syncthreads();
    ask(i + kStages - 1);
    store_fragment(h,
                   p.states + ((first + number(i)) * p.heads + head) * size + row * pitch + column,
                   pitch, kPart, kPart);
    const Stage<T>& stage = stages[i % kStages];
    const float decay = stage.steps[1][kTokens - 1];
    h.each_pair([&](int, int, int, int, float& low, float& high) {
      low = __fmul_rn(low, decay), high = __fmul_rn(high, decay);
    });
    multiply<kTokens>(h, across<kTile>(stage.rows) + (row - first_row),
                      across<kTile>(stage.columns) + (column - first_column), 0, kTokens,
                      stage.steps[kBackwards ? 1 : 0]);
  }
  if (p.final) {
    h.each_pair([&](int, int, int r, int c, float low, float high) {
      if (row + r < p.rows.width && column + c < p.columns.width) {
        float* at = p.final + place + int64_t{row + r} * p.columns.width + column + c;
        at[0] = low, at[1] = high;
      }
    });
  }
}

template <bool kBackwards, typename T>
void launch_states(StatesParams<T>& s, const SsdCudaParams<T>& p, const Plan& plan,
                   CudaStream stream) {
  s.starts = p.starts;
  s.first_chunk = plan.first_chunk;
  s.steps = plan.steps;
  s.heads = static_cast<int>(p.heads);
  s.row_tiles = plan.head / kTile;
  s.column_tiles = plan.state / kTile;
  launch_with_shared(states_of_chunks<T, kBackwards>,
                     p.documents * p.heads * s.row_tiles * s.column_tiles, kThreads,
                     kStages * static_cast<int>(sizeof(Stage<T>)), stream, s);
}

template <typename T>
Source<T> source(const T* data, int64_t stride, int64_t heads_each, int64_t width) {
  return {data, stride, static_cast<int>(heads_each), static_cast<int>(width)};
}

}  // namespace

template <typename T>
void scan_states(const SsdCudaParams<T>& p, const Plan& plan, CudaStream stream) {
  StatesParams<T> s{.rows = source(p.x, p.x_stride, p.heads / p.x_groups, p.head_dim),
                    .columns = source(p.B, p.b_stride, p.heads / p.b_groups, p.d_state)};
  s.initial = p.initial_state;
  s.final = p.final_state;
  s.states = static_cast<T*>(plan.states);
  launch_states</*kBackwards=*/false>(s, p, plan, stream);
}

template <typename T>
void scan_adjoints(const SsdCudaBackwardParams<T>& b, const Plan& plan, CudaStream stream) {
  const SsdCudaParams<T>& p = b.forward;
  StatesParams<T> s{.rows = source(b.dy, p.heads * p.head_dim, 1, p.head_dim),
                    .columns = source(p.C, p.c_stride, p.heads / p.c_groups, p.d_state)};
  s.states = static_cast<T*>(plan.adjoints);
  launch_states</*kBackwards=*/true>(s, p, plan, stream);
}

template void scan_states(const SsdCudaParams<float>&, const Plan&, CudaStream);
template void scan_states(const SsdCudaParams<Bf16>&, const Plan&, CudaStream);
template void scan_adjoints(const SsdCudaBackwardParams<float>&, const Plan&, CudaStream);
template void scan_adjoints(const SsdCudaBackwardParams<Bf16>&, const Plan&, CudaStream);

}  // namespace mambify::kernels::ssd
