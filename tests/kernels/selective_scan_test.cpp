#include <gtest/gtest.h>
#include <omp.h>

#include <numeric>

#include "kernels/scan_checkpoints.h"
#include "kernels/scan_numerics.h"
#include "kernels/selective_scan/params.h"
#include "tolerances.h"

namespace mambify::kernels {
namespace {

using namespace testing;

struct Shape {
  int64_t channels, d_state, b_groups, c_groups;
};

// Groups of one, of a slab and of parts of one; states that fill vectors and that do not.
constexpr Shape kShapes[] = {{12, 5, 3, 6}, {64, 16, 2, 4}, {48, 64, 1, 1}, {70, 9, 1, 2}};
constexpr Shape kSmall{6, 3, 1, 3};

template <typename T>
struct Inputs {
  Shape shape;
  std::vector<int64_t> starts;
  Named<T> values;  // x, dt, dt_bias, A, B, C, D, initial_state, dy

  int64_t tokens() const { return starts.back(); }
  int64_t documents() const { return static_cast<int64_t>(starts.size()) - 1; }
};

template <typename T>
Inputs<T> make_inputs(const Shape& s, std::vector<int64_t> starts, uint64_t seed) {
  const int64_t tokens = starts.back(), documents = static_cast<int64_t>(starts.size()) - 1;
  Named<T> v;
  v["x"] = random_values<T>(tokens * s.channels, seed);
  v["dt"] = random_values<T>(tokens * s.channels, seed + 1, 1, -2);
  v["dt_bias"] = random_values<T>(s.channels, seed + 2);
  v["A"] = random_values<T>(s.channels * s.d_state, seed + 3);
  for (T& a : v["A"]) a = -static_cast<float>(std::exp(a));
  v["B"] = random_values<T>(tokens * s.b_groups * s.d_state, seed + 4);
  v["C"] = random_values<T>(tokens * s.c_groups * s.d_state, seed + 5);
  v["D"] = random_values<T>(s.channels, seed + 6);
  v["initial_state"] = random_values<T>(documents * s.channels * s.d_state, seed + 7);
  v["dy"] = random_values<T>(tokens * s.channels, seed + 8);
  return {s, std::move(starts), std::move(v)};
}

template <typename T>
T* data_of(Named<T>& values, const char* name) {
  const auto found = values.find(name);
  return found == values.end() ? nullptr : found->second.data();
}

// Parameters that read `in` (whose optional values may be absent).
template <typename T>
SelectiveScanParams<T> params_of(Inputs<T>& in) {
  const Shape& s = in.shape;
  SelectiveScanParams<T> p;
  p.documents = in.documents();
  p.starts = in.starts.data();
  p.channels = s.channels;
  p.d_state = s.d_state;
  p.b_groups = s.b_groups;
  p.c_groups = s.c_groups;
  p.x = data_of(in.values, "x");
  p.x_stride = s.channels;
  p.dt = data_of(in.values, "dt");
  p.dt_stride = s.channels;
  p.dt_bias = data_of(in.values, "dt_bias");
  p.A = data_of(in.values, "A");
  p.B = data_of(in.values, "B");
  p.b_stride = s.b_groups * s.d_state;
  p.C = data_of(in.values, "C");
  p.c_stride = s.c_groups * s.d_state;
  p.D = data_of(in.values, "D");
  p.initial_state = data_of(in.values, "initial_state");
  return p;
}

template <typename T>
using Forward = void (*)(const SelectiveScanParams<T>&);
template <typename T>
using Backward = void (*)(const SelectiveScanBackwardParams<T>&);

// Every output starts as NaN.
template <typename T>
Named<T> run_forward(Forward<T> forward, SelectiveScanParams<T> p) {
  Named<T> out;
  out["y"] = nan_values<T>(p.starts[p.documents] * p.channels);
  out["final_state"] = nan_values<T>(p.documents * p.channels * p.d_state);
  p.y = out["y"].data();
  p.final_state = out["final_state"].data();
  forward(p);
  return out;
}

template <typename T>
Named<T> run_backward(Forward<T> forward, Backward<T> backward, Inputs<T>& in,
                      SelectiveScanParams<T> p) {
  std::vector<T> y = nan_values<T>(in.tokens() * p.channels);
  std::vector<T> checkpoints =
      nan_values<T>(checkpoint_offsets(p.starts, p.documents).back() * p.channels * p.d_state);
  p.checkpoints = checkpoints.data();
  p.y = y.data();
  forward(p);
  Named<T> out;
  for (const char* name : {"x", "dt", "dt_bias", "A", "B", "C", "D"}) {
    if (in.values.count(name)) out[name] = nan_values<T>(in.values[name].size());
  }
  SelectiveScanBackwardParams<T> b;
  b.forward = p;
  b.forward.y = nullptr;
  b.dy = data_of(in.values, "dy");
  b.dx = data_of(out, "x");
  b.ddt = data_of(out, "dt");
  b.ddt_bias = data_of(out, "dt_bias");
  b.dA = data_of(out, "A");
  b.dB = data_of(out, "B");
  b.dC = data_of(out, "C");
  b.dD = data_of(out, "D");
  backward(b);
  return out;
}

Named<float> cpu_forward(Inputs<float>& in) {
  return run_forward<float>(selective_scan_forward_cpu, params_of(in));
}
Named<float> cpu_backward(Inputs<float>& in) {
  return run_backward<float>(selective_scan_forward_cpu, selective_scan_backward_cpu, in,
                             params_of(in));
}
Named<double> reference_backward(Inputs<double>& in) {
  return run_backward<double>(selective_scan_forward_reference<double>,
                              selective_scan_backward_reference<double>, in, params_of(in));
}

void expect_cpu_matches_reference(Inputs<float> in, Inputs<double> exact, const std::string& what) {
  const Tolerance limit = tolerance("cpu", "fp32");
  expect_close(cpu_forward(in),
               run_forward<double>(selective_scan_forward_reference<double>, params_of(exact)),
               limit.output, what);
  expect_close(cpu_backward(in), reference_backward(exact), limit.gradient, what);
}

TEST(SelectiveScan, ReferenceGradientsAreTheNumericalOnes) {
  for (const bool optional : {true, false}) {
    Inputs<double> in = make_inputs<double>(kSmall, {0, 4, 5, 11}, 1);
    if (!optional) {
      for (const char* name : {"dt_bias", "D", "initial_state"}) in.values.erase(name);
    }
    const auto loss = [&] {
      const auto out = run_forward<double>(selective_scan_forward_reference<double>, params_of(in));
      const std::vector<double>& y = out.at("y");
      return std::inner_product(y.begin(), y.end(), in.values["dy"].begin(), 0.0);
    };
    Named<double> numerical;
    for (const char* name : {"x", "dt", "dt_bias", "A", "B", "C", "D"}) {
      if (in.values.count(name)) numerical[name] = numerical_gradient(loss, in.values[name]);
    }
    expect_close(reference_backward(in), numerical, tolerance("cpu", "fp64").gradient, "small");
  }
}

TEST(SelectiveScan, CpuMatchesTheReferenceAtEveryLength) {
  for (const Shape& shape : kShapes) {
    for (const int64_t length : kLengths) {
      expect_cpu_matches_reference(
          make_inputs<float>(shape, {0, length}, 2), make_inputs<double>(shape, {0, length}, 2),
          "N = " + std::to_string(shape.d_state) + ", length = " + std::to_string(length));
    }
  }
}

TEST(SelectiveScan, CpuMatchesTheReferenceWithoutOptionalInputs) {
  auto in = make_inputs<float>(kShapes[1], {0, 40, 73}, 3);
  auto exact = make_inputs<double>(kShapes[1], {0, 40, 73}, 3);
  for (const char* name : {"dt_bias", "D", "initial_state"}) {
    in.values.erase(name);
    exact.values.erase(name);
  }
  expect_cpu_matches_reference(in, exact, "no bias, skip, initial state");
}

TEST(SelectiveScan, PackedDocumentsEqualTheSameDocumentsAlone) {
  const Shape shape = kShapes[1];
  Inputs<float> packed = make_inputs<float>(shape, {0, 1, 40, 40, 105, 170}, 4);
  const Named<float> together = cpu_forward(packed), gradients = cpu_backward(packed);
  Named<double> sums;  // of the gradients of what documents share
  for (int64_t i = 0; i < packed.documents(); ++i) {
    const int64_t begin = packed.starts[i], length = packed.starts[i + 1] - begin;
    Inputs<float> alone = packed;
    alone.starts = {0, length};
    for (const char* name : {"x", "dt", "B", "C", "dy"}) {
      alone.values[name] = rows_of(packed.values[name], packed.tokens(), begin, length);
    }
    alone.values["initial_state"] =
        rows_of(packed.values["initial_state"], packed.documents(), i, 1);
    const Named<float> out = cpu_forward(alone), grads = cpu_backward(alone);
    EXPECT_TRUE(same_bits(out.at("y"), rows_of(together.at("y"), packed.tokens(), begin, length)));
    EXPECT_TRUE(same_bits(out.at("final_state"),
                          rows_of(together.at("final_state"), packed.documents(), i, 1)));
    for (const char* name : {"x", "dt", "B", "C"}) {
      EXPECT_TRUE(
          same_bits(grads.at(name), rows_of(gradients.at(name), packed.tokens(), begin, length)))
          << name << " of document " << i;
    }
    for (const char* name : {"A", "D", "dt_bias"}) {
      std::vector<double>& sum = sums[name];
      sum.resize(grads.at(name).size());
      for (size_t k = 0; k < sum.size(); ++k) sum[k] += grads.at(name)[k];
    }
  }
  for (const auto& [name, sum] : sums) {
    EXPECT_LT(max_relative_error(gradients.at(name), sum), 1e-6) << name;
  }
}

TEST(SelectiveScan, TokenByTokenGivesTheBitsOfTheWholeSequence) {
  for (const Shape& shape : kShapes) {
    Inputs<float> in = make_inputs<float>(shape, {0, 70}, 5);
    const Named<float> whole = cpu_forward(in);
    SelectiveScanParams<float> p = params_of(in);
    std::vector<float> state = in.values["initial_state"],
                       y = nan_values<float>(in.tokens() * p.channels);
    // One token, then three at once, and so on: the cut must not matter.
    for (int64_t t = 0, step = 1; t < in.tokens(); t += step, step = 4 - step) {
      step = std::min(step, in.tokens() - t);
      const int64_t starts[] = {0, step};
      SelectiveScanParams<float> one = p;
      one.starts = starts;
      one.x += t * p.x_stride;
      one.dt += t * p.dt_stride;
      one.B += t * p.b_stride;
      one.C += t * p.c_stride;
      one.y = y.data() + t * p.channels;
      one.initial_state = state.data();
      one.final_state = state.data();
      selective_scan_forward_cpu(one);
    }
    EXPECT_TRUE(same_bits(y, whole.at("y")));
    EXPECT_TRUE(same_bits(state, whole.at("final_state")));
  }
}

TEST(SelectiveScan, ReadsColumnSlicesOfWiderRows) {
  Inputs<float> in = make_inputs<float>(kShapes[0], {0, 33, 50}, 6);
  const Named<float> out = cpu_forward(in), gradients = cpu_backward(in);
  SelectiveScanParams<float> p = params_of(in);
  std::map<std::string, std::vector<float>> spread;
  const auto widen = [&](const char* name, const float*& pointer, int64_t& stride) {
    spread[name] = with_gaps(in.values[name], stride, 7);
    pointer = spread[name].data();
    stride += 7;
  };
  widen("x", p.x, p.x_stride);
  widen("dt", p.dt, p.dt_stride);
  widen("B", p.B, p.b_stride);
  widen("C", p.C, p.c_stride);
  EXPECT_TRUE(same_bits(run_forward<float>(selective_scan_forward_cpu, p).at("y"), out.at("y")));
  const Named<float> same =
      run_backward<float>(selective_scan_forward_cpu, selective_scan_backward_cpu, in, p);
  for (const auto& [name, values] : gradients) EXPECT_TRUE(same_bits(same.at(name), values));
}

TEST(SelectiveScan, BitsDoNotDependOnTheNumberOfThreads) {
  Inputs<float> in = make_inputs<float>(kShapes[3], {0, 33, 50, 120}, 7);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const Named<float> out = cpu_forward(in), gradients = cpu_backward(in);
  omp_set_num_threads(3);
  const Named<float> out3 = cpu_forward(in), gradients3 = cpu_backward(in);
  omp_set_num_threads(threads);
  for (const auto& [name, values] : out) EXPECT_TRUE(same_bits(out3.at(name), values)) << name;
  for (const auto& [name, values] : gradients) {
    EXPECT_TRUE(same_bits(gradients3.at(name), values)) << name;
  }
}

}  // namespace
}  // namespace mambify::kernels
