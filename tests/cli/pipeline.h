// A small random teacher and a hybrid made of it, for tests of the whole path.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "cli/program.h"
#include "cli/small_teacher.h"

namespace mambify::testing {

class Pipeline : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = std::make_unique<ScratchFolder>();
    write_teacher(path("teacher"));
    write_file_atomically(
        path("data.jsonl"),
        R"({"messages": [{"role": "user", "content": "Count to three."}, {"role": "assistant", "content": "One, two, three."}]})"
        "\n"
        R"({"text": "The quick brown fox jumps over the lazy dog, again and again."})"
        "\n");
    converted_ = run({"convert", "--teacher", path("teacher"), "--attention-layers", "1", "--out",
                      path("student"), "--json"});
  }
  static void TearDownTestSuite() { scratch_.reset(); }

  static std::string path(const std::string& name) { return *scratch_ / name; }

  static inline std::unique_ptr<ScratchFolder> scratch_;
  static inline Outcome converted_;
};

}  // namespace mambify::testing
