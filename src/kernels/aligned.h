// Scratch memory on cache line boundaries: a 64-byte vector across two lines costs twice.
#pragma once

#include <cstdint>
#include <new>

namespace mambify::kernels {

// Uninitialised; no memory for none.
class AlignedFloats {
 public:
  explicit AlignedFloats(int64_t count)
      : data_(count > 0 ? static_cast<float*>(::operator new(count * sizeof(float), kAlignment))
                        : nullptr) {}
  ~AlignedFloats() { ::operator delete(data_, kAlignment); }
  AlignedFloats(const AlignedFloats&) = delete;
  AlignedFloats& operator=(const AlignedFloats&) = delete;

  float* data() const { return data_; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  float* data_;
};

}  // namespace mambify::kernels
