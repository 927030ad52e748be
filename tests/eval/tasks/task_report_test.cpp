#include "eval/tasks/task_report.h"

#include <gtest/gtest.h>

#include "eval/statistics.h"

namespace mambify {
namespace {

class TwoItems : public Task {
 public:
  TwoItems() : Task("two") {}
  const char* kind() const override { return "test"; }
  int64_t size() const override { return 4; }
  TaskOutcome run(const TaskSubject&) const override { return {}; }
};

TEST(TaskReport, HoldsEachMetricItsErrorItsChanceAndTheComparison) {
  TaskOutcome student, teacher;
  student.metrics = {{"first", {1, 0, 0, 1}, 0.25}, {"second", {0, 0, 0, 1}, 0.125}};
  student.notes = {{"unparsed", 3}};
  teacher.metrics = {{"first", {1, 1, 0, 1}, 0.25}, {"second", {1, 0, 0, 1}, 0.125}};
  teacher.notes = {{"unparsed", 1}};
  const nlohmann::json alone = to_json(TwoItems(), student, nullptr, 0);
  EXPECT_EQ(alone["metrics"], nlohmann::json({"first", "second"}));
  EXPECT_EQ(alone["name"], "two");
  EXPECT_EQ(alone["kind"], "test");
  EXPECT_EQ(alone["n"], 4);
  EXPECT_EQ(alone["chance"], 0.25);
  EXPECT_EQ(alone["second_chance"], 0.125);
  EXPECT_EQ(alone["first"], 0.5);
  EXPECT_EQ(alone["first_stderr"], estimate(student.metrics[0].values).error);
  EXPECT_EQ(alone["unparsed"], 3);
  EXPECT_FALSE(alone.contains("teacher"));

  const nlohmann::json both = to_json(TwoItems(), student, &teacher, 0);
  EXPECT_EQ(both["teacher"]["first"], 0.75);
  EXPECT_EQ(both["teacher"]["unparsed"], 1);
  EXPECT_EQ(both["paired"]["first"]["difference"], -0.25);
  EXPECT_EQ(both["paired"]["first"]["kept"], (0.5 - 0.25) / (0.75 - 0.25));
  EXPECT_EQ(both["paired"]["second"]["kept"], (0.25 - 0.125) / (0.5 - 0.125));
}

}  // namespace
}  // namespace mambify
