#include "eval/answers/answer_journal.h"

#include <chrono>
#include <string>
#include <utility>

#include "core/error.h"
#include "eval/json_lines.h"

namespace mambify {
namespace {

using nlohmann::json;

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void check_settings(const JsonReader& line, const json& settings) {
  const JsonReader found = line.object("settings");
  for (const auto& [key, value] : settings.items()) {
    if (found.json().contains(key) && found.json()[key] == value) continue;
    throw Error(
        "{}: the answers in this file were made with {} = {}, these are to be with {}; delete it "
        "to begin anew, or go on with its settings",
        line.origin(), key, found.json().value(key, json()).dump(), value.dump());
  }
}

// The lines that were written whole.
void cut_half_line(const fs::path& file) {
  const std::string text = read_text_file(file);
  if (text.empty() || text.ends_with('\n')) return;
  const size_t end = text.rfind('\n');
  write_file_atomically(file, std::string_view(text).substr(0, end == text.npos ? 0 : end + 1));
}

}  // namespace

AnswerJournal::AnswerJournal(fs::path file, json settings)
    : file_(std::move(file)), settings_(std::move(settings)) {
  if (fs::exists(file_)) read();
}

void AnswerJournal::read() {
  cut_half_line(file_);
  if (fs::file_size(file_) == 0) return;
  json first;
  for_each_json_line(file_, 0, [&](const JsonReader& line) {
    if (first.is_null()) {
      line.object("settings");
      first = line.json();
      return;
    }
    JournalEntry entry;
    entry.answer.turns = line.require<std::vector<std::string>>("turns");
    entry.answer.tokens = line.require<std::vector<int64_t>>("tokens");
    entry.answer.cut = line.require<int64_t>("cut");
    entry.answer.without_room = line.require<int64_t>("without_room");
    entry.time = line.require<double>("time");
    entries_[line.require<int64_t>("number")] = std::move(entry);
  });
  if (!entries_.empty()) check_settings(JsonReader(first, file_.string()), settings_);
}

void AnswerJournal::append(const json& line) {
  stream_ << line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n" << std::flush;
  if (!stream_) throw Error("cannot write {}", file_.string());
}

void AnswerJournal::add(int64_t number, Answer answer) {
  if (!stream_.is_open()) {
    const bool anew = entries_.empty();
    stream_.open(file_, std::ios::binary | (anew ? std::ios::trunc : std::ios::app));
    if (anew) append({{"settings", settings_}});
  }
  const JournalEntry& entry = entries_[number] = {std::move(answer), now()};
  append({{"number", number},
          {"turns", entry.answer.turns},
          {"tokens", entry.answer.tokens},
          {"cut", entry.answer.cut},
          {"without_room", entry.answer.without_room},
          {"time", entry.time}});
}

void AnswerJournal::remove() {
  if (stream_.is_open()) stream_.close();
  fs::remove(file_);
}

}  // namespace mambify
