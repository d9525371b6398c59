// Which part of a step adds up, in a fixed order, what its tasks had summed each for itself: the price of bits that do not depend on
// threads.
#pragma once
#include "base/clock.h"
#include "ops/op.h"

namespace wl {

// While it lives, the step is combining. Only a profiled run reads the clock. Made on the thread that runs the step, outside of any task.
class CombiningTime {
 public:
  explicit CombiningTime(const Run& run) : total_(run.combining_seconds), begin_(total_ ? seconds_now() : 0) {}
  ~CombiningTime() {
    if (total_) *total_ += seconds_now() - begin_;
  }
  CombiningTime(const CombiningTime&) = delete;
  CombiningTime& operator=(const CombiningTime&) = delete;

 private:
  double* total_;
  double begin_;
};

}  // namespace wl
