// A program in memory: parsed and verified, immutable, shareable. See docs/program-format.md.
#pragma once
#include "ops/op.h"
#include "runtime/container.h"

namespace wl {

enum Entry : uint8_t { kPrepare = 0, kForward = 1, kGrad = 2, kUpdate = 3, kEntries = 4 };
constexpr unsigned kAllEntries = (1u << kEntries) - 1;

constexpr int kMaxSlots = 65536;  // input slots, and as many output slots

struct Program {
  int64_t batch = 0;                 // planned N; 0: no batch extent
  int64_t bytes[kBufferCount] = {};  // per Buffer; input and output: 0
  const char* consts = nullptr;      // 64-byte aligned
  int n_tensors = 0, n_steps = 0, n_inputs = 0, n_outputs = 0;
  const Tensor* tensors = nullptr;
  const char* const* tensor_names = nullptr;
  const Step* steps = nullptr;         // operands point into `tensors`; sorted by entry, order kept
  int entry_begin[kEntries + 1] = {};  // steps [entry_begin[e], entry_begin[e+1])
  const int* input_tensors = nullptr;  // the tensor that describes each input slot
  const int* output_tensors = nullptr;
  Section weights;  // the file's section WGHT; no data without one, or when the program does not read it in place
};

// An operand in Buffer::input or output: which slot, and where in its array.
constexpr int slot_of(const Tensor& t) {
  return int(t.offset & 0xffff);
}
constexpr int64_t slot_offset(const Tensor& t) {
  return t.offset >> 16;
}

// Parses and verifies a container with a PROG section. Copies what it needs.
Status program_load(const void* data, size_t size, Program** out);
void program_free(Program* program);

// The same in memory of the caller's, 64-byte aligned and of the size that program_size() tells. Consts and weights are read in
// place: `data` must be 64-byte aligned and outlive the program. Nothing is to be freed.
Status program_size(const void* data, size_t size, size_t* bytes);
Status program_place(const void* data, size_t size, void* memory, Program** out);

// Bytes for one instance: the same query that Python's plan() and the C API use.
struct MemoryNeed {
  int64_t arena, workspace, prepared;
};
MemoryNeed program_memory(const Program& program, const Kernels& kernels, int threads);

}  // namespace wl
