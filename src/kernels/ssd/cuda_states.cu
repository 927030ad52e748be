// The state before each chunk, and its gradient after each. A block takes a tile of the state of
// one head of a document from chunk to chunk, in fp32 registers; each chunk adds a product over its
// tokens: inputs by B, or, backwards, dy by C.
#include "kernels/cuda/fragment.cuh"
#include "kernels/ssd/cuda_chunks.cuh"

namespace mambify::kernels::ssd {
namespace {

constexpr int kStages = 3, kColumnParts = 2;
constexpr int kRows = 32;  // of a warp
template <int kTileRows>
inline constexpr int kThreadsOf = kTileRows / kRows* kColumnParts * 32;

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

// One direction.
template <typename T>
struct Scan {
  Source<T> rows, columns;
  StepRow weight;  // of a token in a chunk's product
  bool backwards;
  const float* initial;
  float* final;
  T* states;  // [chunks, heads, rows, columns]
};

template <typename T>
struct StatesParams {
  Scan<T> scans[2];
  const int32_t* starts;
  const int32_t* first_chunk;
  const float* steps;
  int heads;
  int blocks;  // of a scan
  int row_tiles, column_tiles;
};

template <typename T, int kTileRows, int kTileColumns>
struct Stage {
  T rows[kChunk<T> * pitch_of<T>(kTileRows)];
  T columns[kChunk<T> * pitch_of<T>(kTileColumns)];
  float steps[2][kChunk<T>];  // kInput and kSinceBegin
};

template <typename T, int kTileRows, int kTileColumns>
__global__ void __launch_bounds__(kThreadsOf<kTileRows>, 512 / kThreadsOf<kTileRows>)
    states_of_chunks(StatesParams<T> p) {
  constexpr int kTokens = kChunk<T>, kThreads = kThreadsOf<kTileRows>;
  constexpr int kColumns = kTileColumns / kColumnParts;
  extern __shared__ __align__(16) char shared[];
  auto* stages = reinterpret_cast<Stage<T, kTileRows, kTileColumns>*>(shared);
  int block = static_cast<int>(blockIdx.x);
  const Scan<T>& scan = p.scans[block / p.blocks];
  block %= p.blocks;
  const int first_column = block % p.column_tiles * kTileColumns;
  block /= p.column_tiles;
  const int first_row = block % p.row_tiles * kTileRows;
  block /= p.row_tiles;
  const int head = block % p.heads, document = block / p.heads;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int row_in_tile = warp / kColumnParts * kRows,
            column_in_tile = warp % kColumnParts * kColumns;
  const int row = first_row + row_in_tile, column = first_column + column_in_tile;
  const int64_t pitch = p.column_tiles * kTileColumns, size = p.row_tiles * kTileRows * pitch;
  wait_for_predecessor();

  const int64_t begin = p.starts[document], end = p.starts[document + 1];
  const int64_t first = p.first_chunk[document];
  const int chunks = static_cast<int>(p.first_chunk[document + 1] - first);
  const auto number = [&](int i) { return scan.backwards ? chunks - 1 - i : i; };
  const auto ask = [&](int i) {
    if (i < chunks) {
      auto& stage = stages[i % kStages];
      const int64_t token = begin + int64_t{number(i)} * kTokens;
      const int tokens = static_cast<int>(min(end - token, int64_t{kTokens}));
      copy_tile<kTokens, kTileRows, kThreads>(stage.rows, scan.rows.at(token, head, first_row),
                                              scan.rows.stride, tokens,
                                              scan.rows.width - first_row);
      copy_tile<kTokens, kTileColumns, kThreads>(
          stage.columns, scan.columns.at(token, head, first_column), scan.columns.stride, tokens,
          scan.columns.width - first_column);
      const float* steps = p.steps + ((first + number(i)) * p.heads + head) * kStepRows * kTokens;
      static_assert(kSinceBegin == kInput + 1);
      const int vector = static_cast<int>(threadIdx.x) * 4;
      if (vector < 2 * kTokens)
        copy_async(stage.steps[0] + vector, steps + kInput * kTokens + vector);
    }
    end_copy_group();
  };

  Fragment<kRows / 16, kColumns / 8> h;
  const int64_t width = scan.columns.width,
                place = (int64_t{document} * p.heads + head) * scan.rows.width * width;
  if (scan.initial) {
    h.each_pair([&](int, int, int r, int c, float& low, float& high) {
      if (row + r < scan.rows.width && column + c < width) {
        const float* at = scan.initial + place + (row + r) * width + column + c;
        low = at[0], high = at[1];
      }
    });
  }
  for (int i = 0; i < kStages - 1; ++i) ask(i);
  for (int i = 0; i < chunks; ++i) {
    await_copies<kStages - 2>();
    __syncthreads();
    ask(i + kStages - 1);
    store_fragment(
        h, scan.states + ((first + number(i)) * p.heads + head) * size + row * pitch + column,
        pitch, kRows, kColumns);
    const auto& stage = stages[i % kStages];
    const float decay = stage.steps[1][kTokens - 1];
    h.each_pair([&](int, int, int, int, float& low, float& high) {
      low = __fmul_rn(low, decay), high = __fmul_rn(high, decay);
    });
    multiply<kTokens>(h, across<kTileRows>(stage.rows) + row_in_tile,
                      across<kTileColumns>(stage.columns) + column_in_tile, 0, kTokens,
                      stage.steps[scan.weight - kInput]);
  }
  if (scan.final) {
    h.each_pair([&](int, int, int r, int c, float low, float high) {
      if (row + r < scan.rows.width && column + c < width) {
        float* at = scan.final + place + (row + r) * width + column + c;
        at[0] = low, at[1] = high;
      }
    });
  }
}

template <typename T>
Source<T> source(const T* data, int64_t stride, int64_t heads_each, int64_t width) {
  return {data, stride, static_cast<int>(heads_each), static_cast<int>(width)};
}

// Small tiles where there are few documents and heads to occupy the device with.
bool are_few(const Plan& plan) { return plan.documents * plan.heads < 96; }

}  // namespace

template <typename T>
void scan_states(const SsdCudaParams<T>& p, const SsdCudaBackwardParams<T>* backward,
                 const Plan& plan, CudaStream stream) {
  StatesParams<T> s{};
  s.scans[0] = {.rows = source(p.x, p.x_stride, p.heads / p.x_groups, p.head_dim),
                .columns = source(p.B, p.b_stride, p.heads / p.b_groups, p.d_state),
                .weight = kInput,
                .backwards = false,
                .initial = p.initial_state,
                .final = backward ? nullptr : p.final_state,
                .states = static_cast<T*>(plan.states)};
  if (backward) {
    s.scans[1] = {.rows = source(backward->dy, p.heads * p.head_dim, 1, p.head_dim),
                  .columns = source(p.C, p.c_stride, p.heads / p.c_groups, p.d_state),
                  .weight = kSinceBegin,
                  .backwards = true,
                  .initial = nullptr,
                  .final = nullptr,
                  .states = static_cast<T*>(plan.adjoints)};
  }
  s.starts = p.starts;
  s.first_chunk = plan.first_chunk;
  s.steps = plan.steps;
  s.heads = static_cast<int>(p.heads);
  const auto run = [&]<int kTileRows, int kTileColumns>() {
    s.row_tiles = plan.head / kTileRows;
    s.column_tiles = plan.state / kTileColumns;
    const int64_t blocks = p.documents * p.heads * s.row_tiles * s.column_tiles;
    s.blocks = static_cast<int>(blocks);
    launch_with_shared(states_of_chunks<T, kTileRows, kTileColumns>, backward ? 2 * blocks : blocks,
                       kThreadsOf<kTileRows>,
                       kStages * static_cast<int>(sizeof(Stage<T, kTileRows, kTileColumns>)),
                       stream, s);
  };
  if (are_few(plan)) {
    run.template operator()<64, 64>();
  } else {
    with_widths(plan, run);
  }
}

template void scan_states(const SsdCudaParams<float>&, const SsdCudaBackwardParams<float>*,
                          const Plan&, CudaStream);
template void scan_states(const SsdCudaParams<Bf16>&, const SsdCudaBackwardParams<Bf16>*,
                          const Plan&, CudaStream);

}  // namespace mambify::kernels::ssd
