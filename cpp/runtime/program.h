// A program in memory: parsed and verified, immutable, shareable. See docs/program-format.md.
#pragma once
#include "ops/op.h"

namespace wl {

enum Entry : uint8_t { kPrepare = 0, kForward = 1, kGrad = 2, kUpdate = 3, kEntries = 4 };

struct Program {
  int64_t batch = 0;                      // planned N; 0: no batch extent
  int64_t bytes[kBufferCount] = {};       // per Buffer; input and output: 0
  const char* consts = nullptr;           // 64-byte aligned, inside the program's own copy
  int n_tensors = 0, n_steps = 0, n_inputs = 0, n_outputs = 0;
  const Tensor* tensors = nullptr;
  const char* const* tensor_names = nullptr;
  const Step* steps = nullptr;            // operands point into `tensors`; sorted by entry, order kept
  int entry_begin[kEntries + 1] = {};     // steps [entry_begin[e], entry_begin[e+1])
  const int* input_tensors = nullptr;     // the tensor that describes each input slot
  const int* output_tensors = nullptr;
};

// Parses and verifies a container with a PROG section (or a bare PROG payload is an error). Copies what it needs.
Status program_load(const void* data, size_t size, Program** out);
void program_free(Program* program);

// Bytes for one instance: the same query that Python's plan() and the C API use.
struct MemoryNeed {
  int64_t arena, workspace, prepared;
};
MemoryNeed program_memory(const Program& program, const Kernels& kernels, int threads);

}  // namespace wl
