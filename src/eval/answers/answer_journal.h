// Answers as they come, in a file beside the one that is to be written, so that a run that was
// stopped goes on where it was.
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "eval/answers/answer_questions.h"

namespace mambify {

struct JournalEntry {
  Answer answer;
  double time = 0;  // when it was finished, in seconds since 1970
};

class AnswerJournal {
 public:
  // Reads what is there; a last line that was written in part is cut off. The file appears with the
  // first answer that is added.
  // settings: an object of what the answers depend on. Throws Error when there are answers of other
  // settings, naming the first key that differs, and when the file is no journal.
  AnswerJournal(fs::path file, nlohmann::json settings);

  // By the number of the question.
  const std::map<int64_t, JournalEntry>& entries() const { return entries_; }
  // Returns when the line is in the file. Throws Error when it cannot be written.
  void add(int64_t number, Answer answer);
  // Deletes the file, if it is there.
  void remove();

 private:
  void read();
  void append(const nlohmann::json& line);

  fs::path file_;
  nlohmann::json settings_;
  std::map<int64_t, JournalEntry> entries_;
  std::ofstream stream_;
};

}  // namespace mambify
