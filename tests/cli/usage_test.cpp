// Exit codes, help and messages.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/program.h"

namespace mambify {
namespace {

using namespace testing;
using ::testing::HasSubstr;

constexpr const char* kVerbs[] = {"inspect",  "convert", "synthesize", "distill",
                                  "generate", "chat",    "tokenize",   "score",
                                  "eval",     "bench",   "demo"};

TEST(Usage, HelpListsEveryVerbAndEachExplainsItself) {
  const Outcome help = run({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* verb : kVerbs) {
    EXPECT_THAT(help.out, HasSubstr(verb));
    const Outcome verb_help = run({verb, "--help"});
    EXPECT_EQ(verb_help.exit_code, 0) << verb;
    EXPECT_THAT(verb_help.out, HasSubstr(verb));
  }
}

TEST(Usage, BadUsageExitsWithTwo) {
  EXPECT_EQ(run({}).exit_code, 2);
  EXPECT_EQ(run({"transmogrify"}).exit_code, 2);
  EXPECT_EQ(run({"inspect"}).exit_code, 2);
  EXPECT_EQ(run({"inspect", "x", "--no-such-option"}).exit_code, 2);
  EXPECT_EQ(run({"score", "--model", fixtures() / "tiny-llama", "--dtype", "fp7", "--text", "a"})
                .exit_code,
            2);
}

TEST(Usage, AnUnknownWeightFormatIsBadUsage) {
  const std::string model = fixtures() / "tiny-llama";
  for (const std::vector<std::string>& verb : std::vector<std::vector<std::string>>{
           {"generate", "--prompt", "a"}, {"chat"}, {"bench", "decode"}, {"bench", "speculate"}}) {
    std::vector<std::string> arguments = verb;
    arguments.insert(arguments.end(), {"--model", model, "--weights", "int4"});
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << verb.front();
    EXPECT_THAT(outcome.err, HasSubstr("--weights"));
  }
}

TEST(Usage, AMissingCheckpointIsNamedAndExitsWithOne) {
  const Outcome outcome = run({"inspect", "/no/such/model"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("/no/such/model"));
  EXPECT_EQ(outcome.out, "");
}

TEST(Usage, AnUnknownDeviceIsBadUsage) {
  const Outcome outcome =
      run({"score", "--model", fixtures() / "tiny-llama", "--text", "a", "--device", "tpu"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("--device tpu"));
}

TEST(Usage, ADeviceThatIsNotThereIsNamedBeforeAnythingIsRead) {
  const Outcome outcome = run({"score", "--model", fixtures() / "tiny-llama", "--ids-file",
                               "/no/such/file", "--device", "cuda:4096"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("CUDA"));
}

TEST(Usage, JsonIsOneObjectAndTheRestIsSilent) {
  const Outcome outcome = run({"inspect", fixtures() / "tiny-mamba2", "--json"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_TRUE(outcome.json().is_object());
}

}  // namespace
}  // namespace mambify
