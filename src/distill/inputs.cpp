#include <spdlog/spdlog.h>

#include "convert/convert.h"
#include "core/error.h"
#include "distill/stages.h"
#include "distill/trainer.h"
#include "model/load.h"

namespace mambify {
namespace {

Model make_student(const Recipe& recipe, const Model& teacher) {
  const ModelSection& section = recipe.model;
  if (section.keep_attention.empty()) return clone(teacher);
  return convert(teacher, conversion(recipe, kept_layers(section.keep_attention, section,
                                                         teacher.config.n_layer(),
                                                         "keep_attention of [model]")));
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

Dataset read_data(const DataSection& section, const Tokenizer& tokenizer) {
  const std::vector<fs::path> files(section.files.begin(), section.files.end());
  return tokenize_examples(read_examples(files), tokenizer, section.chat_template,
                           section.loss_on == CountedTokens::all ? LossOn::all : LossOn::assistant);
}

}  // namespace

RunInputs load_inputs(const Recipe& recipe) {
  // The data first: it is read in seconds and is what is wrong most often.
  Tokenizer tokenizer = matching_tokenizer(recipe.model);
  Dataset data = read_data(recipe.data, tokenizer);
  spdlog::info("data: {} documents, {} tokens, the loss counts {}", data.documents.size(),
               data.tokens(), data.counted_tokens());
  Model teacher = load_model(recipe.model.teacher);
  Model student = recipe.model.student.empty() ? make_student(recipe, teacher)
                                               : load_model(recipe.model.student);
  if (student.config.vocab_size != teacher.config.vocab_size) {
    throw Error("{}: vocab_size is {}, the teacher's {} is {}", recipe.model.student,
                student.config.vocab_size, recipe.model.teacher, teacher.config.vocab_size);
  }
  return {std::move(teacher), std::move(student), std::move(data), std::move(tokenizer)};
}

}  // namespace mambify
