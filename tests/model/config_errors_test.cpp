// Checkpoints that lie: each ends in one message that names the file and the key or tensor.
#include <gtest/gtest.h>

#include <functional>

#include "core/error.h"
#include "io/json_reader.h"
#include "model/fixtures.h"

namespace mambify {
namespace {

using namespace testing;
using Json = nlohmann::json;

// Copies a fixture, lets `change` edit its config.json, and returns the message of loading it.
std::string error_after(const char* fixture, const std::function<void(Json&)>& change) {
  const ScratchFolder scratch;
  fs::copy_file(fixtures() / fixture / "model.safetensors", scratch / "model.safetensors");
  Json config = read_json(fixtures() / fixture / "config.json");
  change(config);
  write_file_atomically(scratch / "config.json", config.dump());
  try {
    load_model(scratch.path());
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

void expect_contains(const std::string& message, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    EXPECT_NE(message.find(part), std::string::npos) << "\"" << part << "\" in: " << message;
  }
}

TEST(ConfigErrors, NameAnUnknownArchitectureAndThoseSupported) {
  expect_contains(error_after("tiny-llama", [](Json& c) { c["model_type"] = "gpt_bigcode"; }),
                  {"gpt_bigcode", "llama", "mamba2"});
}

TEST(ConfigErrors, NameAMissingKey) {
  expect_contains(error_after("tiny-llama", [](Json& c) { c.erase("hidden_size"); }),
                  {"config.json", "hidden_size"});
}

TEST(ConfigErrors, NameAKeyOfTheWrongType) {
  expect_contains(error_after("tiny-llama", [](Json& c) { c["hidden_size"] = "wide"; }),
                  {"config.json", "hidden_size"});
}

TEST(ConfigErrors, BoundAbsurdCounts) {
  expect_contains(error_after("tiny-llama", [](Json& c) { c["num_hidden_layers"] = 1000000000; }),
                  {"num_hidden_layers", "1000000000"});
  expect_contains(error_after("tiny-mamba", [](Json& c) { c["state_size"] = -1; }),
                  {"state_size", "-1"});
}

TEST(ConfigErrors, NameATensorWhoseShapeDoesNotFit) {
  expect_contains(error_after("tiny-llama", [](Json& c) { c["intermediate_size"] = 161; }),
                  {"mlp", "[160, 96]", "[161, 96]"});
}

TEST(ConfigErrors, NameAMissingTensor) {
  expect_contains(error_after("tiny-llama", [](Json& c) { c["num_hidden_layers"] = 4; }),
                  {"model.layers.3.input_layernorm.weight"});
}

TEST(ConfigErrors, NameATensorThatNothingUses) {
  expect_contains(error_after("tiny-llama", [](Json& c) { c["num_hidden_layers"] = 2; }),
                  {"model.layers.2."});
}

TEST(ConfigErrors, RefuseHeadsThatDoNotDivide) {
  expect_contains(error_after("tiny-llama", [](Json& c) { c["num_key_value_heads"] = 4; }),
                  {"num_attention_heads 6", "num_key_value_heads 4"});
  expect_contains(error_after("tiny-mamba2", [](Json& c) { c["n_groups"] = 3; }),
                  {"num_heads 8", "n_groups 3"});
}

TEST(ConfigErrors, NameAnUnsupportedRotaryScaling) {
  expect_contains(
      error_after("tiny-llama", [](Json& c) { c["rope_parameters"]["rope_type"] = "yarn"; }),
      {"rope_type", "yarn", "llama3"});
}

TEST(ConfigErrors, NameALayerThatIsNeitherAttentionNorMamba) {
  const ScratchFolder scratch;
  for (const char* file : {"model.safetensors", "config.json"}) {
    fs::copy_file(fixtures() / "tiny-llama" / file, scratch / file);
  }
  write_file_atomically(scratch / "mamba_config.json",
                        R"({"attn_layers": [0, 2], "ssm_cfg": {"ngroups": 6}, "d_xb": 32})");
  try {
    load_model(scratch.path());
    FAIL();
  } catch (const Error& error) {
    expect_contains(error.what(), {"layer 1", "in_proj"});
  }
}

}  // namespace
}  // namespace mambify
