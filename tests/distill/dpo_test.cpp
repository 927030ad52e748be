#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <map>

#include "data/pair_stream.h"
#include "distill/dpo_loss.h"
#include "distill/parameters.h"
#include "distill/stages.h"
#include "io/json_reader.h"
#include "ops/tensors.h"
#include "tiny_run.h"

namespace mambify {
namespace {

using testing::tiny_inputs;

at::Tensor tensor_of(const nlohmann::json& rows) {
  std::vector<double> values;
  for (const auto& row : rows) values.insert(values.end(), row.begin(), row.end());
  return at::tensor(values, at::kDouble).view({std::ssize(rows), -1});
}

// Numbers of scripts/make_dpo_cases.py, which knows nothing of this program.
TEST(DpoLoss, IsThatOfPlainPythonWithItsGradient) {
  const nlohmann::json cases = read_json(testing::fixtures() / "dpo-cases.json");
  ASSERT_FALSE(cases.empty());
  for (const auto& entry : cases) {
    const at::Tensor student = tensor_of(entry["student"]).set_requires_grad(true);
    const DpoLoss found =
        dpo_loss(student, tensor_of(entry["reference"]), entry["beta"], entry["label_smoothing"]);
    EXPECT_NEAR(found.loss.item<double>(), entry["loss"], 1e-12);
    const at::Tensor rewards = at::stack({found.chosen_reward, found.rejected_reward}, 1);
    EXPECT_LT((rewards - tensor_of(entry["rewards"])).abs().max().item<double>(), 1e-9);
    found.loss.backward();
    EXPECT_LT((student.grad() - tensor_of(entry["gradient"])).abs().max().item<double>(), 1e-12);
  }
}

class DpoStage : public ::testing::Test {
 protected:
  DpoStage() {
    inputs_.data = {};
    stage_ = default_stage(StageKind::dpo);
    stage_.beta = 0.7;
    stage_.label_smoothing = 0.1;
    Model master = inputs_.student;
    select_parameters(master, inputs_.student, stage_);
  }

  // Of the whole model and all logits, one document after another.
  at::Tensor answer_log_prob(const Model& model, const Batch& batch, int64_t document) const {
    const int64_t begin = batch.segments.starts[document],
                  end = batch.segments.starts[document + 1];
    const std::vector<int64_t> ids(batch.ids.begin() + begin, batch.ids.begin() + end);
    const at::Tensor tokens = at::tensor(ids, at::kLong);
    const Context context =
        make_context(model.config, Segments::one(end - begin), model.embedding.options());
    const at::Tensor log_probs =
        at::mm(hidden_states(model, tokens, context), model.lm_head.t()).log_softmax(1);
    at::Tensor sum = at::zeros({}, at::kDouble);
    for (int64_t i = begin; i < end; ++i) {
      if (batch.weights[i] != 0) sum = sum + log_probs[i - begin][batch.labels[i]];
    }
    return sum;
  }

  at::Tensor plain_loss(const Batch& batch) const {
    at::Tensor total = at::zeros({}, at::kDouble);
    const int64_t pairs = batch.segments.documents() / 2;
    for (int64_t p = 0; p < pairs; ++p) {
      const auto reward = [&](int64_t document) {
        const at::Tensor reference = answer_log_prob(inputs_.teacher, batch, document).detach();
        return stage_.beta * (answer_log_prob(inputs_.student, batch, document) - reference);
      };
      const at::Tensor margin = reward(2 * p) - reward(2 * p + 1);
      total = total - (1 - stage_.label_smoothing) * margin.sigmoid().log() -
              stage_.label_smoothing * (-margin).sigmoid().log();
    }
    return total / static_cast<double>(pairs);
  }

  std::map<std::string, at::Tensor> take_gradients() {
    std::map<std::string, at::Tensor> gradients;
    for_each_parameter(inputs_.student, [&](const std::string& name, at::Tensor& tensor) {
      if (!tensor.grad().defined()) return;
      gradients[name] = tensor.grad().clone();
      tensor.mutable_grad() = at::Tensor();
    });
    return gradients;
  }

  RunInputs inputs_ = tiny_inputs();
  StageSection stage_;
  PairDataset pairs_ = testing::random_pairs(6, inputs_.teacher.config.vocab_size, /*seed=*/5);
  PairStream stream_{pairs_, /*seed=*/1};
};

TEST_F(DpoStage, IsThePlainFormWithEveryGradient) {
  const Batch batch = stream_.batch(0, 400);
  ASSERT_GE(batch.segments.documents(), 4);
  for (const bool saves_memory : {false, true}) {
    const auto objective = make_dpo(inputs_.teacher, inputs_.student, stage_, saves_memory);
    EXPECT_EQ(objective->weight(batch), batch.segments.documents() / 2);
    const Losses losses = objective->accumulate(batch, /*share=*/0.5).read();
    const auto found = take_gradients();
    const at::Tensor expected = plain_loss(batch);
    EXPECT_NEAR(losses.total, expected.item<double>(), 1e-5 * std::abs(expected.item<double>()));
    (expected * 0.5).backward();
    const auto wanted = take_gradients();
    ASSERT_EQ(found.size(), wanted.size());
    for (const auto& [name, gradient] : wanted) {
      EXPECT_LT(testing::tensor_error(found.at(name), gradient), 2e-3) << name;
    }
  }
}

TEST_F(DpoStage, GradientsAreThoseOfFiniteDifferences) {
  const Batch batch = stream_.batch(0, 400);
  const auto objective = make_dpo(inputs_.teacher, inputs_.student, stage_, false);
  objective->accumulate(batch, /*share=*/1);
  const auto gradients = take_gradients();
  const auto loss_at = [&](double step) {
    const auto move = [&](double distance) {
      const at::NoGradGuard no_grad;
      for_each_parameter(inputs_.student, [&](const std::string& name, at::Tensor& tensor) {
        if (gradients.contains(name)) tensor.add_(gradients.at(name), distance);
      });
    };
    move(step);
    const double loss = objective->accumulate(batch, /*share=*/1).read().total;
    take_gradients();
    move(-step);
    return loss;
  };
  double square = 0;
  for (const auto& [name, gradient] : gradients) {
    square += gradient.square().sum().item<double>();
  }
  // Along the gradient, a length at which fp32 still tells the losses apart.
  const double step = 3e-3 / std::sqrt(square);
  EXPECT_NEAR((loss_at(step) - loss_at(-step)) / (2 * step * square), 1, 0.01);
}

TEST_F(DpoStage, AStudentThatIsTheReferenceGainsNothingYet) {
  Model reference = clone(inputs_.student);
  for_each_parameter(reference, [](const std::string&, at::Tensor& t) { t = t.detach().clone(); });
  stage_.label_smoothing = 0;
  const auto objective = make_dpo(reference, inputs_.student, stage_, false);
  const Losses losses = objective->accumulate(stream_.batch(0, 400), /*share=*/1).read();
  EXPECT_NEAR(losses.total, std::log(2.0), 1e-6);
  EXPECT_NEAR(*losses.parts.margin, 0, 1e-6);
  EXPECT_NEAR(*losses.parts.chosen_reward, 0, 1e-6);
  EXPECT_NEAR(*losses.parts.rejected_reward, 0, 1e-6);
}

TEST_F(DpoStage, PartsOfItsMetricsBelongTogether) {
  const auto objective = make_dpo(inputs_.teacher, inputs_.student, stage_, false);
  const Losses losses = objective->accumulate(stream_.batch(0, 400), /*share=*/1).read();
  EXPECT_NEAR(*losses.parts.margin, *losses.parts.chosen_reward - *losses.parts.rejected_reward,
              1e-9);
  EXPECT_GE(*losses.parts.accuracy, 0);
  EXPECT_LE(*losses.parts.accuracy, 1);
  EXPECT_FALSE(losses.parts.kl || losses.parts.ce || losses.parts.agreement);
}

}  // namespace
}  // namespace mambify
