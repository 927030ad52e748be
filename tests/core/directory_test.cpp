// write_directory_atomically and recover_directory: the old folder or the new one, never half.
#include <gtest/gtest.h>

#include <csignal>
#include <stdexcept>

#include "core/file.h"
#include "disk_full.h"
#include "errors.h"
#include "testing.h"

namespace mambify {
namespace {

using ::testing::HasSubstr;
using testing::message_when_files_end_at;
using testing::ScratchFolder;

// Fills a folder with two files that must always appear together.
void fill(const fs::path& folder, const std::string& content) {
  write_file_atomically(folder / "weights", content);
  write_file_atomically(folder / "state", content);
}

void write_version(const fs::path& path, const std::string& content) {
  write_directory_atomically(path, [&](const fs::path& folder) { fill(folder, content); });
}

void expect_version(const fs::path& path, const std::string& content) {
  EXPECT_EQ(read_text_file(path / "weights"), content);
  EXPECT_EQ(read_text_file(path / "state"), content);
  EXPECT_EQ(std::distance(fs::directory_iterator(path), {}), 2);
}

void expect_alone(const fs::path& path) {
  EXPECT_EQ(std::distance(fs::directory_iterator(path.parent_path()), {}), 1);
}

TEST(WriteDirectoryAtomically, CreatesAndReplaces) {
  const ScratchFolder scratch;
  const fs::path path = scratch / "step";
  write_version(path, "one");
  expect_version(path, "one");
  fs::create_directories(path / "stale");  // the replacement is whole, not merged
  write_version(path, "two");
  expect_version(path, "two");
  expect_alone(path);
}

TEST(WriteDirectoryAtomically, TakesAPathThatEndsInASlash) {
  const ScratchFolder scratch;
  write_version(scratch / "step/", "one");
  write_version(scratch / "step/", "two");
  expect_version(scratch / "step", "two");
  expect_alone(scratch / "step");
}

TEST(WriteDirectoryAtomically, CreatesTheFoldersAbove) {
  const ScratchFolder scratch;
  write_version(scratch / "runs/a/final", "one");
  expect_version(scratch / "runs/a/final", "one");
}

TEST(WriteDirectoryAtomically, KeepsTheOldFolderWhenTheBodyThrows) {
  const ScratchFolder scratch;
  const fs::path path = scratch / "step";
  write_version(path, "one");
  const auto body = [](const fs::path& folder) {
    write_file_atomically(folder / "weights", "half");
    throw std::runtime_error("stop");
  };
  EXPECT_THROW(write_directory_atomically(path, body), std::runtime_error);
  expect_version(path, "one");
  expect_alone(path);
}

TEST(WriteDirectoryAtomically, KeepsTheOldFolderOnAFullDisk) {
  const ScratchFolder scratch;
  const fs::path path = scratch / "step";
  write_version(path, "one");
  const std::string message =
      message_when_files_end_at(1000, [&] { write_version(path, std::string(5000, 'x')); });
  EXPECT_THAT(message, HasSubstr("File too large"));
  expect_version(path, "one");
  expect_alone(path);
}

TEST(WriteDirectoryAtomically, ReportsAFolderThatCannotBeMade) {
  const ScratchFolder scratch;
  write_file_atomically(scratch / "file", "x");
  EXPECT_ERROR(write_version(scratch / "file/step", "one"), HasSubstr("file/step"),
               HasSubstr("Not a directory"));
}

TEST(RecoverDirectory, ACrashWhileWritingLeavesTheOldFolder) {
  const ScratchFolder scratch;
  const fs::path path = scratch / "step";
  write_version(path, "one");
  const pid_t child = ::fork();
  if (child == 0) {
    write_directory_atomically(path, [&](const fs::path& folder) {
      write_file_atomically(folder / "weights", "half");
      std::raise(SIGKILL);
    });
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  expect_version(path, "one");
  EXPECT_TRUE(recover_directory(path));
  expect_version(path, "one");
  expect_alone(path);
}

// The states that a crash can leave between the steps of write_directory_atomically.
TEST(RecoverDirectory, ACrashBetweenTheRenamesLeavesTheOldFolder) {
  const ScratchFolder scratch;
  const fs::path path = scratch / "step";
  write_version(scratch / "step.old", "one");
  write_version(scratch / "step.tmp", "two");
  EXPECT_TRUE(recover_directory(path));
  expect_version(path, "one");
  expect_alone(path);
}

TEST(RecoverDirectory, ACrashBeforeTheCleanUpLeavesTheNewFolder) {
  const ScratchFolder scratch;
  const fs::path path = scratch / "step";
  write_version(path, "two");
  write_version(scratch / "step.old", "one");
  EXPECT_TRUE(recover_directory(path));
  expect_version(path, "two");
  expect_alone(path);
}

TEST(RecoverDirectory, TheNextWriteRecoversFirst) {
  const ScratchFolder scratch;
  const fs::path path = scratch / "step";
  write_version(scratch / "step.old", "one");
  write_version(scratch / "step.tmp", "two");
  const auto body = [](const fs::path&) { throw std::runtime_error("stop"); };
  EXPECT_THROW(write_directory_atomically(path, body), std::runtime_error);
  expect_version(path, "one");
  write_version(path, "three");
  expect_version(path, "three");
  expect_alone(path);
}

TEST(RecoverDirectory, NothingIsThereWhenNothingWasFinished) {
  const ScratchFolder scratch;
  write_version(scratch / "step.tmp", "half");
  EXPECT_FALSE(recover_directory(scratch / "step"));
  EXPECT_TRUE(fs::is_empty(scratch.path()));
}

}  // namespace
}  // namespace mambify
