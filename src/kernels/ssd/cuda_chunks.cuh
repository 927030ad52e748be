// Chunks of documents on the device: where they lie, the step sizes of their tokens, and the memory
// that the kernels of a run hand to each other.
#pragma once

#include "kernels/cuda/launch.cuh"
#include "kernels/ssd/cuda.h"

namespace mambify::kernels::ssd {

// Tokens of a chunk. A document's last one may have fewer. In fp32 tiles take twice the memory.
template <typename T>
inline constexpr int kChunk = sizeof(T) == 2 ? 64 : 32;

struct Chunk {
  int32_t token = 0;  // its first
  int32_t tokens = 0;
};

// What each head has of each token of a chunk, [chunks, heads, kStepRows, kChunk]. L is the sum of
// s A over the chunk's tokens up to this one. Behind a document's end s = 0.
enum StepRow {
  kStep,        // s
  kLogDecay,    // L log2(e)
  kUntilEnd,    // exp(L_last - L): what is left of the state at the end of the chunk
  kInput,       // that times s: what an input counts in the state after the chunk
  kSinceBegin,  // exp(L): what is left of the state before the chunk
  kSlope,       // ds / d(raw dt): sigmoid, or 0 where s is clamped
  kStepRows
};

// Sizes of a run, and its scratch memory.
struct Plan {
  int64_t documents, tokens, heads;
  int64_t chunks;   // at most
  int head, state;  // widths of tiles: 64 or 128

  int32_t* first_chunk = nullptr;  // [documents + 1]
  Chunk* chunk = nullptr;          // [chunks]; those behind the last have no tokens
  float* steps = nullptr;
  void* states = nullptr;    // before each chunk, [chunks, heads, head, state] of T
  void* adjoints = nullptr;  // gradients of the states after each chunk, likewise
  float* sums = nullptr;     // of gradients of A, D and dt_bias, [3, heads, chunks]
  // Gradients that several blocks share, one after the other, [tokens, slots, width]; null where
  // a block has all of a group's heads.
  float* dx = nullptr;
  float* dB = nullptr;
  float* dC = nullptr;
  int64_t bytes = 0;
};

// Takes pieces of scratch memory one after the other; only counts when there is none.
class Scratch {
 public:
  explicit Scratch(void* begin) : begin_(static_cast<char*>(begin)) {}

  template <typename T>
  void take(T*& piece, int64_t bytes) {
    piece = begin_ ? reinterpret_cast<T*>(begin_ + bytes_) : nullptr;
    bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  int64_t bytes() const { return bytes_; }

 private:
  static constexpr int64_t kAlignment = 256;
  char* begin_;
  int64_t bytes_ = 0;
};

// Heads that one block of the backward pass takes together: the most that share x as well as B.
template <typename T>
int64_t heads_together(const SsdCudaParams<T>& p);

// Throws Error on sizes that the kernels do not take.
template <typename T>
Plan plan_forward(const SsdCudaParams<T>& p);
template <typename T>
Plan plan_backward(const SsdCudaParams<T>& p);

// Fills in first_chunk, chunk and steps.
template <typename T>
void prepare_chunks(const SsdCudaParams<T>& p, const Plan& plan, CudaStream stream);

// States before chunks, and the final ones; given a backward pass, too, the gradients of the states
// after chunks, from the last to the first.
template <typename T>
void scan_states(const SsdCudaParams<T>& p, const SsdCudaBackwardParams<T>* backward,
                 const Plan& plan, CudaStream stream);

// launch.template operator()<head width, state width>() for the widths of a plan's tiles.
template <typename Launch>
void with_widths(const Plan& plan, const Launch& launch) {
  if (plan.state == 64) {
    launch.template operator()<64, 64>();
  } else if (plan.head == 64) {
    launch.template operator()<64, 128>();
  } else {
    launch.template operator()<128, 128>();
  }
}

// The kernel with `bytes` of shared memory, more than blocks have without asking.
template <typename... Parameters, typename... Arguments>
void launch_with_shared(void (*kernel)(Parameters...), int64_t blocks, int threads, int bytes,
                        CudaStream stream, const Arguments&... arguments) {
  require(blocks < (int64_t{1} << 31), "ssd: more blocks than CUDA launches");
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(threads), bytes, stream, arguments...);
}

}  // namespace mambify::kernels::ssd
