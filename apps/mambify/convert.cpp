// mambify convert: a hybrid student from a teacher.
#include "convert/convert.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <numeric>

#include "checkpoint_options.h"
#include "convert/layer_plan.h"
#include "core/error.h"
#include "model/load.h"
#include "text/tokenizer.h"
#include "verbs.h"

namespace mambify {
namespace {

using nlohmann::json;

struct ConvertVerbOptions {
  CommonOptions common;
  std::string teacher, out, layers;
  std::string attention_layers, attention_fraction = "1/4", layer_choice = "even";
  bool layers_given = false;  // attention_layers, rather than the fraction
  bool converts = true;
  std::string mixer = "mamba2", init = "attention", start = "published";
  bool keep_rotary = false;
};

std::vector<int64_t> choose_layers(const ConvertVerbOptions& options, int64_t n_layer) {
  if (options.layers_given) return parse_layer_list(options.attention_layers, n_layer);
  const LayerFraction fraction = parse_layer_fraction(options.attention_fraction);
  return options.layer_choice == "even"
             ? evenly_kept_layers(fraction, n_layer)
             : sensitive_kept_layers(fraction, n_layer, options.layer_choice);
}

void write_student(const Model& student, const ConvertVerbOptions& options) {
  write_directory_atomically(options.out, [&](const fs::path& folder) {
    save_model(student, folder, compute_dtype(options.common));
    if (!has_tokenizer(options.teacher)) {
      spdlog::warn("{} has no tokenizer.json, so the student has none either", options.teacher);
      return;
    }
    Tokenizer::load(options.teacher).save(folder);
  });
}

// What the parameters of converted layers start from.
json sources_of(const ConvertVerbOptions& options) {
  json sources = {{"D, A_log, dt_bias, norm, conv1d, z, dt", options.start + " start"}};
  if (options.init == "attention") {
    sources["x"] = "v_proj";
    sources["B"] = "k_proj";
    sources["C"] = options.start == "neutral" ? "q_proj / sqrt(head_dim)" : "q_proj";
    sources["out_proj"] = "o_proj";
  } else {
    sources["x, B, C, out_proj"] = "random";
  }
  return sources;
}

json describe(const Model& teacher, const Model& student, const ConvertVerbOptions& options) {
  json kept = json::array(), converted = json::array();
  for (int64_t layer = 0; layer < student.config.n_layer(); ++layer) {
    const MixerKind before = teacher.config.layers[layer], now = student.config.layers[layer];
    if (now == MixerKind::attention) kept.push_back(layer);
    if (now != before) converted.push_back(layer);
  }
  return {{"out", options.out},
          {"mixer", options.mixer},
          {"layers", student.config.n_layer()},
          {"attention_layers", kept},
          {"converted_layers", converted},
          {"parameters", parameter_count(student)},
          {"teacher_parameters", parameter_count(teacher)},
          {"initialised_from", converted.empty() ? json::object() : sources_of(options)}};
}

void print_text(const json& summary) {
  fmt::print("wrote {}\n", summary["out"].get<std::string>());
  fmt::print("{} of {} layers converted to {}; attention stays in {}\n",
             summary["converted_layers"].size(), summary["layers"].get<int64_t>(),
             summary["mixer"].get<std::string>(), summary["attention_layers"].dump());
  fmt::print("{:.2f} M parameters (teacher: {:.2f} M)\n", summary["parameters"].get<double>() / 1e6,
             summary["teacher_parameters"].get<double>() / 1e6);
  for (const auto& [part, source] : summary["initialised_from"].items()) {
    fmt::print("  {} from {}\n", part, source.get<std::string>());
  }
  fmt::print("everything else is the teacher's\n");
}

void run_convert(const ConvertVerbOptions& options) {
  apply_common_options(options.common);
  check_output_folder(options.out);
  if (fs::exists(options.out) && fs::equivalent(options.out, options.teacher)) {
    throw UsageError("--out {} is the teacher itself", options.out);
  }
  const Checkpoint checkpoint = open_checkpoint(options.teacher);
  const int64_t n_layer = read_config(checkpoint).n_layer();
  std::vector<int64_t> taken(n_layer);
  std::iota(taken.begin(), taken.end(), int64_t{0});
  if (!options.layers.empty()) taken = parse_layer_list(options.layers, n_layer);
  if (taken.empty())
    throw UsageError("--layers {}: a model has at least one layer", options.layers);
  ConvertOptions convert_options;
  if (options.converts) {
    convert_options.attention_layers = choose_layers(options, static_cast<int64_t>(taken.size()));
  }
  convert_options.mixer = parse_mixer_kind(options.mixer);
  convert_options.init = parse_mixer_init(options.init);
  convert_options.start = parse_mixer_start(options.start);
  convert_options.keep_rotary = options.keep_rotary;
  convert_options.seed = options.common.seed;

  const Model teacher = take_layers(load_model(checkpoint, compute_dtype(options.common)), taken);
  Model student = teacher;  // the rest is written out unchanged, so it may be shared
  if (options.converts) convert_in_place(student, convert_options);
  write_student(student, options);
  const json summary = describe(teacher, student, options);
  if (options.common.json) {
    print_json(summary);
  } else {
    print_text(summary);
  }
}

}  // namespace

void add_convert(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("convert", "A hybrid Mamba student from a Transformer");
  auto options = std::make_shared<ConvertVerbOptions>();
  add_model_option(*verb, "--teacher", options->teacher,
                   "the Transformer, or a hybrid to go on with")
      ->required();
  verb->add_option("--out", options->out, "folder to write the student to")->required();
  verb->add_option("--layers", options->layers,
                   "layers of the teacher to take, such as 0,9,19,29, and leave out the others: "
                   "the start of a shallow draft. What is taken is converted only when one of the "
                   "next two options says so, and these number the layers taken");
  auto* layers = verb->add_option("--attention-layers", options->attention_layers,
                                  "layers that keep attention, such as 3,7,11, or none");
  auto* fraction = verb->add_option("--attention-fraction", options->attention_fraction,
                                    "share of the layers that keep attention, such as 1/4")
                       ->capture_default_str();
  verb->add_option("--layer-choice", options->layer_choice,
                   "which layers the share is: even, or a file that `eval sensitivity` wrote")
      ->capture_default_str()
      ->excludes(layers);
  layers->excludes(fraction);
  verb->add_option("--mixer", options->mixer, "mamba2 or mamba1")
      ->check(CLI::IsMember({"mamba2", "mamba1"}))
      ->capture_default_str();
  verb->add_option("--init", options->init,
                   "start x, B, C and the output from attention, or at random")
      ->check(CLI::IsMember({"attention", "random"}))
      ->capture_default_str();
  verb->add_option("--start", options->start,
                   "start the other parameters as published, or neutral (near linear attention)")
      ->check(CLI::IsMember({"published", "neutral"}))
      ->capture_default_str();
  verb->add_flag("--keep-rotary", options->keep_rotary,
                 "keep rotary embedding on B and C (mamba2)");
  add_common_options(*verb, options->common);
  verb->callback([options, layers, fraction] {
    options->layers_given = layers->count() > 0;
    options->converts = options->layers.empty() || options->layers_given || fraction->count() > 0;
    run_convert(*options);
  });
}

}  // namespace mambify
