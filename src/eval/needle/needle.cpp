#include "eval/needle/needle.h"

#include <c10/core/InferenceMode.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <optional>
#include <span>

#include "core/error.h"
#include "core/progress.h"
#include "decode/engine.h"
#include "eval/needle/key_likelihood.h"
#include "eval/summary.h"

namespace mambify {
namespace {

// The sequences of a length do not fit into memory, not even one of them.
class DoesNotFit : public Error {
 public:
  using Error::Error;
};

constexpr int64_t kAnswerTokens = 8;  // behind those of the key: a model may begin with words

// Memory that the system can give without writing other memory to the disk; nothing where that
// cannot be told.
std::optional<int64_t> available_memory() {
  std::ifstream info("/proc/meminfo");
  for (std::string key; info >> key; info.ignore(256, '\n')) {
    int64_t kilobytes = 0;
    if (key == "MemAvailable:" && info >> kilobytes) return kilobytes * 1024;
  }
  return std::nullopt;
}

// On a CUDA device the rows check it themselves; the CPU's would be stopped by the system while
// they work.
void check_memory(const NeedleSubject& subject, int64_t rows, int64_t context) {
  if (subject.packed.cuda() != nullptr) return;
  const auto value_bytes = static_cast<int64_t>(subject.model.embedding.element_size());
  const SequenceMemory memory = sequence_memory(subject.model.config, context, value_bytes);
  const int64_t needed = rows * (memory.kv_cache + memory.recurrent_state);
  const std::optional<int64_t> available = available_memory();
  if (!available || needed <= *available) return;
  throw DoesNotFit(
      "{} sequences of {} tokens need {:.1f} GB beside the weights, {:.1f} GB are available", rows,
      context, static_cast<double>(needed) / 1e9, static_cast<double>(*available) / 1e9);
}

// What make(rows) gives for the most rows that fit into memory, of `rows`, half of them and so on.
template <typename Make>
auto with_rows_that_fit(const NeedleSubject& subject, int64_t rows, int64_t context,
                        const Make& make) {
  while (true) {
    try {
      check_memory(subject, rows, context);
      return make(rows);
    } catch (const Error& error) {
      if (rows == 1) throw DoesNotFit("{}", error.what());
      rows = (rows + 1) / 2;
    }
  }
}

// The prompts of one length, in order of depth, then trial; or why they are not asked.
struct Group {
  int64_t length = 0;
  std::vector<NeedlePrompt> prompts;
  int64_t context = 0;     // most tokens of a sequence, answer included
  int64_t key_tokens = 0;  // most of a key
  int64_t tokens = 0;      // of all prompts
  std::string error;
};

Group make_group(const NeedleSubject& subject, const Haystack& haystack,
                 const NeedleOptions& options, int64_t length) {
  Group group{.length = length, .prompts = {}, .error = ""};
  try {
    check_memory(subject, 1, length);  // before a prompt is written that nothing could read
  } catch (const DoesNotFit& error) {
    group.error = error.what();
    return group;
  }
  for (const double depth : options.depths) {
    for (int64_t trial = 0; trial < options.trials; ++trial) {
      NeedlePrompt prompt = make_needle_prompt(options, haystack, subject.tokenizer, subject.chat,
                                               length, depth, trial);
      const auto longest = [&](const std::string& key) {
        group.key_tokens =
            std::max<int64_t>(group.key_tokens, std::ssize(key_tokens(key, subject.tokenizer)));
      };
      longest(prompt.key);
      std::ranges::for_each(prompt.others, longest);
      group.tokens += std::ssize(prompt.ids);
      group.prompts.push_back(std::move(prompt));
    }
  }
  group.context = length + group.key_tokens + kAnswerTokens;
  return group;
}

std::vector<NeedleTrial> answer(const NeedleSubject& subject, const Group& group,
                                const NeedleOptions& options, Progress& progress, int64_t& done) {
  std::vector<NeedleTrial> trials(group.prompts.size());
  const int64_t most_rows = std::min<int64_t>(options.batch, std::ssize(trials));
  const auto engine = with_rows_that_fit(subject, most_rows, group.context, [&](int64_t rows) {
    return std::make_unique<Engine>(
        subject.model, &subject.tokenizer,
        EngineOptions{.rows = rows, .context = group.context, .packed = &subject.packed});
  });
  int64_t hits = 0, answered = 0;
  for (size_t i = 0; i < trials.size(); ++i) {
    GenerationRequest request;
    request.prompt = group.prompts[i].ids;
    request.max_tokens = group.key_tokens + kAnswerTokens;
    request.stop_ids = subject.stop_ids;
    request.on_finish = [&, i](const GenerationResult& result) {
      trials[i].prompt_tokens = result.prompt_tokens;
      trials[i].hit = answered_key(result.text) == group.prompts[i].key;
      hits += trials[i].hit ? 1 : 0;
      done += result.prompt_tokens;
      progress.update(done,
                      fmt::format("{} of {} found at {} tokens", hits, ++answered, group.length));
    };
    engine->submit(std::move(request));
  }
  engine->run();
  return trials;
}

void rank_keys(const NeedleSubject& subject, const Group& group, const NeedleOptions& options,
               Progress& progress, int64_t& done, std::vector<NeedleTrial>& trials) {
  int64_t row_count = 0;
  const auto rows =
      with_rows_that_fit(subject, std::min<int64_t>(options.batch, std::ssize(trials)),
                         group.context, [&](int64_t count) {
                           row_count = count;
                           return make_model_rows(subject.model, count, group.context,
                                                  /*max_drafts=*/group.key_tokens, &subject.packed);
                         });
  const std::span<const NeedlePrompt> prompts = group.prompts;
  for (size_t first = 0; first < prompts.size(); first += row_count) {
    const auto some = prompts.subspan(first, std::min<size_t>(row_count, prompts.size() - first));
    const std::vector<KeyLikelihood> found = key_likelihoods(*rows, some, subject.tokenizer);
    for (size_t i = 0; i < found.size(); ++i) {
      trials[first + i].ranked_first = found[i].right_is_first;
      trials[first + i].key_nll = found[i].right_nll;
      done += std::ssize(some[i].ids);
    }
    progress.update(done, fmt::format("ranking keys at {} tokens", group.length));
  }
}

}  // namespace

std::vector<NeedleCell> run_needle(const NeedleSubject& subject, const Haystack& haystack,
                                   const NeedleOptions& options) {
  const c10::InferenceMode inference;
  std::vector<Group> groups;  // all of them first: a length that is too short is told at once
  int64_t total = 0;
  for (const int64_t length : options.lengths) {
    groups.push_back(make_group(subject, haystack, options, length));
    total += groups.back().tokens * (options.candidates > 0 ? 2 : 1);
  }
  std::vector<NeedleCell> cells;
  Progress progress(subject.name, total, "tokens");
  int64_t done = 0;
  for (Group& group : groups) {
    std::vector<NeedleTrial> trials;
    if (group.error.empty()) {
      try {
        trials = answer(subject, group, options, progress, done);
        if (options.candidates > 0) rank_keys(subject, group, options, progress, done, trials);
      } catch (const DoesNotFit& error) {
        group.error = error.what();
        trials.clear();
      }
    }
    if (!group.error.empty()) spdlog::warn("length {} is left out: {}", group.length, group.error);
    auto next = trials.begin();
    for (const double depth : options.depths) {
      NeedleCell cell{.length = group.length, .depth = depth, .trials = {}, .error = group.error};
      if (group.error.empty()) {
        cell.trials.assign(next, next + options.trials);
        next += options.trials;
      }
      cells.push_back(std::move(cell));
    }
  }
  return cells;
}

}  // namespace mambify
