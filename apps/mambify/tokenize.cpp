// mambify tokenize: text to ids and back.
#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>

#include "common_options.h"
#include "core/error.h"
#include "io/json_reader.h"
#include "text/tokenizer.h"
#include "verbs.h"

namespace mambify {
namespace {

struct TokenizeOptions {
  CommonOptions common;
  std::string model, text, jsonl;
  std::vector<TokenId> ids;
  CLI::Option* text_option = nullptr;
};

nlohmann::json ids_and_text(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  return {{"ids", ids}, {"decoded", tokenizer.decode(ids)}};
}

// {"text": ...} a line to {"ids": [...], "decoded": ...} a line.
void tokenize_lines(const Tokenizer& tokenizer, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("cannot open {}: {}", path, std::strerror(errno));
  std::string line;
  for (int64_t number = 1; std::getline(file, line); ++number) {
    const std::string origin = fmt::format("{}:{}", path, number);
    const nlohmann::json entry = parse_json(line, origin);
    const auto text = JsonReader(entry, origin).require<std::string>("text");
    print_json(ids_and_text(tokenizer, tokenizer.encode(text)));
  }
  if (file.bad()) throw Error("cannot read {}", path);
}

void run_tokenize(const TokenizeOptions& options) {
  apply_common_options(options.common);
  const Tokenizer tokenizer = Tokenizer::load(options.model);
  if (!options.jsonl.empty()) return tokenize_lines(tokenizer, options.jsonl);
  const bool encodes = options.text_option->count() > 0;
  const std::vector<TokenId> ids = encodes ? tokenizer.encode(options.text) : options.ids;
  if (options.common.json) {
    print_json(ids_and_text(tokenizer, ids));
  } else if (encodes) {
    fmt::print("{}\n", fmt::join(ids, ","));
  } else {
    fmt::print("{}\n", tokenizer.decode(ids));
  }
}

}  // namespace

void add_tokenize(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("tokenize", "Text to token ids, or ids to text");
  auto options = std::make_shared<TokenizeOptions>();
  add_model_option(*verb, "--model", options->model, "the model")->required();
  auto* input = verb->add_option_group("input");
  options->text_option =
      input->add_option("--text", options->text, "a text, whose special tokens are recognised");
  input->add_option("--ids", options->ids, "token ids: 1,2,3")->delimiter(',');
  input->add_option("--jsonl", options->jsonl, "a file with {\"text\": ...} on each line")
      ->check(CLI::ExistingFile);
  input->require_option(1);
  add_common_options(*verb, options->common);
  verb->callback([options] { run_tokenize(*options); });
}

}  // namespace mambify
