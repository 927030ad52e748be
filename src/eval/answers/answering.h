// How a task has a model write an answer: the prompt, what ends the answer, how it is drawn.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "decode/engine.h"
#include "eval/tasks/task_subject.h"
#include "eval/tasks/task_table.h"

namespace mambify {

// An example of a question with its answer, as the model sees them.
struct Shot {
  std::string question, answer;
};

struct Answering {
  bool chat = true;  // through the chat template; else as text to continue
  std::string system = "";
  // Turns of the conversation, or texts with an empty line between them.
  std::vector<Shot> shots = {};
  int64_t max_tokens = 256;
  std::vector<std::string> stop = {};
  SamplingOptions sampling = {};  // greedy; the seed is the subject's
};

// Reads the keys `chat`, `system`, `max_tokens`, `stop`, `temperature`, `top_k`, `top_p`, `min_p`;
// those that are not there are as in `defaults`. Throws Error naming the key.
Answering read_answering(TaskTable& table, Answering defaults);
// The first `shots` lines of `shots_file`; none without the key.
std::vector<Shot> read_shots(TaskTable& table,
                             const std::function<Shot(const JsonReader& line)>& read);

// A request for each question. Throws Error naming task and item for a prompt that leaves no room
// for an answer in the model's context, and for an unknown chat template.
std::vector<GenerationRequest> make_requests(const Answering& answering,
                                             const std::vector<std::string>& questions,
                                             const TaskSubject& subject, const std::string& task);
// What the model writes to each, in order.
std::vector<GenerationResult> generate_answers(std::vector<GenerationRequest> requests,
                                               const TaskSubject& subject, const std::string& task);

}  // namespace mambify
