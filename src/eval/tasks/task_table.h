// One [[task]] table of a task file, read key by key.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "core/file.h"
#include "io/json_reader.h"

namespace mambify {

class TaskTable {
 public:
  // origin: what messages call the table; folder: what paths in it are relative to; limit: most
  // items of the task, 0 for all.
  TaskTable(nlohmann::json table, std::string origin, fs::path folder, int64_t limit);
  TaskTable(const TaskTable&) = delete;  // the reader refers to the table
  TaskTable& operator=(const TaskTable&) = delete;

  bool has(const std::string& key);
  bool is_string(const std::string& key) const { return table_.at(key).is_string(); }
  // T as in JsonReader. Both throw Error naming the key for a value of another kind.
  template <typename T>
  T require(const std::string& key) {
    known_.insert(key);
    return reader_.require<T>(key);
  }
  template <typename T>
  T get(const std::string& key, T fallback) {
    known_.insert(key);
    return reader_.get<T>(key, std::move(fallback));
  }
  // An integer in [low, high].
  int64_t get_between(const std::string& key, int64_t fallback, int64_t low, int64_t high);
  fs::path require_path(const std::string& key) { return folder_ / require<std::string>(key); }

  // Throws Error for a key that nothing has asked for.
  void check_all_known() const;

  const std::string& origin() const { return origin_; }
  int64_t limit() const { return limit_; }

 private:
  nlohmann::json table_;
  std::string origin_;
  fs::path folder_;
  int64_t limit_;
  JsonReader reader_;
  std::set<std::string> known_;
};

}  // namespace mambify
