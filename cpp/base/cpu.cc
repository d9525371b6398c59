#include "base/cpu.h"

#include <string.h>

namespace wl {

bool cpu_runs(const char* isa) {
  const auto is = [isa](const char* name) { return strcmp(isa, name) == 0; };
  if (is("ref") || is("baseline") || is("neon")) return true;  // neon is part of every aarch64
#if defined(__x86_64__)
  // These ask cpuid and xgetbv: the operating system must save the wide registers too.
  __builtin_cpu_init();
  const bool v3 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  if (is("avx2")) return v3;
#ifdef WL_EMULATE_AVX512
  if (is("avx512")) return v3;  // what it is compiled for then
#endif
  if (is("avx512"))
    return v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
  return false;
}

}  // namespace wl
