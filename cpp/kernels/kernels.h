// One table per ISA, gathering one table per family. Ops reach every kernel through it; they never name an ISA.
#pragma once
#include <stdint.h>

namespace wl {

#define WL_FAMILY(name, Type) struct Type;
#include "kernels/families.inc"
#undef WL_FAMILY

struct Kernels {
  const char* isa;  // "ref", "baseline", "avx2", "avx512", "neon"
  int lanes;        // float32 lanes of a vector; 1 for ref
#define WL_FAMILY(name, Type) const Type* name;
#include "kernels/families.inc"
#undef WL_FAMILY
};

// The tables compiled into this library that this machine can run, slowest first; ends with a null pointer.
// `ref` is always the first.
const Kernels* const* runnable_kernels();

// The table named `isa`, or null when it is unknown or this machine cannot run it.
const Kernels* find_kernels(const char* isa);

// The table in force: the one that WIESEL_ISA names, else the fastest runnable. Null when WIESEL_ISA names one that is not runnable:
// the caller turns that into an error, never into a quiet fallback.
const Kernels* active_kernels();

}  // namespace wl
