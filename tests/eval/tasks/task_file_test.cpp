#include "eval/tasks/task_file.h"

#include "core/error.h"
#include "errors.h"
#include "eval/tasks/task_files.h"

namespace mambify {
namespace {

using ::testing::HasSubstr;

class TaskFile : public testing::TaskFiles {
 protected:
  const std::string head_ = "[[task]]\nname='n'\nfile='items.jsonl'\n";
};

TEST_F(TaskFile, TakesTheFirstItemsOfEachTask) {
  write("items.jsonl",
        "{\"query\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 0}\n"
        "{\"query\": \"d\", \"choices\": [\"e\", \"f\"], \"gold\": 1}\n");
  const auto tasks = read(head_ + "kind='choice'\n" + head_ + "kind='choice_in_words'\n", 1);
  ASSERT_EQ(tasks.size(), 2u);
  EXPECT_STREQ(tasks[0]->kind(), "choice");
  EXPECT_STREQ(tasks[1]->kind(), "choice_in_words");
  for (const auto& task : tasks) EXPECT_EQ(task->size(), 1);
}

TEST_F(TaskFile, NamesTheKeyThatIsWrong) {
  write("items.jsonl", R"({"query": "a", "choices": ["b", "c"], "gold": 1})");
  EXPECT_ERROR(read(head_), HasSubstr("'kind'"), HasSubstr("tasks.toml: task 1"));
  EXPECT_ERROR(read(head_ + "kind='multiple'"), HasSubstr("multiple"),
               HasSubstr("choice, choice_in_words, last_word, number"));
  EXPECT_ERROR(read(head_ + "kind='choice'\nshot=5"), HasSubstr("unknown key 'shot'"),
               HasSubstr("template"));
  EXPECT_ERROR(read(head_ + "kind='choice'\n[task.more]"), HasSubstr("'more'"));
  EXPECT_ERROR(read("[[task]]\nname='n'\nkind='choice'"), HasSubstr("'file'"));
  EXPECT_ERROR(read("[[task]]\nkind='choice'\nfile='items.jsonl'"), HasSubstr("'name'"));
  EXPECT_ERROR(read("[[task]]\nname='n'\nfile='absent.jsonl'\nkind='choice'"),
               HasSubstr("absent.jsonl"));
  EXPECT_ERROR(read("[[tasks]]\nname='n'"), HasSubstr("'tasks'"));
  EXPECT_ERROR(read("[[task"), HasSubstr("tasks.toml:1"));
  EXPECT_ERROR(read("task = 3"), HasSubstr("[[task]]"));
  EXPECT_ERROR(read(""), HasSubstr("[[task]]"));
}

TEST_F(TaskFile, SaysWhereAnItemIsWrong) {
  write("items.jsonl", "\n{\"query\": \"a\", \"choices\": [\"b\"], \"gold\": 7}\n");
  EXPECT_ERROR(read(head_ + "kind='choice'"), HasSubstr("items.jsonl:2"), HasSubstr("gold"));
}

}  // namespace
}  // namespace mambify
