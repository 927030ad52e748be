#include "distill/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>

#include "core/error.h"
#include "io/json_reader.h"

namespace mambify {
namespace {

nlohmann::json number(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(nullptr);
}

}  // namespace

nlohmann::json to_json(const StepMetrics& metrics) {
  nlohmann::json json = {{"stage", metrics.stage},
                         {"round", metrics.round},
                         {"kind", metrics.kind},
                         {"step", metrics.step},
                         {"tokens", metrics.tokens},
                         {"loss", number(metrics.losses.total)},
                         {"learning_rate", metrics.rate},
                         {"learning_rate_rest", metrics.rate_rest},
                         {"gradient_norm", number(metrics.gradient_norm)},
                         {"seconds", metrics.seconds},
                         {"tokens_per_second", metrics.tokens_per_second},
                         {"skipped", metrics.skipped}};
  metrics.losses.parts.for_each(metrics.losses.parts, [&](const char* name, const auto& part) {
    if (part) json[name] = number(*part);
  });
  for (double layer : metrics.losses.layers) json["layers"].push_back(number(layer));
  return json;
}

MetricsLog::MetricsLog(const fs::path& file, int64_t bytes) : file_(file), bytes_(bytes) {
  descriptor_ = ::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw Error("cannot open {}: {}", file.string(), std::strerror(errno));
  const int64_t length = ::lseek(descriptor_, 0, SEEK_END);
  if (length < bytes) {
    throw Error("{} has {} bytes, the checkpoint expects at least {}", file.string(), length,
                bytes);
  }
  if (::ftruncate(descriptor_, bytes) != 0 || ::lseek(descriptor_, bytes, SEEK_SET) != bytes) {
    throw Error("cannot cut {}: {}", file.string(), std::strerror(errno));
  }
}

MetricsLog::~MetricsLog() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void MetricsLog::append(const StepMetrics& metrics) {
  const std::string line = to_json(metrics).dump() + "\n";
  for (size_t done = 0; done < line.size();) {
    const ssize_t written = ::write(descriptor_, line.data() + done, line.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw Error("cannot write {}: {}", file_.string(), std::strerror(errno));
    done += static_cast<size_t>(written);
  }
  bytes_ += std::ssize(line);
}

int64_t MetricsLog::sync() {
  if (::fsync(descriptor_) != 0) {
    throw Error("cannot write {}: {}", file_.string(), std::strerror(errno));
  }
  return bytes_;
}

std::vector<nlohmann::json> read_metrics(const fs::path& file) {
  std::vector<nlohmann::json> lines;
  std::ifstream stream(file);
  if (!stream) throw Error("cannot open {}: {}", file.string(), std::strerror(errno));
  for (std::string line; std::getline(stream, line);) {
    lines.push_back(parse_json(line, fmt::format("{}:{}", file.string(), lines.size() + 1)));
  }
  return lines;
}

}  // namespace mambify
