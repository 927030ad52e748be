#include "core/file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <stdexcept>
#include <vector>

#include "disk_full.h"
#include "errors.h"
#include "testing.h"

namespace mambify {
namespace {

using ::testing::HasSubstr;
using testing::message_when_files_end_at;
using testing::ScratchFolder;

std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

TEST(MappedFile, HoldsTheBytesEvenAfterTheFileIsReplaced) {
  const ScratchFolder folder;
  write_file_atomically(folder / "a", "first");
  const auto file = MappedFile::open(folder / "a");
  write_file_atomically(folder / "a", "second");
  EXPECT_EQ(text_of(*file), "first");
  EXPECT_EQ(text_of(*MappedFile::open(folder / "a")), "second");
}

TEST(MappedFile, AnEmptyFileHasNoBytes) {
  const ScratchFolder folder;
  write_file_atomically(folder / "empty", "");
  EXPECT_TRUE(MappedFile::open(folder / "empty")->bytes().empty());
}

TEST(MappedFile, NamesWhatCannotBeMapped) {
  const ScratchFolder folder;
  EXPECT_ERROR(MappedFile::open(folder / "none"), HasSubstr((folder / "none").string()),
               HasSubstr("No such file"));
  EXPECT_ERROR(MappedFile::open(folder.path()), HasSubstr("not a regular file"));
}

TEST(ReadTextFile, ReadsEveryByteAndNamesWhatItCannot) {
  const ScratchFolder folder;
  const std::string text("a\r\n\0b", 5);
  write_file_atomically(folder / "a", text);
  EXPECT_EQ(read_text_file(folder / "a"), text);
  EXPECT_ERROR(read_text_file(folder / "none"), HasSubstr("No such file"));
  EXPECT_ERROR(read_text_file(folder.path()), HasSubstr("directory"));
}

TEST(FileWriter, ReportsAFullDevice) {
  FileWriter writer("/dev/full");
  EXPECT_ERROR(writer.write("x"), HasSubstr("/dev/full"), HasSubstr("No space left"));
}

TEST(WriteFileAtomically, ReplacesTheContentAndLeavesNothingElse) {
  const ScratchFolder folder;
  write_file_atomically(folder / "a", "a longer first content");
  write_file_atomically(folder / "a", [](FileWriter& writer) {
    writer.write("sec");
    writer.write("ond");
  });
  EXPECT_EQ(read_text_file(folder / "a"), "second");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(WriteFileAtomically, KeepsTheOldContentWhenTheBodyThrows) {
  const ScratchFolder folder;
  write_file_atomically(folder / "a", "old");
  const auto body = [](FileWriter& writer) {
    writer.write("half");
    throw std::runtime_error("stop");
  };
  EXPECT_THROW(write_file_atomically(folder / "a", body), std::runtime_error);
  EXPECT_EQ(read_text_file(folder / "a"), "old");
  EXPECT_FALSE(fs::exists(folder / "a.tmp"));
}

TEST(WriteFileAtomically, KeepsTheOldContentOnAFullDisk) {
  const ScratchFolder folder;
  write_file_atomically(folder / "a", "old");
  const std::string message = message_when_files_end_at(
      1000, [&] { write_file_atomically(folder / "a", std::string(5000, 'x')); });
  EXPECT_THAT(message, HasSubstr((folder / "a").string()));
  EXPECT_THAT(message, HasSubstr("File too large"));
  EXPECT_EQ(read_text_file(folder / "a"), "old");
  EXPECT_FALSE(fs::exists(folder / "a.tmp"));
}

TEST(WriteFileAtomically, NamesATargetThatCannotBeReplaced) {
  const ScratchFolder folder;
  fs::create_directories(folder / "taken/by-a-folder");
  EXPECT_ERROR(write_file_atomically(folder / "taken", "x"), HasSubstr("taken"));
  EXPECT_FALSE(fs::exists(folder / "taken.tmp"));
  EXPECT_ERROR(write_file_atomically(folder / "no/such/folder", "x"), HasSubstr("no/such/folder"));
}

}  // namespace
}  // namespace mambify
