// The sections of a report: each takes all results and gives HTML, "" when none is of its kind.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "eval/report/report.h"
#include "io/json_reader.h"

namespace mambify {

// Short names of models: the last part of a path, or the run's folder of RUN/final; where two
// models have the same, their paths.
class ModelNames {
 public:
  explicit ModelNames(const std::vector<EvalResult>& results);

  const std::string& of(const std::string& path) const { return names_.at(path); }
  // Paths, the teachers first, then as the results name them.
  const std::vector<std::string>& paths() const { return paths_; }
  bool is_teacher(const std::string& path) const { return teachers_.contains(path); }

 private:
  std::map<std::string, std::string> names_;
  std::vector<std::string> paths_;
  std::set<std::string> teachers_;
};

// One result, with what it says of its origin.
class ResultReader {
 public:
  explicit ResultReader(const EvalResult& result);

  const std::string& kind() const { return kind_; }
  const std::string& model() const { return model_; }      // "": none
  const std::string& teacher() const { return teacher_; }  // "": none
  std::string data() const;  // the name of the file that was measured on, "" for none
  JsonReader about() const { return reader_.object("about"); }
  const JsonReader& body() const { return reader_; }
  // What was measured of the teacher in the same run, if anything.
  std::optional<JsonReader> teacher_body() const;

 private:
  JsonReader reader_;
  std::string kind_, model_, teacher_;
};

// The required list of objects at a key.
std::vector<JsonReader> objects_at(const JsonReader& reader, const std::string& key);

std::string overview_section(const std::vector<EvalResult>& results, const ModelNames& names);
std::string tasks_section(const std::vector<EvalResult>& results, const ModelNames& names);
std::string needle_section(const std::vector<EvalResult>& results, const ModelNames& names);
std::string sensitivity_section(const std::vector<EvalResult>& results, const ModelNames& names);
std::string sources_section(const std::vector<EvalResult>& results);

}  // namespace mambify
