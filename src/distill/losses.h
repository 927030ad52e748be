// The losses of a step: what is minimised, and the parts that tell how it goes.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

namespace mambify {

// The parts by their names in metrics.jsonl. What a stage does not compute stays without a value.
template <typename Value>
struct LossParts {
  Value kl, ce, agreement;  // distill and stepwise, sft the second: means per token, in nats
  // dpo, means per pair: how often the chosen answer has the larger reward, by how much, and both.
  Value accuracy, margin, chosen_reward, rejected_reward;

  template <typename Self, typename Visit>
  static void for_each(Self& self, Visit&& visit) {
    visit("kl", self.kl);
    visit("ce", self.ce);
    visit("agreement", self.agreement);
    visit("accuracy", self.accuracy);
    visit("margin", self.margin);
    visit("chosen_reward", self.chosen_reward);
    visit("rejected_reward", self.rejected_reward);
  }
};

struct Losses {
  double total = 0;  // what is minimised
  LossParts<std::optional<double>> parts;
  std::vector<double> layers;  // align: relative squared error per converted layer
};

// The same where they were computed: a step leaves them there, since reading one makes the host
// wait for a CUDA device. Scalars in fp64; undefined where a stage has none.
struct LossTensors {
  at::Tensor total;
  LossParts<at::Tensor> parts;
  at::Tensor layers;  // [n]

  // Adds share times the other's values.
  void add(const LossTensors& other, double share);
  Losses read() const;
};

}  // namespace mambify
