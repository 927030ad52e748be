#include "model/config.h"

#include <algorithm>

namespace mambify {

const char* mixer_name(MixerKind kind) {
  switch (kind) {
    case MixerKind::attention:
      return "attention";
    case MixerKind::mamba1:
      return "mamba1";
    case MixerKind::mamba2:
      return "mamba2";
  }
  return "";
}

int64_t ModelConfig::count(MixerKind kind) const {
  return std::count(layers.begin(), layers.end(), kind);
}

}  // namespace mambify
