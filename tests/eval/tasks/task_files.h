// Task files and their items, written for one test.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "eval/tasks/task_file.h"
#include "testing.h"

namespace mambify::testing {

class TaskFiles : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& content) {
    std::ofstream(scratch_ / name) << content;
  }
  std::vector<std::unique_ptr<Task>> read(const std::string& toml, int64_t limit = 0) {
    write("tasks.toml", toml);
    return read_tasks(scratch_ / "tasks.toml", limit);
  }
  // One task of a kind over items.jsonl with these further lines, as its own type.
  template <typename Kind>
  std::unique_ptr<Kind> read_one(const std::string& keys = "", int64_t limit = 0) {
    auto tasks = read(std::string("[[task]]\nname = 'one'\nfile = 'items.jsonl'\nkind = '") +
                          Kind::kKind + "'\n" + keys + "\n",
                      limit);
    Kind* task = dynamic_cast<Kind*>(tasks.front().release());
    EXPECT_NE(task, nullptr);
    return std::unique_ptr<Kind>(task);
  }

  ScratchFolder scratch_;
};

}  // namespace mambify::testing
