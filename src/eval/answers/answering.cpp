#include "eval/answers/answering.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/progress.h"
#include "decode/stop_ids.h"
#include "eval/json_lines.h"

namespace mambify {
namespace {

std::vector<ChatMessage> conversation(const Answering& answering, const std::string& question) {
  std::vector<ChatMessage> messages;
  if (!answering.system.empty()) messages.push_back({"system", answering.system});
  for (const Shot& shot : answering.shots) {
    messages.push_back({"user", shot.question});
    messages.push_back({"assistant", shot.answer});
  }
  messages.push_back({"user", question});
  return messages;
}

// One space between question and answer and an empty line between examples, as
// lm-evaluation-harness has them.
std::string plain_text(const Answering& answering, const std::string& question) {
  std::string text;
  for (const Shot& shot : answering.shots) text += shot.question + " " + shot.answer + "\n\n";
  return text + question;
}

}  // namespace

Answering read_answering(TaskTable& table, Answering defaults) {
  Answering result = std::move(defaults);
  result.chat = table.get("chat", result.chat);
  result.system = table.get("system", result.system);
  if (!result.chat && !result.system.empty()) {
    throw Error("{}: key 'system' needs chat = true", table.origin());
  }
  result.max_tokens = table.get_between("max_tokens", result.max_tokens, 1, int64_t{1} << 20);
  result.stop = table.get("stop", result.stop);
  if (std::ranges::count(result.stop, "") > 0) {
    throw Error("{}: key 'stop' holds an empty string", table.origin());
  }
  SamplingOptions& sampling = result.sampling;
  sampling.temperature = table.get("temperature", sampling.temperature);
  sampling.top_k = table.get("top_k", sampling.top_k);
  sampling.top_p = table.get("top_p", sampling.top_p);
  sampling.min_p = table.get("min_p", sampling.min_p);
  try {
    sampling.check();
  } catch (const Error& error) {
    throw Error("{}: {}", table.origin(), error.what());
  }
  return result;
}

std::vector<Shot> read_shots(TaskTable& table,
                             const std::function<Shot(const JsonReader& line)>& read) {
  std::vector<Shot> shots;
  const int64_t wanted = table.get_between("shots", 0, 0, 1000);
  if (wanted == 0) {
    if (table.has("shots_file")) {
      throw Error("{}: key 'shots_file' needs 'shots', how many of its lines to show",
                  table.origin());
    }
    return shots;
  }
  const fs::path file = table.require_path("shots_file");
  if (file == table.require_path("file")) {
    throw Error(
        "{}: key 'shots_file' is the file of the questions; examples of their own are "
        "expected",
        table.origin());
  }
  for_each_json_line(file, wanted, [&](const JsonReader& line) { shots.push_back(read(line)); });
  if (std::ssize(shots) < wanted) {
    throw Error("{}: key 'shots' is {}, but {} has {} lines", table.origin(), wanted, file.string(),
                shots.size());
  }
  return shots;
}

std::vector<GenerationRequest> make_requests(const Answering& answering,
                                             const std::vector<std::string>& questions,
                                             const TaskSubject& subject, const std::string& task) {
  std::optional<ChatTemplate> chat;
  if (answering.chat) chat = subject.chat_template();
  const int64_t context = context_limit(subject.model().config);
  GenerationRequest base;
  base.max_tokens = answering.max_tokens;
  base.stop_ids = generation_stop_ids(subject.tokenizer(), chat ? &*chat : nullptr);
  base.stop = answering.stop;
  base.sampling = answering.sampling;
  base.sampling.seed = subject.options().seed;
  std::vector<GenerationRequest> requests;
  for (const std::string& question : questions) {
    GenerationRequest request = base;
    request.prompt = chat ? chat->tokenize(conversation(answering, question),
                                           /*add_generation_prompt=*/true, subject.tokenizer())
                                .ids
                          : subject.tokenizer().encode_prompt(plain_text(answering, question));
    if (std::ssize(request.prompt) >= context) {
      throw Error(
          "task {}: the prompt of question {} has {} tokens with its {} examples, the model's "
          "context holds {}",
          task, requests.size() + 1, request.prompt.size(), answering.shots.size(), context);
    }
    request.sequence = static_cast<uint32_t>(requests.size());
    requests.push_back(std::move(request));
  }
  return requests;
}

std::vector<GenerationResult> generate_answers(std::vector<GenerationRequest> requests,
                                               const TaskSubject& subject,
                                               const std::string& task) {
  int64_t longest = 0;
  for (const GenerationRequest& request : requests) {
    longest = std::max(longest, std::ssize(request.prompt) + request.max_tokens);
  }
  const DecodingCopy& decoding = subject.decoding();
  const int64_t rows = std::min(subject.options().rows, std::ssize(requests));
  // A prompt costs a pass over all weights, so several are read together.
  Engine engine(decoding.model(), &subject.tokenizer(),
                {.rows = rows,
                 .context = std::min(longest, context_limit(subject.model().config)),
                 .min_prefill = std::max<int64_t>(rows / 8, 1),
                 .packed = &decoding.packed()});
  std::vector<GenerationResult> results(requests.size());
  Progress progress(task, std::ssize(requests), "answers");
  int64_t done = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].on_finish = [&, i](GenerationResult result) {
      results[i] = std::move(result);
      progress.update(++done);
    };
    engine.submit(std::move(requests[i]));
  }
  engine.run();
  return results;
}

}  // namespace mambify
