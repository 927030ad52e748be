// How close a student's predictions are to its teacher's.
#pragma once

#include <cstdint>
#include <span>

#include "data/dataset.h"
#include "model/model.h"

namespace mambify {

struct AgreementOptions {
  int64_t max_tokens = 0;           // stop after the document that reaches so many; 0: all
  int64_t greedy_prompts = 16;      // documents whose beginning both models continue; 0: none
  int64_t greedy_tokens = 64;       // how far
  int64_t max_prompt_tokens = 512;  // longer prompts are cut from the left
};

struct AgreementResult {
  double kl = 0;            // teacher to student, nats, mean over predicted tokens
  double top1 = 0;          // share of tokens where both rank the same token first
  int64_t tokens = 0;       // predicted
  double greedy_match = 0;  // mean length of the equal prefix of both greedy continuations
  // Standard errors of the three, over documents.
  double kl_error = 0, top1_error = 0, greedy_match_error = 0;
  int64_t greedy_prompts = 0;
};

// Measures on the tokens that count. The greedy prompt of a conversation is what stands before its
// first counted token; of a document that counts from its start, its first half. Greedy
// continuations do not stop at an end-of-sequence token. Both models must share a vocabulary.
AgreementResult agreement(const Model& student, const Model& teacher,
                          std::span<const Document> documents, const AgreementOptions& options);

// Of each row KL(teacher to student), nats, and whether the first choice is the same, both [n] fp64
// on the CPU. Hidden states: [n, d_model of each].
struct RowAgreement {
  at::Tensor kl, same_first;
};
RowAgreement compare_rows(const Model& student, const at::Tensor& student_hidden,
                          const Model& teacher, const at::Tensor& teacher_hidden);

}  // namespace mambify
