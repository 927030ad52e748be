#include "distill/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"
#include "testing.h"

namespace mambify {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kSmall = R"(
[model]
teacher = "t"
keep_attention = "1/4"
[data]
files = ["a.jsonl", "b.jsonl"]
[[stage]]
kind = "align"
steps = 10
[[stage]]
kind = "distill"
minutes = 1.5
betas = [0.8, 0.99]
freeze = ["embedding"]
schedule = "wsd"
[run]
dir = "runs/x"
seed = 7
)";

std::string message_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    parse_recipe(text, "r.toml", overrides);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Recipe, ReadsEverySection) {
  const Recipe recipe = parse_recipe(kSmall, "r.toml");
  EXPECT_EQ(recipe.model.teacher, "t");
  EXPECT_EQ(recipe.data.files, (std::vector<std::string>{"a.jsonl", "b.jsonl"}));
  EXPECT_EQ(recipe.data.sequence_length, 512);
  ASSERT_EQ(recipe.stages.size(), 2u);
  EXPECT_EQ(recipe.stages[0].kind, StageKind::align);
  EXPECT_EQ(recipe.stages[0].steps, 10);
  EXPECT_EQ(recipe.stages[1].minutes, 1.5);
  EXPECT_EQ(recipe.stages[1].betas, (std::array<double, 2>{0.8, 0.99}));
  EXPECT_EQ(recipe.stages[1].freeze, std::vector<std::string>{"embedding"});
  EXPECT_EQ(recipe.stages[1].schedule, ScheduleKind::wsd);
  EXPECT_EQ(recipe.run.seed, 7u);
  EXPECT_EQ(recipe.text, kSmall);
}

TEST(Recipe, UnknownKeysNameTheLineAndTheNearestKey) {
  EXPECT_THAT(message_of(replaced(kSmall, "steps = 10", "stepss = 10")),
              AllOf(HasSubstr("r.toml:9"), HasSubstr("\"stepss\""), HasSubstr("[[stage]] 0"),
                    HasSubstr("\"steps\"")));
  EXPECT_THAT(message_of(replaced(kSmall, "seed = 7", "sed = 7")),
              AllOf(HasSubstr("r.toml:18"), HasSubstr("[run]"), HasSubstr("\"seed\"")));
  EXPECT_THAT(message_of(replaced(kSmall, "[data]", "[dat]")),
              AllOf(HasSubstr("r.toml:5"), HasSubstr("unknown section"), HasSubstr("\"data\"")));
}

TEST(Recipe, TypeErrorsNameKeyFoundAndExpected) {
  EXPECT_THAT(message_of(replaced(kSmall, "steps = 10", "steps = \"ten\"")),
              AllOf(HasSubstr("r.toml:9"), HasSubstr("steps"), HasSubstr("string"),
                    HasSubstr("an integer")));
  EXPECT_THAT(message_of(replaced(kSmall, "seed = 7", "seed = -7")),
              AllOf(HasSubstr("-7"), HasSubstr("at least 0")));
  EXPECT_THAT(message_of(replaced(kSmall, "files = [\"a.jsonl\", \"b.jsonl\"]", "files = \"a\"")),
              HasSubstr("a list of strings"));
  EXPECT_THAT(message_of(replaced(kSmall, "\"b.jsonl\"", "3")),
              AllOf(HasSubstr("files"), HasSubstr("a string")));
  EXPECT_THAT(message_of(replaced(kSmall, "[0.8, 0.99]", "[0.8]")),
              HasSubstr("a list of two numbers"));
  EXPECT_THAT(message_of(replaced(kSmall, "\"align\"", "\"aligned\"")),
              AllOf(HasSubstr("aligned"), HasSubstr("\"align\", \"stepwise\", \"distill\"")));
  EXPECT_THAT(message_of("model = 3\n"), AllOf(HasSubstr("r.toml:1"), HasSubstr("section")));
  EXPECT_THAT(message_of("stage = 3\n"), HasSubstr("[[stage]]"));
  EXPECT_THAT(message_of("stage = [3]\n"), HasSubstr("[[stage]]"));
}

TEST(Recipe, NumbersOutOfRangeAreErrors) {
  EXPECT_THAT(message_of(replaced(kSmall, "0.99", "1.5")), HasSubstr("betas"));
  EXPECT_THAT(message_of(kSmall, {"stage.0.warmup=2"}), HasSubstr("[0, 1]"));
  EXPECT_THAT(message_of(kSmall, {"stage.0.learning_rate=-1"}), HasSubstr("learning_rate"));
  EXPECT_THAT(message_of(kSmall, {"stage.0.learning_rate=nan"}), HasSubstr("finite"));
  EXPECT_THAT(message_of(kSmall, {"data.sequence_length=0"}), HasSubstr("sequence_length"));
}

TEST(Recipe, SectionsThatContradictThemselvesAreErrors) {
  EXPECT_THAT(message_of(kSmall, {"stage.0.tokens=5"}), HasSubstr("exactly one"));
  EXPECT_THAT(message_of(kSmall, {"stage.0.steps=0"}), HasSubstr("exactly one"));
  EXPECT_THAT(message_of(kSmall, {"stage.0.accumulation=3"}), HasSubstr("not a multiple"));
  EXPECT_THAT(message_of(kSmall, {"stage.0.train=all"}), HasSubstr("mixers only"));
  EXPECT_THAT(message_of(kSmall, {"stage.1.kl_weight=0"}), HasSubstr("nothing to learn"));
  EXPECT_THAT(message_of(kSmall, {"stage.1.kind=stepwise"}), HasSubstr("lists no rounds"));
  EXPECT_THAT(message_of(kSmall, {"stage.1.keep_attention=[\"1/2\", \"1/4\"]"}),
              HasSubstr("only stepwise stages have rounds"));
  EXPECT_THAT(message_of(kSmall, {"stage.1.beta=0.2"}), HasSubstr("belong to dpo"));
  EXPECT_THAT(message_of(kSmall, {"stage.0.reference=start"}), HasSubstr("belong to dpo"));
  EXPECT_THAT(message_of(kSmall, {"stage.1.kind=sft", "stage.1.ce_weight=1"}),
              HasSubstr("belong to distill and stepwise"));
  EXPECT_THAT(message_of(kSmall, {"stage.1.kind=dpo"}), HasSubstr("files is missing"));
  EXPECT_THAT(
      message_of(kSmall, {"stage.1.kind=dpo", "stage.1.files=['p']", "stage.1.batch_tokens=1022"}),
      AllOf(HasSubstr("at least 1024"), HasSubstr("sequence_length = 512")));
  for (const char* name : {"a/b", "final", "checkpoints", "..", "reference", "report.html"}) {
    EXPECT_THAT(message_of(kSmall, {std::string("stage.1.save=") + name}),
                HasSubstr("a new folder's name"));
  }
  EXPECT_THAT(message_of(kSmall, {"stage.0.save=a", "stage.1.save=a"}), HasSubstr("twice"));
  EXPECT_THAT(message_of(kSmall, {"stage.1.warmup=0.9"}), HasSubstr("more than the whole"));
  EXPECT_THAT(message_of(kSmall, {"model.student=s"}), HasSubstr("converted further"));
  EXPECT_THAT(message_of(kSmall, {"model.keep_attention="}), HasSubstr("no layer would be"));
  EXPECT_THAT(message_of(kSmall, {"model.teacher="}), HasSubstr("teacher"));
  EXPECT_THAT(message_of(kSmall, {"run.dir="}), HasSubstr("dir"));
  EXPECT_THAT(message_of(kSmall, {"data.files=[]"}), HasSubstr("files"));
  EXPECT_THAT(message_of("[model]\nteacher='t'\n[data]\nfiles=['a']\n[run]\ndir='d'\n"),
              HasSubstr("no [[stage]]"));
}

TEST(Recipe, StagesThatBeginWithAFinishedStudentMoveItSlowly) {
  const Recipe recipe =
      parse_recipe(kSmall, "r.toml",
                   {"stage.0.kind=sft", "stage.1.kind=dpo", "stage.1.files=['p.jsonl']",
                    "stage.1.learning_rate=3e-6", "stage.1.reference=start"});
  EXPECT_EQ(recipe.stages[0].train, TrainSet::all);
  EXPECT_EQ(recipe.stages[0].learning_rate, default_stage(StageKind::sft).learning_rate);
  EXPECT_LT(recipe.stages[0].learning_rate, StageSection().learning_rate_rest);
  EXPECT_EQ(recipe.stages[1].learning_rate, 3e-6);
  EXPECT_LT(recipe.stages[1].learning_rate_rest, recipe.stages[0].learning_rate_rest);
  EXPECT_EQ(recipe.stages[1].reference, ReferenceModel::start);
}

TEST(Recipe, SharedFilesAreNeededWhereAStageHasNone) {
  EXPECT_THAT(message_of(kSmall, {"data.files=[]", "stage.0.files=['a']"}),
              HasSubstr("files of [data]"));
  EXPECT_EQ(message_of(kSmall, {"data.files=[]", "stage.0.files=['a']", "stage.1.files=['b']"}),
            "no error");
}

TEST(Recipe, TomlErrorsNameTheLine) {
  EXPECT_THAT(message_of("[model]\nteacher = \n"), HasSubstr("r.toml:2"));
  EXPECT_THAT(message_of("[model]\n[model]\n"), HasSubstr("r.toml:2"));
}

TEST(Recipe, OverridesReplaceAddAndStayReadable) {
  const Recipe recipe = parse_recipe(
      kSmall, "r.toml", {"stage.1.minutes=0", "stage.1.steps=12", "run.dir=runs/y", "run.seed=9"});
  EXPECT_EQ(recipe.stages[1].minutes, 0);
  EXPECT_EQ(recipe.stages[1].steps, 12);
  EXPECT_EQ(recipe.run.dir, "runs/y");
  EXPECT_EQ(recipe.run.seed, 9u);
  const Recipe again = parse_recipe(recipe.text, "again.toml");
  EXPECT_EQ(fingerprint(again), fingerprint(recipe));
}

TEST(Recipe, WrongOverridesSayWhatIsWrong) {
  EXPECT_THAT(message_of(kSmall, {"nonsense"}), HasSubstr("section.key=value"));
  EXPECT_THAT(message_of(kSmall, {"seed=1"}), HasSubstr("section.key=value"));
  EXPECT_THAT(message_of(kSmall, {"stage.2.steps=1"}), HasSubstr("no [[stage]] number 2"));
  EXPECT_THAT(message_of(kSmall, {"stage.x.steps=1"}), HasSubstr("number x"));
  EXPECT_THAT(message_of(kSmall, {"stage.steps=1"}), HasSubstr("stage.0.key"));
  EXPECT_THAT(message_of(kSmall, {"run.sed=1"}), AllOf(HasSubstr("--set"), HasSubstr("\"seed\"")));
  EXPECT_THAT(message_of(kSmall, {"stage.0.steps=abc"}),
              AllOf(HasSubstr("--set"), HasSubstr("abc"), HasSubstr("an integer")));
}

TEST(Recipe, FingerprintFollowsValuesNotText) {
  const uint64_t original = fingerprint(parse_recipe(kSmall, "r.toml"));
  EXPECT_EQ(original, fingerprint(parse_recipe(std::string("# why\n") + kSmall, "other.toml")));
  EXPECT_NE(original, fingerprint(parse_recipe(kSmall, "r.toml", {"run.seed=8"})));
  EXPECT_NE(original, fingerprint(parse_recipe(kSmall, "r.toml", {"stage.1.clip=0.5"})));
}

TEST(Recipe, TheDocumentationHoldsTheReference) {
  const std::string page = read_text_file(testing::fixtures() / "../../docs/distill.md");
  std::string reference = recipe_reference();
  reference.resize(reference.find_last_not_of('\n') + 1);
  EXPECT_THAT(page, HasSubstr(reference))
      << "paste the output of `mambify distill --print-keys` into docs/distill.md";
  EXPECT_THAT(reference, HasSubstr("| `kl_weight` | `1` |"));
  EXPECT_THAT(reference, HasSubstr("| `train` | `\"mixers\"`; sft `\"all\"`; dpo `\"all\"` |"));
}

TEST(Recipe, TheRecipesOfTheProjectAreValid) {
  int recipes = 0;
  for (const auto& entry : fs::directory_iterator(testing::fixtures() / "../../recipes")) {
    if (entry.path().extension() != ".toml") continue;
    const std::string text = read_text_file(entry.path());
    if (text.find("[[stage]]") == std::string::npos) continue;  // a list of tasks
    EXPECT_NO_THROW(parse_recipe(text, entry.path().string())) << entry.path();
    ++recipes;
  }
  EXPECT_GT(recipes, 0);
}

}  // namespace
}  // namespace mambify
