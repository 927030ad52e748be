#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <numeric>

#include "convert/convert.h"
#include "core/error.h"
#include "decode/draft_vocabulary.h"
#include "distill/stages.h"
#include "distill/trainer.h"
#include "model/load.h"

namespace mambify {
namespace {

Model make_student(const Recipe& recipe, const Model& teacher) {
  const ModelSection& section = recipe.model;
  if (section.keep_attention.empty()) return clone(teacher);
  std::vector<int64_t> kept = kept_layers(section.keep_attention, section, teacher.config.n_layer(),
                                          "keep_attention of [model]");
  return convert(teacher, conversion(recipe, teacher.config, std::move(kept)));
}

void untie_output(Model& student) {
  if (!student.config.tie_embeddings) return;
  student.config.tie_embeddings = false;
  student.lm_head = student.embedding.clone();
}

// A given student brings its own tokenizer, which must be the teacher's.
Tokenizer matching_tokenizer(const ModelSection& section) {
  Tokenizer teacher = Tokenizer::load(section.teacher);
  if (section.student.empty()) return teacher;
  Tokenizer student = Tokenizer::load(section.student);
  if (student.vocabulary_hash() != teacher.vocabulary_hash()) {
    throw Error(
        "{}: its vocabulary is not that of the teacher {} ({} and {} tokens); a student "
        "learns from a teacher with the same vocabulary",
        section.student, section.teacher, student.vocab_size(), teacher.vocab_size());
  }
  return student;
}

Dataset read_documents(const std::vector<std::string>& names, const DataSection& section,
                       LossOn loss_on, const Tokenizer& tokenizer) {
  const std::vector<fs::path> files(names.begin(), names.end());
  Dataset data = tokenize_examples(read_examples(files), tokenizer, section.chat_template, loss_on);
  spdlog::info("{}: {} documents, {} tokens, the loss counts {}", fmt::join(names, ", "),
               data.documents.size(), data.tokens(), data.counted_tokens());
  return data;
}

PairDataset read_preferences(const std::vector<std::string>& names, const DataSection& section,
                             const Tokenizer& tokenizer) {
  const std::vector<fs::path> files(names.begin(), names.end());
  PairDataset data =
      tokenize_pairs(read_pairs(files), tokenizer, section.chat_template, section.sequence_length);
  spdlog::info("{}: {} pairs, {} tokens; left out: {} longer than {} tokens, {} of equal answers",
               fmt::join(names, ", "), data.pairs.size(), data.tokens(), data.too_long,
               section.sequence_length, data.equal);
  return data;
}

// What the stages read, into inputs.
void read_data(const Recipe& recipe, const Tokenizer& tokenizer, RunInputs& inputs) {
  const DataSection& section = recipe.data;
  bool reads_shared = false;
  for (size_t i = 0; i < recipe.stages.size(); ++i) {
    const StageSection& stage = recipe.stages[i];
    const auto number = static_cast<int64_t>(i);
    const bool is_sft = stage.kind == StageKind::sft;
    const bool counts_all = section.loss_on == CountedTokens::all && !is_sft;
    if (stage.kind == StageKind::dpo) {
      inputs.stage_data[number] = read_preferences(stage.files, section, tokenizer);
    } else if (!stage.files.empty() || (is_sft && section.loss_on == CountedTokens::all)) {
      // Of the shared files, too, sft counts other tokens than the stages beside it.
      inputs.stage_data[number] =
          read_documents(stage.files.empty() ? section.files : stage.files, section,
                         counts_all ? LossOn::all : LossOn::assistant, tokenizer);
    } else {
      reads_shared = true;
    }
  }
  if (!reads_shared) return;
  inputs.data = read_documents(
      section.files, section,
      section.loss_on == CountedTokens::all ? LossOn::all : LossOn::assistant, tokenizer);
}

// Adds up how often the loss counts each token. One that the model does not have stops training.
void count_tokens(const Dataset& data, std::vector<int64_t>& counts) {
  for (const Document& document : data.documents) {
    for (size_t i = 1; i < document.ids.size(); ++i) {
      const TokenId token = document.ids[i];
      if (document.counts[i] && token < std::ssize(counts)) ++counts[token];
    }
  }
}

std::vector<TokenId> draft_vocabulary(const RunInputs& inputs, int64_t size) {
  std::vector<int64_t> counts(inputs.student.config.vocab_size, 0);
  count_tokens(inputs.data, counts);
  for (const auto& [stage, data] : inputs.stage_data) {
    if (const auto* documents = std::get_if<Dataset>(&data)) count_tokens(*documents, counts);
  }
  const int64_t all = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  if (all == 0) throw Error("draft_vocabulary of [model]: no stage reads text to count tokens of");
  std::vector<TokenId> tokens = most_frequent_tokens(counts, size, *inputs.tokenizer);
  int64_t covered = 0;
  for (const TokenId token : tokens) covered += counts[token];
  spdlog::info("a draft of {} tokens, {:.2f} % of those that the loss counts", tokens.size(),
               100.0 * static_cast<double>(covered) / static_cast<double>(all));
  return tokens;
}

}  // namespace

RunInputs load_inputs(const Recipe& recipe) {
  // The data first: it is read in seconds and is what is wrong most often.
  RunInputs inputs;
  Tokenizer tokenizer = matching_tokenizer(recipe.model);
  read_data(recipe, tokenizer, inputs);
  inputs.tokenizer = std::move(tokenizer);
  const ModelSection& model = recipe.model;
  const Checkpoint teacher = open_checkpoint(model.teacher);
  if (model.student.empty() || std::ranges::any_of(recipe.stages, needs_teacher)) {
    inputs.teacher = load_model(teacher, at::kFloat);
  }
  inputs.student =
      model.student.empty() ? make_student(recipe, inputs.teacher) : load_model(model.student);
  if (const int64_t expected = read_config(teacher).vocab_size;
      inputs.student.config.vocab_size != expected) {
    throw Error("{}: vocab_size is {}, the teacher's {} is {}", model.student,
                inputs.student.config.vocab_size, model.teacher, expected);
  }
  if (model.untie_output) untie_output(inputs.student);
  if (model.draft_vocabulary > 0) {
    inputs.draft_vocabulary = draft_vocabulary(inputs, model.draft_vocabulary);
  }
  return inputs;
}

}  // namespace mambify
