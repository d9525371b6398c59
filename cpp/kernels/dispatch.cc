// Which kernel tables this machine can run, and which one is in force. Compiled for the baseline.
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "kernels/kernels.h"

namespace wl {

// isas.inc is written by CMake from isa.cmake: WL_ISA_ENTRY(name) for each level, slowest first.
#define WL_ISA_ENTRY(name)    \
  namespace name {            \
  extern const Kernels table; \
  }
WL_ISA_ENTRY(ref)
#include "isas.inc"
#undef WL_ISA_ENTRY

namespace {

struct Runnable {
  const Kernels* tables[8] = {};
  Runnable() {
    int n = 0;
    tables[n++] = &ref::table;
#define WL_ISA_ENTRY(name) \
  if (cpu_runs(#name)) tables[n++] = &name::table;
#include "isas.inc"
#undef WL_ISA_ENTRY
  }
};

const Runnable& runnable() {
  static const Runnable r;
  return r;
}

}  // namespace

const Kernels* const* runnable_kernels() {
  return runnable().tables;
}

const Kernels* find_kernels(const char* isa) {
  for (const Kernels* const* k = runnable_kernels(); *k; ++k)
    if (strcmp((*k)->isa, isa) == 0) return *k;
  return nullptr;
}

const Kernels* active_kernels() {
  if (const char* forced = getenv("WIESEL_ISA"); forced && *forced) return find_kernels(forced);
  const Kernels* const* k = runnable_kernels();
  while (k[1]) ++k;
  return *k;
}

}  // namespace wl
