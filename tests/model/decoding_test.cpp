// Decoding with a state against the whole sequence at once.
#include <gtest/gtest.h>

#include "model/fixtures.h"

namespace mambify {
namespace {

using namespace testing;

constexpr int64_t kLength = 70;

at::Tensor some_ids(const Model& model, int64_t offset) {
  return (at::arange(kLength) * 7 + offset).remainder(model.config.vocab_size);
}

at::Tensor whole(const Model& model, const at::Tensor& ids) {
  return hidden_states(
      model, ids,
      make_context(model.config, Segments::one(ids.size(0)), model.embedding.options()));
}

// Feeds `ids` to the rows of a state, `chunk` tokens each at a time.
std::vector<at::Tensor> in_chunks(const Model& model, const std::vector<at::Tensor>& ids,
                                  ModelState& state, const std::vector<int64_t>& rows,
                                  int64_t chunk) {
  std::vector<std::vector<at::Tensor>> parts(ids.size());
  for (int64_t begin = 0; begin < ids[0].size(0); begin += chunk) {
    const int64_t length = std::min(chunk, ids[0].size(0) - begin);
    Segments segments{{0}};
    std::vector<at::Tensor> inputs;
    for (const at::Tensor& sequence : ids) {
      inputs.push_back(sequence.narrow(0, begin, length));
      segments.starts.push_back(segments.starts.back() + length);
    }
    const Context context =
        make_context(model.config, segments, model.embedding.options(), &state, rows);
    const at::Tensor hidden = hidden_states(model, at::cat(inputs), context, &state);
    for (size_t i = 0; i < ids.size(); ++i) {
      parts[i].push_back(hidden.narrow(0, static_cast<int64_t>(i) * length, length));
    }
  }
  std::vector<at::Tensor> result;
  for (const auto& part : parts) result.push_back(at::cat(part));
  return result;
}

class Decoding : public ::testing::TestWithParam<const char*> {
 protected:
  c10::InferenceMode inference_;
  Model model_ = load_model(fixtures() / GetParam());
};

TEST_P(Decoding, TokenByTokenEqualsTheWholeSequence) {
  const at::Tensor ids = some_ids(model_, 0), expected = whole(model_, ids);
  for (int64_t chunk : {1, 3, 32}) {
    ModelState state(model_.config, 1, kLength, model_.embedding.options());
    const at::Tensor hidden = in_chunks(model_, {ids}, state, {0}, chunk).front();
    EXPECT_TRUE(at::allclose(hidden, expected, 1e-4, 1e-5)) << "chunk " << chunk;
    EXPECT_EQ(state.lengths, std::vector<int64_t>{kLength});
  }
}

TEST_P(Decoding, RowsOfOneStateDoNotSeeEachOther) {
  // Rows 2 and 0 of three, out of order, one of them with a past.
  ModelState state(model_.config, 3, 2 * kLength, model_.embedding.options());
  in_chunks(model_, {some_ids(model_, 100)}, state, {2}, 16);
  state.reset(2);
  in_chunks(model_, {some_ids(model_, 5)}, state, {0}, 16);
  const at::Tensor first = some_ids(model_, 11), second = some_ids(model_, 12);
  const auto hidden = in_chunks(model_, {first, second}, state, {2, 0}, 1);
  EXPECT_TRUE(at::allclose(hidden[0], whole(model_, first), 1e-4, 1e-5));
  const at::Tensor continued = whole(model_, at::cat({some_ids(model_, 5), second}));
  EXPECT_TRUE(at::allclose(hidden[1], continued.narrow(0, kLength, kLength), 1e-4, 1e-5));
}

INSTANTIATE_TEST_SUITE_P(All, Decoding, ::testing::ValuesIn(kCheckpoints), [](const auto& info) {
  std::string name = info.param;
  std::erase(name, '-');
  return name;
});

}  // namespace
}  // namespace mambify
