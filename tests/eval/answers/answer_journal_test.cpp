#include "eval/answers/answer_journal.h"

#include <fstream>

#include "disk_full.h"
#include "errors.h"
#include "testing.h"

namespace mambify {
namespace {

using ::testing::HasSubstr;

class Journal : public ::testing::Test {
 protected:
  const fs::path file() const { return scratch_ / "journal"; }
  testing::ScratchFolder scratch_;
  const nlohmann::json settings_ = {{"seed", 3}, {"model", "m"}};
};

Answer answer(const std::string& text) { return {{text, "then"}, {5, 2}, 1, 0}; }

TEST_F(Journal, GoesOnWithWhatIsThere) {
  {
    AnswerJournal journal(file(), settings_);
    EXPECT_TRUE(journal.entries().empty());
    journal.add(4, answer("four\n\"quoted\""));
  }
  AnswerJournal journal(file(), settings_);
  ASSERT_EQ(journal.entries().size(), 1u);
  const JournalEntry& entry = journal.entries().at(4);
  EXPECT_EQ(entry.answer.turns, answer("four\n\"quoted\"").turns);
  EXPECT_EQ(entry.answer.tokens, (std::vector<int64_t>{5, 2}));
  EXPECT_EQ(entry.answer.cut, 1);
  EXPECT_GT(entry.time, 0);
  journal.add(2, answer("two"));
  EXPECT_EQ(AnswerJournal(file(), settings_).entries().size(), 2u);
  journal.remove();
  EXPECT_FALSE(fs::exists(file()));
}

TEST_F(Journal, CutsALineThatWasNotWrittenWhole) {
  AnswerJournal(file(), settings_).add(0, answer("zero"));
  const std::string whole = read_text_file(file());
  for (size_t length = 0; length < whole.size(); ++length) {
    std::ofstream(file(), std::ios::binary) << whole.substr(0, length);
    {
      AnswerJournal journal(file(), settings_);
      EXPECT_TRUE(journal.entries().empty()) << length;
      journal.add(7, answer("seven"));
    }
    const AnswerJournal again(file(), settings_);
    ASSERT_EQ(again.entries().size(), 1u) << length;
    EXPECT_EQ(again.entries().begin()->first, 7) << length;
  }
}

TEST_F(Journal, IsOfOneRunOfOneSetting) {
  AnswerJournal(file(), settings_).add(0, answer("zero"));
  EXPECT_ERROR(AnswerJournal(file(), {{"seed", 4}, {"model", "m"}}), HasSubstr("seed = 3"),
               HasSubstr("with 4"), HasSubstr("journal"));
  EXPECT_ERROR(AnswerJournal(file(), {{"seed", 3}, {"model", "m"}, {"top_k", 1}}),
               HasSubstr("top_k"));
  std::ofstream(file()) << "something else\n";
  EXPECT_ERROR(AnswerJournal(file(), settings_), HasSubstr("journal:1"));
}

TEST_F(Journal, WithoutAnAnswerTakesOtherSettings) {
  AnswerJournal(file(), settings_);
  EXPECT_FALSE(fs::exists(file()));
  std::ofstream(file()) << "{\"settings\": {\"seed\": 9}}\n";
  AnswerJournal(file(), settings_).add(0, answer("zero"));
  EXPECT_EQ(AnswerJournal(file(), settings_).entries().size(), 1u);
}

TEST_F(Journal, OnAFullDiskSaysSo) {
  const std::string message = testing::message_when_files_end_at(600, [&] {
    AnswerJournal journal(file(), settings_);
    for (int64_t i = 0; i < 100; ++i) journal.add(i, answer("an answer"));
  });
  EXPECT_THAT(message, HasSubstr("cannot write"));
  EXPECT_THAT(message, HasSubstr("journal"));
  EXPECT_GT(AnswerJournal(file(), settings_).entries().size(), 0u);
}

}  // namespace
}  // namespace mambify
