// A program ready to run: resolved operand addresses and the memory it works in. One thread at a time.
#pragma once
#include "runtime/program.h"

namespace wl {

struct Instance;

// Memory that the instance works on. The caller owns all of it, 64-byte aligned, at least the sizes that Program::bytes and
// program_memory() tell; null where the size is 0.
struct InstanceMemory {
  char* arena = nullptr;
  char* workspace = nullptr;
  char* prepared = nullptr;
  char* params = nullptr;
  char* grads = nullptr;
  char* state = nullptr;
  char* opt = nullptr;
  char* object = nullptr;  // instance_bytes() for the instance itself; null: instance_create allocates them, instance_free gives them back
};

struct RunRequest {
  unsigned entries = 1u << kForward;    // bit e: run entry e; in order
  int64_t n = 0;                        // batch extent, 1…N (ignored without batch)
  const void* const* inputs = nullptr;  // one address per slot, dense arrays of the described extents (dims[0] = n)
  void* const* outputs = nullptr;
  const Scalar* scalars = nullptr;  // kScalarSlots of them; may be null: zeros
  int threads = 0;                  // at most as many as the instance was created for; 0: all of them
  bool (*stop)(void*) = nullptr;    // asked between two steps; true ends the run with Code::interrupted (never inside entry update)
  void* stop_context = nullptr;
  double* step_seconds = nullptr;       // profiling: one value per step of the program, added up; null: no clock is read
  double* combining_seconds = nullptr;  // with step_seconds: the part of them that is ordered combining (ops/combining_time.h)
};

size_t instance_bytes(const Program& program);
Status instance_create(const Program& program, const Kernels& kernels, int threads, const InstanceMemory& memory, Instance** out);
Status instance_run(Instance* instance, const RunRequest& request);  // allocates nothing
void instance_free(Instance* instance);                              // not for an instance in the caller's memory

}  // namespace wl
