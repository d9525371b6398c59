# THE list of instruction sets, and the only place with -m flags.
#   wl_isa(<name> <vector bytes> <processor regex> "<flags>")
# `ref` is the plain C++ of every family's ref.cc, compiled for the baseline.
set(WL_ISAS "")
macro(wl_isa name bytes processors flags)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "${processors}")
    list(APPEND WL_ISAS ${name})
    set(WL_ISA_${name}_BYTES ${bytes})
    separate_arguments(WL_ISA_${name}_FLAGS UNIX_COMMAND "${flags}")
  endif()
endmacro()

wl_isa(baseline 16 "x86_64|AMD64|amd64" "-march=x86-64 -mtune=generic")
wl_isa(avx2     32 "x86_64|AMD64|amd64" "-march=x86-64-v3 -mtune=generic")
wl_isa(avx512   64 "x86_64|AMD64|amd64" "-march=x86-64-v4 -mtune=generic -mprefer-vector-width=512")
wl_isa(neon     16 "aarch64|arm64"      "-march=armv8-a")

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  set(WL_BASELINE_FLAGS -march=x86-64 -mtune=generic)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(WL_BASELINE_FLAGS -march=armv8-a)
else()
  set(WL_BASELINE_FLAGS "")
endif()
