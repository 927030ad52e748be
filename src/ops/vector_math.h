// Makes elementwise functions of tensors give the same bits from their first call on.
#pragma once

namespace mambify {

/// Has oneMKL choose its kernels for exp, log, sin, cos, sqrt and the like, in fp32 and fp64.
///
/// LibTorch computes these with oneMKL, which chooses a kernel when a function is first called.
/// When several threads make that call at once, as for the first large tensor of a program, one of
/// them may run a kernel of four digits for its part (github.com/pytorch/pytorch/issues/188792).
/// Call this at the start of a program, before anything that must be reproducible.
void resolve_vector_math();

}  // namespace mambify
