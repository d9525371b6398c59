#include "runtime/instance.h"

#include <new>

#include "base/clock.h"
#include "base/float_mode.h"
#include "base/memory.h"
#include "runtime/threads.h"

namespace wl {
namespace {

struct BoundStep {
  void (*run)(const Step&, const Run&);
  Step step;
};

constexpr Scalar kNoScalars[kScalarSlots] = {};

struct RunKind {
  unsigned entries = 0;
  int64_t n = 0;
  int threads = 0;
  bool operator==(const RunKind& other) const { return entries == other.entries && n == other.n && threads == other.threads; }
};

}  // namespace

// One block: this, then the tensors, the steps and the index lists.
struct Instance {
  const Program* program;
  Run run;
  int threads;
  Tensor* tensors;     // the program's, with addresses; dims[0] of batch tensors follows n
  BoundStep* steps;    // operands point into `tensors`
  int* batch_tensors;  // those with a batch extent
  int* slot_tensors;   // those in Buffer::input and output
  int n_batch_tensors, n_slot_tensors;
  int64_t n;  // the batch extent that `tensors` has now
  RunKind last;
  bool shares_work;  // whether the loops of the last run were worth more threads
};

namespace {

struct Parts {
  size_t tensors, steps, batch, slots, end;
};

Parts parts_of(const Program& p) {
  Parts parts;
  parts.tensors = size_t(round_up(sizeof(Instance), kCacheLine));
  parts.steps = size_t(round_up(int64_t(parts.tensors + size_t(p.n_tensors) * sizeof(Tensor)), kCacheLine));
  parts.batch = parts.steps + size_t(p.n_steps) * sizeof(BoundStep);
  parts.slots = parts.batch + size_t(p.n_tensors) * sizeof(int);
  parts.end = parts.slots + size_t(p.n_tensors) * sizeof(int);
  return parts;
}

// The run under way, on the caller's stack.
struct Execution {
  Instance* instance;
  const RunRequest* request;
  bool finished = true;
};

void execute(void* context) {
  auto& execution = *static_cast<Execution*>(context);
  const RunRequest& request = *execution.request;
  Instance& instance = *execution.instance;
  const Program& program = *instance.program;
  const FloatMode mode;
  for (int entry = 0; entry < kEntries; ++entry) {
    if (!(request.entries >> entry & 1)) continue;
    const int begin = program.entry_begin[entry], end = program.entry_begin[entry + 1];
    for (int s = begin; s < end; ++s) {
      if (entry != kUpdate || s == begin) {
        if (request.stop && request.stop(request.stop_context)) {
          execution.finished = false;
          return;
        }
      }
      const BoundStep& bound = instance.steps[s];
      if (request.step_seconds) {
        instance.run.combining_seconds = request.combining_seconds ? request.combining_seconds + s : nullptr;
        const double start = seconds_now();
        bound.run(bound.step, instance.run);
        request.step_seconds[s] += seconds_now() - start;
        instance.run.combining_seconds = nullptr;
      } else {
        bound.run(bound.step, instance.run);
      }
    }
  }
}

}  // namespace

size_t instance_bytes(const Program& program) {
  return parts_of(program).end;
}

Status instance_create(const Program& program, const Kernels& kernels, int threads, const InstanceMemory& memory, Instance** out) {
  WL_CHECK(threads >= 1 && threads <= kMaxThreads, "%d threads; 1 to %d are possible", threads, kMaxThreads);
  watch_forks();
  const MemoryNeed need = program_memory(program, kernels, threads);
  const struct {
    const char* what;
    const char* block;
    int64_t bytes;
  } blocks[] = {
      {"arena", memory.arena, need.arena},
      {"workspace", memory.workspace, need.workspace},
      {"prepared", memory.prepared, need.prepared},
      {"params", memory.params, program.bytes[int(Buffer::params)]},
      {"grads", memory.grads, program.bytes[int(Buffer::grads)]},
      {"state", memory.state, program.bytes[int(Buffer::state)]},
      {"opt", memory.opt, program.bytes[int(Buffer::opt)]},
      {"object", memory.object, 0},
  };
  for (const auto& b : blocks) {
    WL_CHECK(b.block || b.bytes == 0, "the program needs %lld bytes of %s, and none were given", (long long)b.bytes, b.what);
    WL_CHECK(reinterpret_cast<uintptr_t>(b.block) % kCacheLine == 0, "the memory for %s does not begin at a multiple of 64 bytes", b.what);
  }

  const Parts parts = parts_of(program);
  char* object = memory.object ? memory.object : memory_alloc(parts.end);
  if (!object) return Status::error(Code::no_memory, "no memory for an instance of %zu bytes", parts.end);
  auto* instance = new (object) Instance{};
  instance->program = &program;
  instance->threads = threads;
  instance->run.kernels = &kernels;
  instance->run.workspace = memory.workspace;
  instance->tensors = reinterpret_cast<Tensor*>(object + parts.tensors);
  instance->steps = reinterpret_cast<BoundStep*>(object + parts.steps);
  instance->batch_tensors = reinterpret_cast<int*>(object + parts.batch);
  instance->slot_tensors = reinterpret_cast<int*>(object + parts.slots);
  instance->n = program.batch;

  char* const base[kBufferCount] = {
      memory.arena, memory.params, memory.grads, memory.state, memory.opt, memory.prepared, const_cast<char*>(program.consts),
      nullptr,      nullptr};  // no step writes consts: verified
  for (int t = 0; t < program.n_tensors; ++t) {
    Tensor* tensor = new (&instance->tensors[t]) Tensor(program.tensors[t]);
    if (tensor->buffer == Buffer::input || tensor->buffer == Buffer::output)
      instance->slot_tensors[instance->n_slot_tensors++] = t;
    else
      tensor->data = base[int(tensor->buffer)] + tensor->offset;
    if (tensor->batch) instance->batch_tensors[instance->n_batch_tensors++] = t;
  }
  const auto mine = [&](const Tensor* t) { return t ? instance->tensors + (t - program.tensors) : nullptr; };
  for (int s = 0; s < program.n_steps; ++s) {
    const Step& step = program.steps[s];
    auto* bound = new (&instance->steps[s]) BoundStep{find_op(uint16_t(step.opcode))->run, step};
    for (auto& operand : bound->step.in) operand = mine(operand);
    for (auto& operand : bound->step.out) operand = mine(operand);
  }
  *out = instance;
  return Status::good();
}

Status instance_run(Instance* instance, const RunRequest& request) {
  const Program& program = *instance->program;
  WL_CHECK(request.entries != 0 && (request.entries & ~kAllEntries) == 0, "entries %#x: bits 0 to %d choose what to run", request.entries,
           kEntries - 1);
  const bool only_prepares = request.entries == 1u << kPrepare;  // it sees no slots and no batch: verified
  if (program.batch > 0 && !only_prepares) {
    WL_CHECK(request.n >= 1 && request.n <= program.batch, "a batch of %lld; this program was planned for 1 to %lld", (long long)request.n,
             (long long)program.batch);
    if (request.n != instance->n) {
      for (int i = 0; i < instance->n_batch_tensors; ++i) instance->tensors[instance->batch_tensors[i]].dims[0] = request.n;
      instance->n = request.n;
    }
  }
  for (int i = 0; i < instance->n_slot_tensors && !only_prepares; ++i) {
    Tensor& t = instance->tensors[instance->slot_tensors[i]];
    const int slot = slot_of(t);
    // Inputs are only read: the verifier saw that no step has one as its output.
    char* array =
        t.buffer == Buffer::input ? static_cast<char*>(const_cast<void*>(request.inputs[slot])) : static_cast<char*>(request.outputs[slot]);
    t.data = array + slot_offset(t);
  }
  instance->run.scalars = request.scalars ? request.scalars : kNoScalars;
  instance->run.threads = request.threads >= 1 ? int(min_of(request.threads, instance->threads)) : instance->threads;

  Execution execution{instance, &request};
  // Threads are called in only where the last run of this kind had work for them: waking them costs more than a small program takes.
  const RunKind kind{request.entries, request.n, instance->run.threads};
  if (!(kind == instance->last)) instance->shares_work = true;
  instance->last = kind;
  instance->shares_work = with_threads(instance->shares_work ? instance->run.threads : 1, execute, &execution) || !execution.finished;
  return execution.finished ? Status::good() : Status::error(Code::interrupted, "the run was stopped between two steps");
}

void instance_free(Instance* instance) {
  if (instance) memory_free(reinterpret_cast<char*>(instance), instance_bytes(*instance->program));
}

}  // namespace wl
