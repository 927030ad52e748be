#include "distill/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mambify {

double rate_factor(const StageSection& stage, double progress) {
  progress = std::clamp(progress, 0.0, 1.0);
  if (progress < stage.warmup) return 0.1 + 0.9 * progress / stage.warmup;
  const double drop = 1 - stage.final_rate;
  switch (stage.schedule) {
    case ScheduleKind::constant:
      return 1;
    case ScheduleKind::cosine: {
      const double along = stage.warmup < 1 ? (progress - stage.warmup) / (1 - stage.warmup) : 1;
      return 1 - drop * 0.5 * (1 - std::cos(std::numbers::pi * along));
    }
    case ScheduleKind::wsd: {
      const double begin = 1 - stage.decay;
      return progress <= begin ? 1 : 1 - drop * (progress - begin) / stage.decay;
    }
  }
  return 1;
}

}  // namespace mambify
