// Final states taken before the end of a document: those of the document cut there, while all that
// is computed of its tokens stays as it is.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "kernels/causal_conv1d/params.h"
#include "kernels/selective_scan/params.h"
#include "kernels/ssd/params.h"
#include "numerics.h"

namespace mambify::kernels {
namespace {

using testing::nan_values;
using testing::random_values;

// Documents of several lengths, each committed at another place, the first and the last included.
const std::vector<int64_t> kStarts{0, 5, 6, 46, 50}, kCommits{2, 0, 33, 4};
constexpr int64_t kTokens = 50;

struct Result {
  std::vector<float> y, state;
};

// run(starts, commits or null, first token, y, state) computes the documents given; state is in and
// out. Compares documents with commits to the same ones cut short.
template <typename Run>
void expect_states_of_cut_documents(int64_t width, int64_t state_size, const Run& run) {
  const auto documents = static_cast<int64_t>(kCommits.size());
  const std::vector<float> before = random_values<float>(documents * state_size, 9);
  Result with{nan_values<float>(kTokens * width), before};
  Result without = with;
  run(kStarts, kCommits.data(), 0, with.y.data(), with.state.data());
  run(kStarts, nullptr, 0, without.y.data(), without.state.data());
  EXPECT_EQ(with.y, without.y);
  for (int64_t d = 0; d < documents; ++d) {
    std::vector<float> y(kTokens * width);
    std::vector<float> state(before.begin() + d * state_size,
                             before.begin() + (d + 1) * state_size);
    run({0, kCommits[d]}, nullptr, kStarts[d], y.data(), state.data());
    EXPECT_EQ(
        std::memcmp(state.data(), with.state.data() + d * state_size, state_size * sizeof(float)),
        0)
        << "document " << d;
  }
}

TEST(Commits, CutTheConvolutionsWindow) {
  constexpr int64_t kChannels = 5, kWidth = 4;
  const auto x = random_values<float>(kTokens * kChannels, 1);
  const auto weight = random_values<float>(kChannels * kWidth, 2);
  for (const auto& forward : {causal_conv1d_forward_reference<float>, causal_conv1d_forward_cpu}) {
    expect_states_of_cut_documents(kChannels, kChannels * (kWidth - 1),
                                   [&](const std::vector<int64_t>& starts, const int64_t* commits,
                                       int64_t first, float* y, float* window) {
                                     forward({.starts = starts.data(),
                                              .documents = static_cast<int64_t>(starts.size()) - 1,
                                              .channels = kChannels,
                                              .width = kWidth,
                                              .silu = true,
                                              .x = x.data() + first * kChannels,
                                              .x_stride = kChannels,
                                              .weight = weight.data(),
                                              .initial_window = window,
                                              .y = y,
                                              .y_stride = kChannels,
                                              .final_window = window,
                                              .commits = commits});
                                   });
  }
}

TEST(Commits, CutTheStateOfMamba1) {
  constexpr int64_t kChannels = 34, kState = 16;
  const auto x = random_values<float>(kTokens * kChannels, 1);
  const auto dt = random_values<float>(kTokens * kChannels, 2);
  const auto B = random_values<float>(kTokens * kState, 3);
  const auto C = random_values<float>(kTokens * kState, 4);
  const std::vector<float> A(kChannels * kState, -0.7f);
  for (const auto& forward :
       {selective_scan_forward_reference<float>, selective_scan_forward_cpu}) {
    expect_states_of_cut_documents(kChannels, kChannels * kState,
                                   [&](const std::vector<int64_t>& starts, const int64_t* commits,
                                       int64_t first, float* y, float* state) {
                                     SelectiveScanParams<float> p;
                                     p.documents = static_cast<int64_t>(starts.size()) - 1;
                                     p.starts = starts.data();
                                     p.channels = kChannels;
                                     p.d_state = kState;
                                     p.x = x.data() + first * kChannels;
                                     p.dt = dt.data() + first * kChannels;
                                     p.x_stride = p.dt_stride = kChannels;
                                     p.A = A.data();
                                     p.B = B.data() + first * kState;
                                     p.C = C.data() + first * kState;
                                     p.b_stride = p.c_stride = kState;
                                     p.initial_state = p.final_state = state;
                                     p.y = y;
                                     p.commits = commits;
                                     forward(p);
                                   });
  }
}

TEST(Commits, CutTheStateOfMamba2) {
  constexpr int64_t kHeads = 2, kWidth = 33, kState = 16;
  const auto x = random_values<float>(kTokens * kHeads * kWidth, 1);
  const auto dt = random_values<float>(kTokens * kHeads, 2);
  const auto B = random_values<float>(kTokens * kState, 3);
  const auto C = random_values<float>(kTokens * kState, 4);
  const std::vector<float> A{-0.4f, -1.3f};
  for (const auto& forward : {ssd_forward_reference<float>, ssd_forward_cpu}) {
    expect_states_of_cut_documents(kHeads * kWidth, kHeads * kWidth * kState,
                                   [&](const std::vector<int64_t>& starts, const int64_t* commits,
                                       int64_t first, float* y, float* state) {
                                     SsdParams<float> p;
                                     p.documents = static_cast<int64_t>(starts.size()) - 1;
                                     p.starts = starts.data();
                                     p.heads = p.x_groups = kHeads;
                                     p.head_dim = kWidth;
                                     p.d_state = kState;
                                     p.x = x.data() + first * kHeads * kWidth;
                                     p.x_stride = kHeads * kWidth;
                                     p.dt = dt.data() + first * kHeads;
                                     p.dt_stride = kHeads;
                                     p.A = A.data();
                                     p.B = B.data() + first * kState;
                                     p.C = C.data() + first * kState;
                                     p.b_stride = p.c_stride = kState;
                                     p.initial_state = p.final_state = state;
                                     p.y = y;
                                     p.commits = commits;
                                     forward(p);
                                   });
  }
}

}  // namespace
}  // namespace mambify::kernels
