#include "core/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "core/error.h"

namespace mambify {
namespace {

// Makes a rename or a new entry inside `directory` survive a power cut.
void sync_directory(const fs::path& directory) {
  const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

fs::path parent_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

fs::path sibling(const fs::path& path, const char* suffix) {
  fs::path name = path.filename();
  if (name.empty()) name = path.parent_path().filename();  // "runs/x/" names runs/x
  return parent_of(path.filename().empty() ? path.parent_path() : path) / (name.string() + suffix);
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw Error("cannot open {}: {}", path.string(), std::strerror(errno));
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor);
    throw Error("{} is not a regular file", path.string());
  }
  std::shared_ptr<MappedFile> file(new MappedFile());
  file->path_ = path;
  file->size_ = static_cast<size_t>(status.st_size);
  if (file->size_ > 0) {
    void* data = ::mmap(nullptr, file->size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (data == MAP_FAILED) {
      const int error = errno;
      ::close(descriptor);
      throw Error("cannot map {}: {}", path.string(), std::strerror(error));
    }
    file->data_ = static_cast<const std::byte*>(data);
  }
  ::close(descriptor);
  return file;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

std::string read_text_file(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) throw Error("{} is a directory, not a file", path.string());
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw Error("cannot open {}: {}", path.string(), std::strerror(errno));
  std::ostringstream text;
  text << stream.rdbuf();
  if (stream.bad()) throw Error("cannot read {}", path.string());
  return text.str();
}

FileWriter::FileWriter(const fs::path& path) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw Error("cannot create {}: {}", path.string(), std::strerror(errno));
}

FileWriter::~FileWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void FileWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      throw Error("cannot write {}: {}", path_.string(), std::strerror(errno));
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void FileWriter::finish() {
  const int descriptor = std::exchange(descriptor_, -1);
  const bool synced = ::fsync(descriptor) == 0;
  const int error = errno;
  if (::close(descriptor) != 0 || !synced) {
    throw Error("cannot write {}: {}", path_.string(), std::strerror(synced ? errno : error));
  }
}

void write_file_atomically(const fs::path& path, const std::function<void(FileWriter&)>& body) {
  const fs::path temporary = sibling(path, ".tmp");
  try {
    FileWriter writer(temporary);
    body(writer);
    writer.finish();
    std::error_code error;
    fs::rename(temporary, path, error);
    if (error) throw Error("cannot write {}: {}", path.string(), error.message());
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
  sync_directory(parent_of(path));
}

void write_file_atomically(const fs::path& path, std::string_view content) {
  write_file_atomically(path, [&](FileWriter& writer) { writer.write(content); });
}

bool recover_directory(const fs::path& path) {
  const fs::path old = sibling(path, ".old"), temporary = sibling(path, ".tmp");
  try {
    if (!fs::exists(path) && fs::exists(old)) fs::rename(old, path);
    fs::remove_all(old);
    fs::remove_all(temporary);
    return fs::exists(path);
  } catch (const fs::filesystem_error& error) {
    throw Error("cannot recover {}: {}", path.string(), error.what());
  }
}

void write_directory_atomically(const fs::path& path,
                                const std::function<void(const fs::path&)>& body) {
  const fs::path old = sibling(path, ".old"), temporary = sibling(path, ".tmp");
  const bool replaces = recover_directory(path);
  try {
    fs::create_directories(temporary);
    body(temporary);
    sync_directory(temporary);
    if (replaces) fs::rename(path, old);
    fs::rename(temporary, path);
  } catch (const fs::filesystem_error& error) {
    recover_directory(path);
    throw Error("cannot write {}: {}", path.string(), error.what());
  } catch (...) {
    recover_directory(path);
    throw;
  }
  sync_directory(parent_of(path));
  std::error_code ignored;  // the next write removes what stays
  fs::remove_all(old, ignored);
}

}  // namespace mambify
