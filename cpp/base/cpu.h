#pragma once

namespace wl {

// Whether this processor and operating system can run code compiled for `isa` of kernels/isa.cmake.
bool cpu_runs(const char* isa);

}  // namespace wl
