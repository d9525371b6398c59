// Fuzz target: bytes are taken as a file, and as the payload of a section PROG. What loads is run, in blocks of exactly the sizes it
// asks for, on memory full of the input's own bytes. Built for libFuzzer, and for the driver of drive.cc.
#include <stdlib.h>

#include <memory>

#include "../cpp/program_builder.h"
#include "runtime/instance.h"

using wl::Buffer;

namespace {

constexpr int64_t kMaxBlock = 1 << 20, kMaxElements = 1 << 16;
constexpr int kMaxSteps = 64;

struct Free {
  void operator()(void* block) const { free(block); }
};
using Block = std::unique_ptr<char, Free>;

Block filled_block(int64_t bytes, const uint8_t* data, size_t size) {
  void* block = nullptr;
  if (bytes == 0 || posix_memalign(&block, 64, size_t(bytes)) != 0) return nullptr;
  for (int64_t i = 0; i < bytes; ++i) static_cast<uint8_t*>(block)[i] = size ? data[size_t(i) * 7 % size] : 0;
  return Block(static_cast<char*>(block));
}

bool affordable(const wl::Program& p, const wl::MemoryNeed& need) {
  for (int64_t bytes : p.bytes)
    if (bytes > kMaxBlock) return false;
  for (int t = 0; t < p.n_tensors; ++t)
    if (p.tensors[t].elements() > kMaxElements) return false;
  return p.n_steps <= kMaxSteps && p.n_inputs + p.n_outputs <= 64 && need.workspace <= 16 * kMaxBlock;
}

void run(const wl::Program& p, const wl::Kernels& kernels, const uint8_t* data, size_t size) {
  const int threads = 2;
  const wl::MemoryNeed need = wl::program_memory(p, kernels, threads);
  if (!affordable(p, need)) return;
  const auto shared = [&](Buffer b) { return filled_block(p.bytes[int(b)], data, size); };
  const Block arena = filled_block(need.arena, data, size), workspace = filled_block(need.workspace, data, size),
              prepared = filled_block(need.prepared, data, size), params = shared(Buffer::params), grads = shared(Buffer::grads),
              state = shared(Buffer::state), opt = shared(Buffer::opt);
  wl::InstanceMemory memory;
  memory.arena = arena.get();
  memory.workspace = workspace.get();
  memory.prepared = prepared.get();
  memory.params = params.get();
  memory.grads = grads.get();
  memory.state = state.get();
  memory.opt = opt.get();
  wl::Instance* instance = nullptr;
  if (!wl::instance_create(p, kernels, threads, memory, &instance)) return;
  for (const int64_t n : {p.batch, (p.batch + 1) / 2}) {
    std::vector<Block> arrays;
    std::vector<void*> addresses;
    for (int s = 0; s < p.n_inputs + p.n_outputs; ++s) {
      const wl::Tensor& t = p.tensors[s < p.n_inputs ? p.input_tensors[s] : p.output_tensors[s - p.n_inputs]];
      const int64_t bytes = t.elements() * int64_t(wl::dtype_size(t.dtype));
      arrays.push_back(filled_block(t.batch ? bytes / t.dims[0] * n : bytes, data, size));
      addresses.push_back(arrays.back().get());
    }
    wl::RunRequest request;
    request.entries = wl::kAllEntries;
    request.n = n;
    request.inputs = addresses.data();
    request.outputs = addresses.data() + p.n_inputs;
    wl::instance_run(instance, request);
  }
  wl::instance_free(instance);
}

// Programs that loaded, mutated or not: a driver sees by it that mutations reach beyond the parser.
long loaded = 0;

void load_and_run(const std::string& file, const uint8_t* data, size_t size) {
  std::unique_ptr<char[]> exact(new char[file.size()]);
  memcpy(exact.get(), file.data(), file.size());
  wl::Program* program = nullptr;
  if (!wl::program_load(exact.get(), file.size(), &program)) return;
  ++loaded;
  for (const wl::Kernels* const* k = wl::runnable_kernels(); *k; ++k) run(*program, **k, data, size);
  wl::program_free(program);
}

}  // namespace

long fuzz_loaded() {
  return loaded;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using harness::container;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  load_and_run(bytes, data, size);
  load_and_run(container({{"PROG", bytes}}), data, size);
  wl::Section section;
  section.data = bytes.data();
  section.size = bytes.size();
  wl::ArrayReader reader(section);
  wl::NamedArray array;
  for (bool done = false; !done && reader.next(&array, &done);) continue;
  return 0;
}
