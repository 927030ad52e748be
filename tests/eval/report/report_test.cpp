#include "eval/report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "errors.h"
#include "testing.h"

namespace mambify {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

json about(const char* kind, const json& model, const json& teacher) {
  return {{"kind", kind},      {"model", model},   {"teacher", teacher},
          {"data", "d/x.txt"}, {"device", "cpu"},  {"dtype", "fp32"},
          {"seed", 0},         {"version", "9.9"}, {"command", {"mambify", "eval", "it's"}}};
}

EvalResult perplexity(const char* model) {
  return {"p.json",
          {{"about", about("perplexity", model, "t.gguf")},
           {"perplexity", 12.345},
           {"perplexity_stderr", 0.5},
           {"teacher", {{"perplexity", 10.5}, {"perplexity_stderr", 0.25}}}}};
}

json needle_body(double rate) {
  const json rates = {{"n", 4}, {"hits", 2}, {"rate", rate}, {"stderr", 0.125}};
  return {{"cells",
           {{{"length", 512}, {"depth", 0.5}, {"n", 4}, {"rate", rate}},
            {{"length", 1024}, {"depth", 0.5}, {"n", 0}, {"error", "does not fit"}}}},
          {"within_training_length", rates},
          {"beyond_training_length", {{"n", 0}}}};
}

EvalResult needle() {
  json result = needle_body(0.75);
  result.update({{"about", about("needle", "runs/a/final", "t.gguf")},
                 {"teacher", needle_body(1)},
                 {"lengths", {512, 1024}},
                 {"depths", {0.5}},
                 {"training_length", 512}});
  return {"n.json", result};
}

EvalResult tasks() {
  return {"t.json",
          {{"about", about("tasks", "runs/a/final", "t.gguf")},
           {"tasks",
            {{{"name", "arc"},
              {"acc", 0.5},
              {"acc_stderr", 0.0625},
              {"chance", 0.25},
              {"spoken", 0.375},
              {"spoken_stderr", 0.0625},
              {"spoken_chance", 0.125},
              {"n", 100},
              {"teacher", {{"acc", 0.625}, {"acc_stderr", 0.03125}}},
              {"paired", {{"acc", {{"kept", 0.6875}, {"kept_interval", {0.5, 0.875}}}}}}}}}}};
}

EvalResult sensitivity() {
  return {"s.json",
          {{"about", about("sensitivity", nullptr, "t.gguf")},
           {"layers", 2},
           {"tokens", 9},
           {"order", {1, 0}},
           {"order_kl", {0.25, 1.5}},
           {"alone", {{{"layer", 0}, {"kl", 0.5}}, {{"layer", 1}, {"kl", 0.25}}}}}};
}

TEST(Report, PutsTeacherAndStudentsSideBySide) {
  const std::string page =
      report_page({perplexity("runs/a/final"), perplexity("b/"), tasks(), needle(), sensitivity()},
                  "my <report>");
  EXPECT_THAT(page, HasSubstr("my &lt;report&gt;"));
  EXPECT_THAT(page, HasSubstr("t.gguf</span> (teacher)"));
  for (const char* model : {">a</span>", ">b</span>"}) EXPECT_THAT(page, HasSubstr(model));
  EXPECT_THAT(page, HasSubstr("perplexity, x.txt"));
  EXPECT_THAT(page, HasSubstr("12.35 <span class=\"error\">± 0.50</span>"));
  EXPECT_THAT(page, HasSubstr("10.50 <span class=\"error\">± 0.25</span></td>"));
  EXPECT_THAT(page, HasSubstr("arc acc"));
  EXPECT_THAT(page, HasSubstr("kept 0.69 <span class=\"error\">[0.50, 0.88]</span>"));
  EXPECT_THAT(page, HasSubstr("<td>(chance)</td><td>0.250</td><td>0.125</td>"));
  EXPECT_THAT(page, HasSubstr("needle, up to 512 tokens"));
  EXPECT_THAT(page, Not(HasSubstr("needle, beyond")));  // no trial there
  EXPECT_THAT(page, HasSubstr("a: keys found"));
  EXPECT_THAT(page, HasSubstr("t.gguf: keys found"));
  EXPECT_THAT(page, HasSubstr("each layer alone"));
  EXPECT_THAT(page, HasSubstr("mambify eval 'it'\\''s'"));
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(page, Not(HasSubstr("http")));
}

TEST(Report, ShowsOnlyTheSectionsThatHaveResults) {
  const std::string page = report_page({sensitivity()}, "r");
  EXPECT_THAT(page, HasSubstr("Sensitivity"));
  for (const char* heading : {"<h2>Models", "<h2>Tasks", "<h2>Needle"}) {
    EXPECT_THAT(page, Not(HasSubstr(heading)));
  }
}

TEST(Report, CallsModelsOfOneNameByTheirPaths) {
  const std::string page = report_page({perplexity("x/model"), perplexity("y/model")}, "r");
  EXPECT_THAT(page, HasSubstr(">x/model</span>"));
  EXPECT_THAT(page, HasSubstr(">y/model</span>"));
}

TEST(Report, NamesTheFileAndTheKeyThatIsMissing) {
  EvalResult result = needle();
  result.json.erase("lengths");
  EXPECT_THAT(testing::error_of([&] { report_page({result}, "r"); }),
              ::testing::AllOf(HasSubstr("n.json"), HasSubstr("lengths")));
  result = sensitivity();
  result.json["order_kl"] = {1.0};
  EXPECT_THAT(testing::error_of([&] { report_page({result}, "r"); }), HasSubstr("s.json"));
  result = tasks();
  result.json["tasks"] = 3;
  EXPECT_THAT(testing::error_of([&] { report_page({result}, "r"); }),
              ::testing::AllOf(HasSubstr("t.json"), HasSubstr("tasks")));
}

TEST(Report, RefusesFilesOfOtherKinds) {
  const testing::ScratchFolder scratch;
  const auto message = [&](const std::string& content) {
    write_file_atomically(scratch / "f.json", content);
    return testing::error_of([&] { read_eval_result(scratch / "f.json"); });
  };
  for (const char* content :
       {"{}", "[1]", "{\"about\": 1}", "{\"about\": {\"kind\": \"bench\"}}", "{\"about\""}) {
    EXPECT_THAT(message(content), HasSubstr("f.json")) << content;
  }
  for (const char* content : {"{}", "{", ""}) {
    EXPECT_THAT(message(content), HasSubstr("perplexity|agreement|tasks|needle|sensitivity"));
  }
  EXPECT_THAT(message("{\"about\": {\"kind\": \"bench\"}}"), HasSubstr("bench"));
  write_file_atomically(scratch / "good.json", perplexity("m").json.dump());
  EXPECT_EQ(read_eval_result(scratch / "good.json").json["perplexity"], 12.345);
}

}  // namespace
}  // namespace mambify
