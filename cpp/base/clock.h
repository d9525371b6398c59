// The clock that profiling reads.
#pragma once
#include <time.h>

namespace wl {

// Seconds since some fixed moment.
inline double seconds_now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

}  // namespace wl
