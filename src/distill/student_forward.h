// A forward pass of the student that can be trained through.
#pragma once

#include "model/model.h"

namespace mambify {

// hidden_states of the student with gradients on. With activation_checkpointing each block keeps
// only its input and is run again in the backward pass (Chen et al. 2016, arXiv 1604.06174); same
// bits. Model and context must outlive the backward pass. Returns [tokens, d_model].
at::Tensor student_hidden_states(const Model& student, const at::Tensor& ids,
                                 const Context& context, bool activation_checkpointing);

}  // namespace mambify
