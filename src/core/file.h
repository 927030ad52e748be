// Files: mapped for reading, written so that a reader sees the old content or the new, never half.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace mambify {

namespace fs = std::filesystem;

// A whole file mapped read-only. Shared: views into it stay valid while any copy lives.
class MappedFile {
 public:
  // Throws Error when the file cannot be opened or mapped; an empty file maps to no bytes.
  static std::shared_ptr<const MappedFile> open(const fs::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const fs::path& path() const { return path_; }

 private:
  MappedFile() = default;
  fs::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// The whole file as text. Throws Error when it cannot be read.
std::string read_text_file(const fs::path& path);

// Appends to a file descriptor and reports every failure (a full disk included) as an Error.
class FileWriter {
 public:
  explicit FileWriter(const fs::path& path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  // Flushes to the disk and closes; without it the destructor closes and reports nothing.
  void finish();

 private:
  fs::path path_;
  int descriptor_ = -1;
};

// Writes beside `path` and renames over it; on any error removes what it wrote and rethrows.
void write_file_atomically(const fs::path& path, const std::function<void(FileWriter&)>& body);
void write_file_atomically(const fs::path& path, std::string_view content);

// Fills a fresh folder beside `path`, syncs it and renames it to `path`. An existing folder is
// replaced: it is moved aside first and removed last, and recovered by the next call after a crash
// between the two renames.
void write_directory_atomically(const fs::path& path,
                                const std::function<void(const fs::path&)>& body);

// Undoes or completes what a crash inside write_directory_atomically left; true when `path` exists.
bool recover_directory(const fs::path& path);

}  // namespace mambify
