#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "kernels/cuda/runtime.h"
#include "kernels/scan_numerics.h"
#include "kernels/ssd/cuda.h"
#include "kernels/ssd/params.h"
#include "tolerances.h"

namespace mambify::kernels {
namespace {

using namespace testing;

// Rounded to T.
template <typename T, typename From>
std::vector<T> stored(const std::vector<From>& values) {
  std::vector<T> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) store(static_cast<float>(values[i]), result[i]);
  return result;
}

template <typename T>
std::vector<double> as_doubles(const std::vector<T>& values) {
  std::vector<double> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) result[i] = to_float(values[i]);
  return result;
}

template <typename T>
constexpr const char* dtype_name() {
  return std::is_same_v<T, float> ? "fp32" : "bf16";
}

template <typename T>
DeviceMemory on_device(const std::vector<T>& values) {
  DeviceMemory memory(static_cast<int64_t>(values.size() * sizeof(T)));
  memory.write(values.data(), memory.bytes());
  return memory;
}

// Bytes of which every fp32 and bf16 number is a NaN.
DeviceMemory nans_on_device(int64_t bytes) { return on_device(std::vector<uint8_t>(bytes, 0xff)); }

template <typename T>
std::vector<T> on_host(const DeviceMemory& memory) {
  std::vector<T> values(memory.bytes() / sizeof(T));
  memory.read(values.data(), memory.bytes());
  return values;
}

struct Shape {
  int64_t heads, head_dim, d_state, x_groups, b_groups, c_groups;
};

// Layers converted from attention, layers trained as Mamba-2, and widths that fill no tile.
constexpr Shape kSmall{6, 64, 64, 2, 2, 6}, kLarge{4, 128, 128, 1, 1, 4},
    kMamba2{3, 64, 128, 3, 1, 1}, kMixed{4, 128, 64, 2, 1, 2}, kOdd{4, 48, 80, 2, 4, 2},
    kNarrow{2, 16, 24, 1, 1, 2};

struct Inputs {
  Shape shape;
  std::vector<int64_t> starts;
  Named<double> values;  // x, dt, dt_bias, A, B, C, D, initial_state, dy
  double dt_min = 0, dt_max = std::numeric_limits<double>::infinity();

  int64_t tokens() const { return starts.back(); }
  int64_t documents() const { return static_cast<int64_t>(starts.size()) - 1; }
  const double* data(const char* name) const {
    const auto found = values.find(name);
    return found == values.end() ? nullptr : found->second.data();
  }
};

// Activations are numbers that T holds.
template <typename T>
Inputs make_inputs(const Shape& s, std::vector<int64_t> starts, uint64_t seed) {
  const int64_t tokens = starts.back(), documents = static_cast<int64_t>(starts.size()) - 1;
  const auto activations = [&](int64_t count, double scale = 1, double mean = 0) {
    return as_doubles(stored<T>(random_values<double>(count, ++seed, scale, mean)));
  };
  const auto vectors = [&](int64_t count) { return random_values<double>(count, ++seed); };
  Named<double> v;
  v["x"] = activations(tokens * s.x_groups * s.head_dim);
  v["dt"] = activations(tokens * s.heads, 1, -2);
  v["B"] = activations(tokens * s.b_groups * s.d_state);
  v["C"] = activations(tokens * s.c_groups * s.d_state);
  v["dy"] = activations(tokens * s.heads * s.head_dim);
  v["dt_bias"] = vectors(s.heads);
  v["D"] = vectors(s.heads);
  v["A"] = vectors(s.heads);
  for (double& a : v["A"]) a = -static_cast<float>(std::exp(a));
  v["initial_state"] = vectors(documents * s.heads * s.head_dim * s.d_state);
  return {s, std::move(starts), std::move(v)};
}

SsdParams<double> reference_params(const Inputs& in) {
  const Shape& s = in.shape;
  SsdParams<double> p;
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
  p.x = in.data("x");
  p.x_stride = s.x_groups * s.head_dim;
  p.dt = in.data("dt");
  p.dt_stride = s.heads;
  p.dt_bias = in.data("dt_bias");
  p.A = in.data("A");
  p.B = in.data("B");
  p.b_stride = s.b_groups * s.d_state;
  p.C = in.data("C");
  p.c_stride = s.c_groups * s.d_state;
  p.D = in.data("D");
  p.initial_state = in.data("initial_state");
  return p;
}

// y, final_state, and the gradient of each input by its name.
Named<double> reference(const Inputs& in) {
  SsdParams<double> p = reference_params(in);
  Named<double> out;
  for (const char* name : {"x", "dt", "dt_bias", "A", "B", "C", "D"}) {
    if (in.data(name)) out[name].resize(in.values.at(name).size());
  }
  out["y"].resize(in.tokens() * p.heads * p.head_dim);
  out["final_state"].resize(in.documents() * p.heads * p.head_dim * p.d_state);
  p.y = out["y"].data();
  p.final_state = out["final_state"].data();
  ssd_forward_reference(p);
  const auto gradient = [&](const char* name) {
    return in.data(name) ? out[name].data() : nullptr;
  };
  ssd_backward_reference(SsdBackwardParams<double>{.forward = p,
                                                   .dy = in.data("dy"),
                                                   .dx = gradient("x"),
                                                   .ddt = gradient("dt"),
                                                   .ddt_bias = gradient("dt_bias"),
                                                   .dA = gradient("A"),
                                                   .dB = gradient("B"),
                                                   .dC = gradient("C"),
                                                   .dD = gradient("D")});
  return out;
}

// The same of the kernels. Rows of x, dt, B and C are `gap` elements longer than what is read, and
// NaN there, as are outputs and scratch before.
template <typename T>
Named<double> on_cuda(const Inputs& in, int64_t gap = 0) {
  const Shape& s = in.shape;
  std::map<std::string, DeviceMemory> memory;
  const auto rows = [&](const char* name, int64_t width) -> const T* {
    memory[name] = on_device(stored<T>(with_gaps(in.values.at(name), width, gap)));
    return memory[name].as<T>();
  };
  const auto vector = [&](const char* name) -> const float* {
    if (!in.data(name)) return nullptr;
    memory[name] = on_device(stored<float>(in.values.at(name)));
    return memory[name].as<float>();
  };
  Named<double> out;
  std::vector<std::string> activations, vectors;
  const auto result = [&]<typename Element>(Element*& to, const char* name, int64_t count) {
    if (count == 0) return;
    (std::is_same_v<Element, T> ? activations : vectors).push_back(name);
    DeviceMemory& place = memory["result " + std::string(name)] =
        nans_on_device(count * static_cast<int64_t>(sizeof(Element)));
    to = place.as<Element>();
  };
  memory["starts"] = on_device(std::vector<int32_t>(in.starts.begin(), in.starts.end()));

  SsdCudaParams<T> p;
  p.documents = in.documents();
  p.tokens = in.tokens();
  p.starts = memory["starts"].as<int32_t>();
  p.heads = s.heads;
  p.head_dim = s.head_dim;
  p.d_state = s.d_state;
  p.x_groups = s.x_groups;
  p.b_groups = s.b_groups;
  p.c_groups = s.c_groups;
  p.dt_min = static_cast<float>(in.dt_min);
  p.dt_max = static_cast<float>(in.dt_max);
  p.x = rows("x", s.x_groups * s.head_dim);
  p.x_stride = s.x_groups * s.head_dim + gap;
  p.dt = rows("dt", s.heads);
  p.dt_stride = s.heads + gap;
  p.B = rows("B", s.b_groups * s.d_state);
  p.b_stride = s.b_groups * s.d_state + gap;
  p.C = rows("C", s.c_groups * s.d_state);
  p.c_stride = s.c_groups * s.d_state + gap;
  p.dt_bias = vector("dt_bias");
  p.A = vector("A");
  p.D = vector("D");
  p.initial_state = vector("initial_state");
  const int64_t outputs = p.tokens * s.heads * s.head_dim,
                states = p.documents * s.heads * s.head_dim * s.d_state;
  result(p.y, "y", outputs);
  result(p.final_state, "final_state", states);
  const CudaStream stream = create_cuda_stream();
  const DeviceMemory scratch = nans_on_device(ssd_scratch_bytes(p));
  p.scratch = scratch.as<void>();
  ssd_forward_cuda(p, stream);

  SsdCudaBackwardParams<T> b{.forward = p};
  const DeviceMemory dy = on_device(stored<T>(in.values.at("dy")));
  const DeviceMemory backward_scratch = nans_on_device(ssd_backward_scratch_bytes(p));
  b.forward.scratch = backward_scratch.as<void>();
  b.dy = dy.as<T>();
  result(b.dx, "x", p.tokens * s.x_groups * s.head_dim);
  result(b.ddt, "dt", p.tokens * s.heads);
  result(b.ddt_bias, "dt_bias", p.dt_bias ? s.heads : 0);
  result(b.dA, "A", s.heads);
  result(b.dB, "B", p.tokens * s.b_groups * s.d_state);
  result(b.dC, "C", p.tokens * s.c_groups * s.d_state);
  result(b.dD, "D", p.D ? s.heads : 0);
  ssd_backward_cuda(b, stream);
  synchronise(stream);
  destroy_cuda_stream(stream);
  for (const std::string& name : activations) {
    out[name] = as_doubles(on_host<T>(memory["result " + name]));
  }
  for (const std::string& name : vectors) {
    out[name] = as_doubles(on_host<float>(memory["result " + name]));
  }
  return out;
}

template <typename T>
void expect_matches_reference(const Inputs& in, const std::string& what) {
  const Tolerance limit = tolerance("cuda", dtype_name<T>());
  const Named<double> actual = on_cuda<T>(in), expected = reference(in);
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, values] : expected) {
    const bool is_output = name == "y" || name == "final_state";
    EXPECT_LT(max_relative_error(actual.at(name), values),
              is_output ? limit.output : limit.gradient)
        << name << ", " << what;
  }
}

template <typename T>
class SsdCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
    use_cuda_device(0);
  }
};

using Types = ::testing::Types<float, Bf16>;
TYPED_TEST_SUITE(SsdCuda, Types);

TYPED_TEST(SsdCuda, MatchesTheReferenceAtEveryLength) {
  for (const int64_t length : kLengths) {
    expect_matches_reference<TypeParam>(make_inputs<TypeParam>(kSmall, {0, length}, 2),
                                        "length " + std::to_string(length));
  }
}

TYPED_TEST(SsdCuda, MatchesTheReferenceAtEveryShape) {
  for (const Shape& shape : {kLarge, kMamba2, kMixed, kOdd, kNarrow}) {
    expect_matches_reference<TypeParam>(make_inputs<TypeParam>(shape, {0, 1, 64, 64, 129, 200}, 3),
                                        "head_dim " + std::to_string(shape.head_dim) +
                                            ", d_state " + std::to_string(shape.d_state));
  }
}

// So many that a state's tiles are the large ones, whatever the heads.
std::vector<int64_t> starts_of_many() {
  std::vector<int64_t> starts{0};
  for (int64_t document = 0; document < 50; ++document) {
    starts.push_back(starts.back() + 7 * document % 90);
  }
  return starts;
}

TYPED_TEST(SsdCuda, MatchesTheReferenceWithManyDocuments) {
  for (const Shape& shape : {kSmall, kLarge, kMamba2, kMixed}) {
    expect_matches_reference<TypeParam>(make_inputs<TypeParam>(shape, starts_of_many(), 10),
                                        "many documents, head_dim " +
                                            std::to_string(shape.head_dim) + ", d_state " +
                                            std::to_string(shape.d_state));
  }
}

TYPED_TEST(SsdCuda, MatchesTheReferenceWithoutOptionalInputs) {
  Inputs in = make_inputs<TypeParam>(kSmall, {0, 40, 173}, 4);
  for (const char* name : {"dt_bias", "D", "initial_state"}) in.values.erase(name);
  expect_matches_reference<TypeParam>(in, "no bias, skip, initial state");
}

TYPED_TEST(SsdCuda, StepsOutsideTheLimitsAreClampedAndGetNoGradient) {
  Inputs in = make_inputs<TypeParam>(kSmall, {0, 100}, 5);
  in.dt_min = 0.05f;
  in.dt_max = 0.4f;
  expect_matches_reference<TypeParam>(in, "clamped");
  const std::vector<double> ddt = on_cuda<TypeParam>(in).at("dt");
  const int64_t without = std::count(ddt.begin(), ddt.end(), 0.0);
  EXPECT_GT(without, 50);
  EXPECT_LT(without, static_cast<int64_t>(ddt.size()) - 50);
}

// Almost nothing survives from one token to the next, so that a decay's gradient found as a
// difference of larger numbers would be lost.
TYPED_TEST(SsdCuda, StrongDecayKeepsItsGradients) {
  Inputs in = make_inputs<TypeParam>(kSmall, {0, 150}, 6);
  for (double& a : in.values["A"]) a = -40;
  expect_matches_reference<TypeParam>(in, "strong decay");
}

// Nearly linear attention: chunks far back count as much as the last.
TYPED_TEST(SsdCuda, WeakDecayCarriesTheStateThroughManyChunks) {
  Inputs in = make_inputs<TypeParam>(kSmall, {0, 7, 700}, 7);
  for (double& a : in.values["A"]) a = -0.0009765625;
  expect_matches_reference<TypeParam>(in, "weak decay");
}

TYPED_TEST(SsdCuda, RunsGiveTheSameBitsWhateverTheStrides) {
  for (const Shape& shape : {kSmall, kLarge, kMamba2}) {
    const Inputs in = make_inputs<TypeParam>(shape, {0, 33, 50, 50, 190}, 8);
    const Named<double> once = on_cuda<TypeParam>(in);
    for (const int64_t gap : {0, 8}) {
      const Named<double> again = on_cuda<TypeParam>(in, gap);
      for (const auto& [name, values] : once)
        EXPECT_TRUE(same_bits(again.at(name), values)) << name;
    }
  }
}

template <typename T>
void expect_the_bits_of_documents_alone(const Inputs& packed) {
  const Named<double> together = on_cuda<T>(packed);
  for (int64_t i = 0; i < packed.documents(); ++i) {
    const int64_t begin = packed.starts[i], length = packed.starts[i + 1] - begin;
    if (length == 0) continue;
    Inputs alone = packed;
    alone.starts = {0, length};
    for (const char* name : {"x", "dt", "B", "C", "dy"}) {
      alone.values[name] = rows_of(packed.values.at(name), packed.tokens(), begin, length);
    }
    alone.values["initial_state"] =
        rows_of(packed.values.at("initial_state"), packed.documents(), i, 1);
    const Named<double> out = on_cuda<T>(alone);
    for (const char* name : {"y", "x", "dt", "B", "C"}) {
      EXPECT_TRUE(
          same_bits(out.at(name), rows_of(together.at(name), packed.tokens(), begin, length)))
          << name << " of document " << i;
    }
    EXPECT_TRUE(same_bits(out.at("final_state"),
                          rows_of(together.at("final_state"), packed.documents(), i, 1)));
  }
}

TYPED_TEST(SsdCuda, BitsOfADocumentDoNotDependOnItsNeighbours) {
  expect_the_bits_of_documents_alone<TypeParam>(
      make_inputs<TypeParam>(kSmall, {0, 1, 40, 40, 170, 200}, 9));
  expect_the_bits_of_documents_alone<TypeParam>(
      make_inputs<TypeParam>(kSmall, starts_of_many(), 11));
}

TYPED_TEST(SsdCuda, RefusesWhatItDoesNotTake) {
  const auto refused = [](const Shape& s) {
    SsdCudaParams<TypeParam> p;
    p.documents = 1;
    p.tokens = 10;
    p.heads = s.heads;
    p.head_dim = s.head_dim;
    p.d_state = s.d_state;
    p.x_groups = s.x_groups;
    p.b_groups = s.b_groups;
    p.c_groups = s.c_groups;
    EXPECT_THROW(ssd_forward_cuda(p, nullptr), Error);
    EXPECT_THROW(ssd_backward_scratch_bytes(p), Error);
  };
  refused({4, 136, 64, 2, 2, 4});
  refused({4, 64, 256, 2, 2, 4});
  refused({4, 62, 64, 2, 2, 4});
  refused({4, 64, 64, 3, 2, 4});
}

}  // namespace
}  // namespace mambify::kernels
