// What an op is: verify, choose, run. One file per op (or per pair of forward and backward) in this folder; the opcode list is ops.inc.
//
// An op validates nothing while it runs (verify() did), cuts its work into tasks by shape alone, hands them to parallel_for and calls
// kernels. It allocates nothing: scratch comes from the workspace whose size choose() told.
#pragma once
#include "base/align.h"
#include "base/status.h"
#include "base/tensor.h"
#include "kernels/kernels.h"
#include "ops/kinds.h"

namespace wl {

enum class AttrKey : uint16_t {
#define WL_ATTR(number, name, kind) name = number,
#include "ops/attrs.inc"
#undef WL_ATTR
};

enum class Opcode : uint16_t {
#define WL_OP(number, name) name = number,
#include "ops/ops.inc"
#undef WL_OP
};

struct Attr {
  AttrKey key;
  bool real;
  union {
    int64_t i;
    double f;
  };
};

constexpr int kMaxInputs = 8, kMaxOutputs = 4, kMaxAttrs = 24;

struct Step {
  Opcode opcode{};
  uint8_t n_in = 0, n_out = 0, n_attr = 0, entry = 0;
  const char* path = "";              // module path, for messages
  const Tensor* in[kMaxInputs] = {};  // null when absent; entries past n_in are null too
  const Tensor* out[kMaxOutputs] = {};
  Attr attrs[kMaxAttrs];

  int64_t i(AttrKey key, int64_t otherwise = 0) const {
    for (int a = 0; a < n_attr; ++a)
      if (attrs[a].key == key) return attrs[a].i;
    return otherwise;
  }
  double f(AttrKey key, double otherwise = 0) const {
    for (int a = 0; a < n_attr; ++a)
      if (attrs[a].key == key) return attrs[a].f;
    return otherwise;
  }
};

union Scalar {
  int64_t i;
  double f;
};

// What a running step may use besides its operands.
struct Run {
  const Kernels* kernels = nullptr;
  int threads = 1;
  char* workspace = nullptr;  // 64-byte aligned, as many bytes as choose() asked for with these threads
  const Scalar* scalars = nullptr;
  double* combining_seconds = nullptr;  // profiling: see ops/combining_time.h; null: no clock is read
};

// What choose() tells about a step. Pure function of the step's shapes and attributes, the ISA and the thread count; only
// `workspace` may depend on the thread count, never anything that changes bits.
struct Choice {
  Algorithm algorithm = Algorithm::direct;
  int64_t workspace = 0;  // bytes for `threads` threads
  int64_t packed =
      0;  // bytes of the packed weights that conv_pack writes for this algorithm: equal on every ISA; 0: reads canonical weights
  char kernel[48] = "";     // e.g. "brgemm 12x32"
  char blocking[160] = "";  // free text for explain()
  char refused[256] = "";   // "; "-separated: "<algorithm>: <why not>"
};

// Input `i` and output `o` may be one storage: a bit of Op::in_place.
constexpr uint32_t in_place(int i, int o) {
  return 1u << (kMaxOutputs * i + o);
}

struct Op {
  const char* name;
  // Everything run() relies on: count, presence, dtype, rank, extents and strides of operands, ranges of attributes.
  // Generic facts (every operand inside its buffer, known keys, finite reals) were checked before.
  Status (*verify)(const Step&);
  void (*choose)(const Step&, const Kernels&, int threads, Choice*);  // may be null: no scratch, nothing to choose
  void (*run)(const Step&, const Run&);
  uint32_t in_place = 0;  // pairs of operands that may be exactly one storage; all others must not overlap
};

// The op behind a number, or null. (ops/table.cc expands ops.inc: each op file defines `extern const Op op_<name>`.)
const Op* find_op(uint16_t opcode);

// Tasks of a loop whose work can be cut finer: enough for the threads of most machines to share them evenly.
constexpr int64_t kEnoughTasks = 16;

// Runs body(task, thread) for every task in [0, tasks) on at most run.threads threads, 0 <= thread < run.threads; returns when all are
// done. Which thread gets which task is free, so bits may depend on the task alone. Below `cost` (rough nanoseconds of the whole loop on
// one thread) of 10 µs it runs on the caller's thread. Defined in runtime/threads.cc, the one file that names OpenMP.
void parallel_for_impl(int threads, double cost_ns, int64_t tasks, void (*call)(void*, int64_t, int), void* body);

template <class T>
struct RemoveReference {
  using type = T;
};
template <class T>
struct RemoveReference<T&> {
  using type = T;
};

template <class Body>
void parallel_for(const Run& run, int64_t tasks, double cost_ns, Body&& body) {
  if (run.threads <= 1 || tasks <= 1 || cost_ns < 10000) {
    for (int64_t t = 0; t < tasks; ++t) body(t, 0);
    return;
  }
  using B = typename RemoveReference<Body>::type;
  parallel_for_impl(
      run.threads, cost_ns, tasks, [](void* b, int64_t task, int thread) { (*static_cast<B*>(b))(task, thread); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace wl
