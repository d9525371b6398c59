// The C API: the core's classes under C names, with the weights of a file brought to where its program wants them.
#include <string.h>

#include "runtime/instance.h"
#include "runtime/threads.h"
#include "wiesel/wiesel.h"

namespace {

using wl::Code;
using wl::Status;

static_assert(WL_INVALID == int(Code::invalid) && WL_CORRUPT == int(Code::corrupt) && WL_UNSUPPORTED == int(Code::unsupported) &&
                  WL_NO_MEMORY == int(Code::no_memory) && WL_INTERRUPTED == int(Code::interrupted) && WL_STATE == int(Code::state),
              "the codes are the same");
static_assert(WL_U8 == int(wl::DType::u8) && WL_I32 == int(wl::DType::i32) && WL_MAX_RANK == wl::kMaxRank, "the types are the same");
static_assert(sizeof(wl_scalar) == sizeof(wl::Scalar) && WL_SCALAR_SLOTS == wl::kScalarSlots, "the scalar slots are the same");
static_assert(WL_FORWARD == 1 << wl::kForward && WL_UPDATE == 1 << wl::kUpdate, "the entries are the same");

wl_status hand_out(const Status& status, wl_error* error) {
  if (!status && error) {
    error->status = wl_status(status.code);
    memcpy(error->text, status.text, sizeof error->text);
  }
  return wl_status(status.code);
}
static_assert(sizeof(wl_error::text) == sizeof(Status::text), "the texts are of the same size");

const wl::Program& core(const wl_program* program) {
  return *reinterpret_cast<const wl::Program*>(program);
}

Status kernels_for(const char* isa, const wl::Kernels** kernels) {
  *kernels = isa ? wl::find_kernels(isa) : wl::active_kernels();
  if (*kernels) return Status::good();
  return Status::error(Code::invalid, "instruction set %s: unknown, or this machine cannot run it", isa ? isa : "of WIESEL_ISA");
}

int threads_for(int max_threads) {
  return max_threads == 0 ? wl::default_threads() : max_threads;
}

Status describe(const wl::Program& p, const int* slots, int n, int slot, wl_tensor_info* info) {
  WL_CHECK(slot >= 0 && slot < n, "slot %d of %d", slot, n);
  const wl::Tensor& t = p.tensors[slots[slot]];
  *info = wl_tensor_info{};
  info->name = p.tensor_names[slots[slot]];
  info->dtype = wl_dtype(t.dtype);
  info->rank = t.rank;
  for (int d = 0; d < t.rank; ++d) info->extents[d] = t.dims[d];
  info->batch = t.batch;
  return Status::good();
}

Status memory_of(const wl::Program& p, const wl::Kernels& kernels, int threads, wl_memory* need) {
  WL_CHECK(threads >= 1 && threads <= wl::kMaxThreads, "%d threads; 1 to %d are possible", threads, wl::kMaxThreads);
  const wl::MemoryNeed m = wl::program_memory(p, kernels, threads);
  const auto shared = [&](wl::Buffer b) { return size_t(p.bytes[int(b)]); };
  *need = {wl::instance_bytes(p),      size_t(m.arena),           size_t(m.workspace),       size_t(m.prepared),
           shared(wl::Buffer::params), shared(wl::Buffer::state), shared(wl::Buffer::grads), shared(wl::Buffer::opt)};
  return Status::good();
}

bool is_weight(const wl::Tensor& t) {
  return t.buffer == wl::Buffer::params || t.buffer == wl::Buffer::state;
}

// Copies every array of section WGHT to the tensor of its name; each named tensor of params and state must have one.
Status copy_weights(const wl::Program& p, char* params, char* state) {
  const auto named = [&](const wl::NamedArray& array, int t) {
    return strlen(p.tensor_names[t]) == size_t(array.name_length) && memcmp(p.tensor_names[t], array.name, size_t(array.name_length)) == 0;
  };
  const auto fits = [&](const wl::NamedArray& array, const wl::Tensor& t) {
    return array.dtype == t.dtype && t.dense() && size_t(t.elements()) * wl::dtype_size(t.dtype) == array.bytes;
  };
  for (int t = 0; t < p.n_tensors; ++t) {
    const wl::Tensor& tensor = p.tensors[t];
    if (!is_weight(tensor) || !p.tensor_names[t][0] || !tensor.dense()) continue;
    bool found = false, done = !p.weights.data;
    wl::ArrayReader reader(p.weights);
    while (!done && !found) {
      wl::NamedArray array;
      WL_TRY(reader.next(&array, &done));
      if (done || !named(array, t) || !fits(array, tensor)) continue;
      memcpy((tensor.buffer == wl::Buffer::params ? params : state) + tensor.offset, array.data, array.bytes);
      found = true;
    }
    WL_CHECK(found, "the file has no array '%s' of %lld elements, which its program reads", p.tensor_names[t],
             (long long)tensor.elements());
  }
  return Status::good();
}

Status create(const wl::Program& p, const char* isa, int max_threads, const wl_blocks& blocks, wl::Instance** out) {
  const wl::Kernels* kernels;
  WL_TRY(kernels_for(isa, &kernels));
  const auto block = [](void* b) { return static_cast<char*>(b); };
  wl::InstanceMemory memory;
  memory.arena = block(blocks.arena);
  memory.workspace = block(blocks.workspace);
  memory.prepared = block(blocks.prepared);
  memory.params = block(blocks.params);
  memory.grads = block(blocks.grads);
  memory.state = block(blocks.state);
  memory.opt = block(blocks.opt);
  memory.object = block(blocks.instance);
  WL_CHECK(memory.object, "no block for the instance itself");
  WL_TRY(wl::instance_create(p, *kernels, threads_for(max_threads), memory, out));
  WL_TRY(copy_weights(p, memory.params, memory.state));
  wl::RunRequest prepare;
  prepare.entries = 1u << wl::kPrepare;
  return wl::instance_run(*out, prepare);
}

}  // namespace

extern "C" {

const char* wl_version(void) {
  return WL_VERSION;
}

const char* wl_isa(int i) {
  const wl::Kernels* const* k = wl::runnable_kernels();
  for (; *k && i > 0; --i) ++k;
  return *k && i == 0 ? (*k)->isa : nullptr;
}

int wl_default_threads(void) {
  return wl::default_threads();
}

wl_status wl_program_size(const void* file, size_t file_size, size_t* bytes, wl_error* error) {
  return hand_out(wl::program_size(file, file_size, bytes), error);
}

wl_status wl_program_load(const void* file, size_t file_size, void* memory, size_t bytes, wl_program** program, wl_error* error) {
  size_t need;
  Status status = wl::program_size(file, file_size, &need);
  if (status && bytes < need) status = Status::error(Code::no_memory, "the program needs %zu bytes, the block has %zu", need, bytes);
  wl::Program* loaded = nullptr;
  if (status) status = wl::program_place(file, file_size, memory, &loaded);
  if (status) *program = reinterpret_cast<wl_program*>(loaded);
  return hand_out(status, error);
}

int64_t wl_program_batch(const wl_program* program) {
  return core(program).batch;
}
int wl_program_inputs(const wl_program* program) {
  return core(program).n_inputs;
}
int wl_program_outputs(const wl_program* program) {
  return core(program).n_outputs;
}

wl_status wl_program_input(const wl_program* program, int slot, wl_tensor_info* info, wl_error* error) {
  const wl::Program& p = core(program);
  return hand_out(describe(p, p.input_tensors, p.n_inputs, slot, info), error);
}

wl_status wl_program_output(const wl_program* program, int slot, wl_tensor_info* info, wl_error* error) {
  const wl::Program& p = core(program);
  return hand_out(describe(p, p.output_tensors, p.n_outputs, slot, info), error);
}

wl_status wl_program_memory(const wl_program* program, const char* isa, int max_threads, wl_memory* need, wl_error* error) {
  const wl::Kernels* kernels;
  Status status = kernels_for(isa, &kernels);
  if (status) status = memory_of(core(program), *kernels, threads_for(max_threads), need);
  return hand_out(status, error);
}

wl_status wl_instance_create(const wl_program* program, const char* isa, int max_threads, const wl_blocks* blocks, wl_instance** instance,
                             wl_error* error) {
  wl::Instance* created = nullptr;
  const Status status = create(core(program), isa, max_threads, *blocks, &created);
  if (status) *instance = reinterpret_cast<wl_instance*>(created);
  return hand_out(status, error);
}

wl_status wl_instance_run(wl_instance* instance, const wl_run* run, wl_error* error) {
  wl::RunRequest request;
  request.entries = run->entries;
  request.n = run->n;
  request.inputs = run->inputs;
  request.outputs = run->outputs;
  request.scalars = reinterpret_cast<const wl::Scalar*>(run->scalars);
  request.threads = run->threads;
  struct Stop {
    int (*ask)(void*);
    void* context;
  } stop{run->stop, run->stop_context};
  if (run->stop) {
    request.stop = [](void* s) { return static_cast<Stop*>(s)->ask(static_cast<Stop*>(s)->context) != 0; };
    request.stop_context = &stop;
  }
  return hand_out(wl::instance_run(reinterpret_cast<wl::Instance*>(instance), request), error);
}

}  // extern "C"
