// The floating-point mode of a run: round to nearest, denormals flushed to zero. Bits and speed do not depend on what the caller had set.
#pragma once
#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace wl {

// Sets the mode on this thread; the destructor restores what was there.
class FloatMode {
 public:
  FloatMode() : saved_(get()) {
    if ((saved_ & ~kSticky) != kRun) set(kRun);
  }
  ~FloatMode() {
    if ((saved_ & ~kSticky) != kRun) set(saved_);
  }
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr uint64_t kRun = 0x1f80 | 0x8040;  // all exceptions masked, FTZ and DAZ
  static constexpr uint64_t kSticky = 0x3f;          // exceptions seen so far: no part of the mode
  static uint64_t get() {
    return _mm_getcsr();
  }
  static void set(uint64_t mode) {
    _mm_setcsr(unsigned(mode));
  }
#elif defined(__aarch64__)
  static constexpr uint64_t kRun = 1u << 24;  // FZ
  static constexpr uint64_t kSticky = 0;
  static uint64_t get() {
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void set(uint64_t mode) {
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
  }
#else
  static constexpr uint64_t kRun = 0, kSticky = 0;
  static uint64_t get() {
    return kRun;
  }
  static void set(uint64_t) {}
#endif
  uint64_t saved_;
};

}  // namespace wl
