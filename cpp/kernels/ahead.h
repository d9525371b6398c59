// Memory that will be wanted soon and is brought nearer, a little at a time, while a kernel computes: hardware prefetchers stop at every
// page, and follow no tile that reads its rows far apart (docs/decisions/0009-memory-ahead.md). A hint: nothing is read, no bit depends on
// it.
#pragma once
#include "base/align.h"

namespace wl {

struct Ahead {
  const void* at = nullptr;
  int64_t bytes = 0;
};

// A walk through such memory, `step` bytes at a time; nowhere without a step.
struct Stream {
  const char* at = nullptr;
  int64_t step = 0;
};

// Deals two pieces of memory out, evenly, to kernels that walk so many steps in all. Inlined everywhere: kernels are compiled per
// instruction set, and no function of one may stand in for another's.
class Streams {
 public:
  __attribute__((always_inline)) Streams(const Ahead (&ahead)[2], int64_t steps) {
    const int64_t bytes = ahead[0].bytes + ahead[1].bytes;
    if (bytes == 0 || steps <= 0) return;
    step_ = div_up(bytes, steps);
    for (int i = 0; i < 2; ++i) at_[i] = static_cast<const char*>(ahead[i].at), left_[i] = ahead[i].bytes;
  }

  // Whether anything is left.
  __attribute__((always_inline)) bool any() const { return left_[0] > 0 || left_[1] > 0; }

  // For the kernel that comes next, which walks so many steps. It stands still where nothing is left.
  __attribute__((always_inline)) Stream next(int64_t steps) {
    for (int i = 0; i < 2; ++i)
      if (left_[i] > 0) {
        const Stream stream{at_[i], step_};
        at_[i] += steps * step_, left_[i] -= steps * step_;
        return stream;
      }
    return {at_[1] ? at_[1] : at_[0], 0};
  }

 private:
  int64_t step_ = 0, left_[2] = {};
  const char* at_[2] = {};
};

}  // namespace wl
