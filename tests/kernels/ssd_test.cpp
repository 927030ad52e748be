#include <gtest/gtest.h>
#include <omp.h>

#include <numeric>

#include "kernels/scan_checkpoints.h"
#include "kernels/scan_numerics.h"
#include "kernels/ssd/params.h"
#include "tolerances.h"

namespace mambify::kernels {
namespace {

using namespace testing;

struct Shape {
  int64_t heads, head_dim, d_state, x_groups, b_groups, c_groups;
};

// A layer converted from attention, one trained as Mamba-2, and widths that fill no vector.
constexpr Shape kShapes[] = {
    {6, 32, 32, 2, 2, 6}, {4, 16, 64, 4, 1, 1}, {2, 64, 16, 2, 2, 1}, {4, 37, 9, 1, 2, 4}};
constexpr Shape kSmall{4, 2, 3, 2, 1, 4};

template <typename T>
struct Inputs {
  Shape shape;
  std::vector<int64_t> starts;
  Named<T> values;  // x, dt, dt_bias, A, B, C, D, initial_state, dy
  T dt_min = 0, dt_max = std::numeric_limits<T>::infinity();

  int64_t tokens() const { return starts.back(); }
  int64_t documents() const { return static_cast<int64_t>(starts.size()) - 1; }
};

template <typename T>
Inputs<T> make_inputs(const Shape& s, std::vector<int64_t> starts, uint64_t seed) {
  const int64_t tokens = starts.back(), documents = static_cast<int64_t>(starts.size()) - 1;
  Named<T> v;
  v["x"] = random_values<T>(tokens * s.x_groups * s.head_dim, seed);
  v["dt"] = random_values<T>(tokens * s.heads, seed + 1, 1, -2);
  v["dt_bias"] = random_values<T>(s.heads, seed + 2);
  v["A"] = random_values<T>(s.heads, seed + 3);
  for (T& a : v["A"]) a = -static_cast<float>(std::exp(a));
  v["B"] = random_values<T>(tokens * s.b_groups * s.d_state, seed + 4);
  v["C"] = random_values<T>(tokens * s.c_groups * s.d_state, seed + 5);
  v["D"] = random_values<T>(s.heads, seed + 6);
  v["initial_state"] = random_values<T>(documents * s.heads * s.head_dim * s.d_state, seed + 7);
  v["dy"] = random_values<T>(tokens * s.heads * s.head_dim, seed + 8);
  return {s, std::move(starts), std::move(v)};
}

template <typename T>
T* data_of(Named<T>& values, const char* name) {
  const auto found = values.find(name);
  return found == values.end() ? nullptr : found->second.data();
}

// Parameters that read `in` (whose optional values may be absent).
template <typename T>
SsdParams<T> params_of(Inputs<T>& in) {
  const Shape& s = in.shape;
  SsdParams<T> p;
  p.documents = in.documents();
  p.starts = in.starts.data();
  p.heads = s.heads;
  p.head_dim = s.head_dim;
  p.d_state = s.d_state;
  p.x_groups = s.x_groups;
  p.b_groups = s.b_groups;
  p.c_groups = s.c_groups;
  p.dt_min = in.dt_min;
  p.dt_max = in.dt_max;
  p.x = data_of(in.values, "x");
  p.x_stride = s.x_groups * s.head_dim;
  p.dt = data_of(in.values, "dt");
  p.dt_stride = s.heads;
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

// Every output starts as NaN.
template <typename T>
Named<T> run_forward(void (*forward)(const SsdParams<T>&), SsdParams<T> p) {
  Named<T> out;
  out["y"] = nan_values<T>(p.starts[p.documents] * p.heads * p.head_dim);
  out["final_state"] = nan_values<T>(p.documents * p.heads * p.head_dim * p.d_state);
  p.y = out["y"].data();
  p.final_state = out["final_state"].data();
  forward(p);
  return out;
}

template <typename T>
Named<T> run_backward(void (*forward)(const SsdParams<T>&),
                      void (*backward)(const SsdBackwardParams<T>&), Inputs<T>& in,
                      SsdParams<T> p) {
  std::vector<T> y = nan_values<T>(in.tokens() * p.heads * p.head_dim);
  std::vector<T> checkpoints = nan_values<T>(checkpoint_offsets(p.starts, p.documents).back() *
                                             p.heads * p.head_dim * p.d_state);
  p.checkpoints = checkpoints.data();
  p.y = y.data();
  forward(p);
  Named<T> out;
  for (const char* name : {"x", "dt", "dt_bias", "A", "B", "C", "D"}) {
    if (in.values.count(name)) out[name] = nan_values<T>(in.values[name].size());
  }
  SsdBackwardParams<T> b;
  b.forward = p;
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
  return run_forward<float>(ssd_forward_cpu, params_of(in));
}
Named<float> cpu_backward(Inputs<float>& in) {
  return run_backward<float>(ssd_forward_cpu, ssd_backward_cpu, in, params_of(in));
}
Named<double> reference_backward(Inputs<double>& in) {
  return run_backward<double>(ssd_forward_reference<double>, ssd_backward_reference<double>, in,
                              params_of(in));
}

void expect_cpu_matches_reference(Inputs<float> in, Inputs<double> exact, const std::string& what) {
  const Tolerance limit = tolerance("cpu", "fp32");
  expect_close(cpu_forward(in),
               run_forward<double>(ssd_forward_reference<double>, params_of(exact)), limit.output,
               what);
  expect_close(cpu_backward(in), reference_backward(exact), limit.gradient, what);
}

TEST(Ssd, ReferenceGradientsAreTheNumericalOnes) {
  for (const bool optional : {true, false}) {
    Inputs<double> in = make_inputs<double>(kSmall, {0, 4, 5, 11}, 1);
    if (optional) {
      in.dt_min = 0.05;
      in.dt_max = 0.4;
    } else {
      for (const char* name : {"dt_bias", "D", "initial_state"}) in.values.erase(name);
    }
    const auto loss = [&] {
      const auto out = run_forward<double>(ssd_forward_reference<double>, params_of(in));
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

TEST(Ssd, CpuMatchesTheReferenceAtEveryLength) {
  for (const Shape& shape : kShapes) {
    for (const int64_t length : kLengths) {
      expect_cpu_matches_reference(
          make_inputs<float>(shape, {0, length}, 2), make_inputs<double>(shape, {0, length}, 2),
          "N = " + std::to_string(shape.d_state) + ", length = " + std::to_string(length));
    }
  }
}

TEST(Ssd, CpuMatchesTheReferenceWithoutOptionalInputs) {
  auto in = make_inputs<float>(kShapes[0], {0, 40, 73}, 3);
  auto exact = make_inputs<double>(kShapes[0], {0, 40, 73}, 3);
  for (const char* name : {"dt_bias", "D", "initial_state"}) {
    in.values.erase(name);
    exact.values.erase(name);
  }
  expect_cpu_matches_reference(in, exact, "no bias, skip, initial state");
}

TEST(Ssd, StepsOutsideTheLimitsAreClampedAndGetNoGradient) {
  auto in = make_inputs<float>(kShapes[0], {0, 100}, 4);
  auto exact = make_inputs<double>(kShapes[0], {0, 100}, 4);
  in.dt_min = 0.05f;
  in.dt_max = 0.4f;
  exact.dt_min = in.dt_min;
  exact.dt_max = in.dt_max;
  expect_cpu_matches_reference(in, exact, "clamped");
  const std::vector<float> ddt = cpu_backward(in).at("dt");
  const int64_t without = std::count(ddt.begin(), ddt.end(), 0.0f);
  EXPECT_GT(without, 50);
  EXPECT_LT(without, static_cast<int64_t>(ddt.size()) - 50);
}

TEST(Ssd, StrongDecayKeepsItsGradients) {
  // Almost nothing survives from one token to the next, so that a decay's gradient found as a
  // difference of larger numbers would be lost.
  auto in = make_inputs<float>(kShapes[0], {0, 300}, 8);
  auto exact = make_inputs<double>(kShapes[0], {0, 300}, 8);
  for (float& a : in.values["A"]) a = -40;
  for (double& a : exact.values["A"]) a = -40;
  expect_cpu_matches_reference(in, exact, "strong decay");
}

TEST(Ssd, PackedDocumentsEqualTheSameDocumentsAlone) {
  const Shape shape = kShapes[0];
  Inputs<float> packed = make_inputs<float>(shape, {0, 1, 40, 40, 105, 170}, 5);
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

TEST(Ssd, TokenByTokenGivesTheBitsOfTheWholeSequence) {
  for (const Shape& shape : kShapes) {
    Inputs<float> in = make_inputs<float>(shape, {0, 70}, 6);
    const Named<float> whole = cpu_forward(in);
    const SsdParams<float> p = params_of(in);
    const int64_t width = p.heads * p.head_dim;
    std::vector<float> state = in.values["initial_state"];
    std::vector<float> y = nan_values<float>(in.tokens() * width);
    // One token, then three at once, and so on: the cut must not matter.
    for (int64_t t = 0, step = 1; t < in.tokens(); t += step, step = 4 - step) {
      step = std::min(step, in.tokens() - t);
      const int64_t starts[] = {0, step};
      SsdParams<float> one = p;
      one.starts = starts;
      one.x += t * p.x_stride;
      one.dt += t * p.dt_stride;
      one.B += t * p.b_stride;
      one.C += t * p.c_stride;
      one.y = y.data() + t * width;
      one.initial_state = state.data();
      one.final_state = state.data();
      ssd_forward_cpu(one);
    }
    EXPECT_TRUE(same_bits(y, whole.at("y")));
    EXPECT_TRUE(same_bits(state, whole.at("final_state")));
  }
}

TEST(Ssd, ReadsColumnSlicesOfWiderRows) {
  Inputs<float> in = make_inputs<float>(kShapes[3], {0, 33, 50}, 7);
  const Named<float> out = cpu_forward(in), gradients = cpu_backward(in);
  SsdParams<float> p = params_of(in);
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
  EXPECT_TRUE(same_bits(run_forward<float>(ssd_forward_cpu, p).at("y"), out.at("y")));
  const Named<float> same = run_backward<float>(ssd_forward_cpu, ssd_backward_cpu, in, p);
  for (const auto& [name, values] : gradients) EXPECT_TRUE(same_bits(same.at(name), values));
}

TEST(Ssd, BitsDoNotDependOnTheNumberOfThreads) {
  Inputs<float> in = make_inputs<float>(kShapes[3], {0, 33, 50, 120}, 9);
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
