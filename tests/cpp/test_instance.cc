// The executor: entries, batch extents, slots, stopping, floating-point mode, sharing, and that running takes nothing from the heap.
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "base/memory.h"
#include "harness.h"
#include "program_builder.h"
#include "runtime/instance.h"
#include "runtime/threads.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define WL_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WL_SANITIZED 1
#endif

// Every heap allocation of this process, libgomp's included. Sanitizers bring their own malloc.
static std::atomic<long> allocations{0};
#if defined(__GLIBC__) && !defined(WL_SANITIZED)
#define WL_COUNTS 1
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* malloc(size_t size) {
  ++allocations;
  return __libc_malloc(size);
}
void* calloc(size_t n, size_t size) {
  ++allocations;
  return __libc_calloc(n, size);
}
void* realloc(void* block, size_t size) {
  ++allocations;
  return __libc_realloc(block, size);
}
}
#else
#define WL_COUNTS 0
#endif

using namespace harness;
using wl::Status;

namespace {

// A program with its instance, in blocks of exactly the sizes asked for.
struct Net {
  wl::Program* program = nullptr;
  wl::Instance* instance = nullptr;
  std::vector<std::unique_ptr<Guarded<char>>> blocks;
  wl::InstanceMemory memory;

  explicit Net(const ProgramSpec& spec, int threads = 1, const wl::Kernels* kernels = wl::active_kernels()) {
    const std::string file = file_of(spec);
    Status status = wl::program_load(file.data(), file.size(), &program);
    CHECK(bool(status), "%s", status.text);
    if (!status) return;
    const wl::MemoryNeed need = wl::program_memory(*program, *kernels, threads);
    const auto block = [&](int64_t bytes) -> char* {
      if (bytes == 0) return nullptr;
      blocks.emplace_back(new Guarded<char>(bytes, 64));
      return blocks.back()->data();
    };
    memory.arena = block(need.arena);
    memory.workspace = block(need.workspace);
    memory.prepared = block(need.prepared);
    memory.params = block(program->bytes[int(Buffer::params)]);
    memory.grads = block(program->bytes[int(Buffer::grads)]);
    memory.state = block(program->bytes[int(Buffer::state)]);
    memory.opt = block(program->bytes[int(Buffer::opt)]);
    memory.object = block(int64_t(wl::instance_bytes(*program)));
    status = wl::instance_create(*program, *kernels, threads, memory, &instance);
    CHECK(bool(status), "%s", status.text);
  }
  ~Net() {
    for (auto& block : blocks) CHECK(block->intact());
    wl::program_free(program);
  }
  Status run(unsigned entries, int64_t n, const void* x, void* y, const wl::Scalar* scalars = nullptr) {
    wl::RunRequest request;
    request.entries = entries;
    request.n = n;
    request.inputs = &x;
    request.outputs = &y;
    request.scalars = scalars;
    return wl::instance_run(instance, request);
  }
  float* params() { return reinterpret_cast<float*>(memory.params); }
};

constexpr unsigned kBit(int entry) {
  return 1u << entry;
}
const float kWeights[4] = {1, 2, -1, 3}, kShift[4] = {0.5f, -0.5f, 1, -1};

void test_entries_and_batches() {
  Net net(small_net());
  memcpy(net.params(), kWeights, sizeof kWeights);
  CHECK(bool(net.run(kBit(wl::kPrepare), 0, nullptr, nullptr)));
  for (int64_t n : {8, 3, 1, 8, 5}) {
    Guarded<float> x(n * 4), y(n * 4);
    Random random(7);
    fill_integers(x, random);
    x.read_only();
    const Status status = net.run(kBit(wl::kForward), n, x.data(), y.data());
    CHECK(bool(status), "%s", status.text);
    for (int64_t i = 0; i < n * 4; ++i) {
      const float z = x[i] * kWeights[i % 4] + kShift[i % 4];
      CHECK(y[i] == (z > 0 ? z : 0), "n %lld, element %lld: %g", (long long)n, (long long)i, double(y[i]));
    }
    CHECK(y.intact());
  }
  // forward, grad and update in one run: w -= lr * (x * w + b) of the first row
  Guarded<float> x(4), y(4);
  for (float& v : x) v = 1;
  wl::Scalar scalars[wl::kScalarSlots] = {};
  scalars[wl::kSlotFirstGroup].f = 0.5;
  CHECK(bool(net.run(kBit(wl::kForward) | kBit(wl::kGrad) | kBit(wl::kUpdate), 1, x.data(), y.data(), scalars)));
  for (int i = 0; i < 4; ++i) CHECK(net.params()[i] == kWeights[i] - 0.5f * (kWeights[i] + kShift[i]), "%g", double(net.params()[i]));
}

void test_bad_requests() {
  Net net(small_net());
  float x[32] = {}, y[32];
  CHECK(net.run(0, 1, x, y).code == wl::Code::invalid);
  CHECK(net.run(16, 1, x, y).code == wl::Code::invalid);
  CHECK(net.run(kBit(wl::kForward), 0, x, y).code == wl::Code::invalid);
  CHECK(net.run(kBit(wl::kForward), 9, x, y).code == wl::Code::invalid);
  CHECK(strstr(net.run(kBit(wl::kForward), 9, x, y).text, "planned for 1 to 8"));
  wl::Instance* instance = nullptr;
  wl::InstanceMemory memory = net.memory;
  memory.params = nullptr;
  Status status = wl::instance_create(*net.program, *wl::active_kernels(), 1, memory, &instance);
  CHECK(!status && strstr(status.text, "64 bytes of params"), "%s", status.text);
  memory = net.memory;
  memory.arena += 4;
  status = wl::instance_create(*net.program, *wl::active_kernels(), 1, memory, &instance);
  CHECK(!status && strstr(status.text, "multiple of 64"), "%s", status.text);
  CHECK(!wl::instance_create(*net.program, *wl::active_kernels(), 0, net.memory, &instance));
  CHECK(!wl::instance_create(*net.program, *wl::active_kernels(), 100000, net.memory, &instance));
}

// Two views of one input slot and an output at an offset of its slot.
void test_slot_views() {
  ProgramSpec p;
  p.batch = 4;
  const int x = p.tensor({"x", Buffer::input, slot_at(0), {4, 6}, true, DType::f32, {}});
  const int left = p.tensor({"left", Buffer::input, slot_at(0), {4, 3}, true, DType::f32, {6, 1}});
  const int right = p.tensor({"right", Buffer::input, slot_at(0, 12), {4, 3}, true, DType::f32, {6, 1}});
  const int y = p.tensor({"y", Buffer::output, slot_at(0), {4, 6}, true, DType::f32, {}});
  const int y_left = p.tensor({"", Buffer::output, slot_at(0), {4, 3}, true, DType::f32, {6, 1}});
  const int y_right = p.tensor({"", Buffer::output, slot_at(0, 12), {4, 3}, true, DType::f32, {6, 1}});
  p.inputs = {x};
  p.outputs = {y};
  p.steps.push_back({wl::kForward, Opcode::copy, {left}, {y_right}, {}, "a"});
  p.steps.push_back({wl::kForward, Opcode::copy, {right}, {y_left}, {}, "b"});
  Net net(p);
  Guarded<float> in(18), out(18);
  for (int i = 0; i < 18; ++i) in[i] = float(i);
  CHECK(bool(net.run(kBit(wl::kForward), 3, in.data(), out.data())));
  for (int i = 0; i < 18; ++i) CHECK(out[i] == in[i / 6 * 6 + (i + 3) % 6]);
  CHECK(out.intact());
}

void test_stop() {
  Net net(small_net());
  memcpy(net.params(), kWeights, sizeof kWeights);
  net.run(kBit(wl::kPrepare), 0, nullptr, nullptr);
  float x[4] = {1, 1, 1, 1}, y[4];
  const void* inputs[] = {x};
  void* outputs[] = {y};
  struct Countdown {
    int left, asked;
  };
  const unsigned all = kBit(wl::kForward) | kBit(wl::kGrad) | kBit(wl::kUpdate);
  wl::Scalar scalars[wl::kScalarSlots] = {};
  scalars[wl::kSlotFirstGroup].f = 1;
  const auto run = [&](int stop_at, int* asked) {
    Countdown countdown{stop_at, 0};
    wl::RunRequest request;
    request.entries = all;
    request.n = 1;
    request.inputs = inputs;
    request.outputs = outputs;
    request.scalars = scalars;
    request.stop = [](void* c) {
      auto* countdown = static_cast<Countdown*>(c);
      ++countdown->asked;
      return countdown->left-- == 0;
    };
    request.stop_context = &countdown;
    const Status status = wl::instance_run(net.instance, request);
    *asked = countdown.asked;
    return status;
  };
  int asked;
  for (int stop_at = 0; stop_at < 5; ++stop_at) {  // before any of the three forward steps, the grad step or the update
    const Status status = run(stop_at, &asked);
    CHECK(status.code == wl::Code::interrupted && asked == stop_at + 1);
    CHECK(memcmp(net.params(), kWeights, sizeof kWeights) == 0, "a stopped step must not update");
  }
  CHECK(bool(run(100, &asked)) && asked == 5);
  CHECK(memcmp(net.params(), kWeights, sizeof kWeights) != 0);
}

void test_profile() {
  Net net(small_net());
  float x[4] = {}, y[4];
  const void* inputs[] = {x};
  void* outputs[] = {y};
  double seconds[6] = {};
  wl::RunRequest request;
  request.entries = kBit(wl::kForward);
  request.n = 1;
  request.inputs = inputs;
  request.outputs = outputs;
  request.step_seconds = seconds;
  for (int i = 0; i < 100; ++i) CHECK(bool(wl::instance_run(net.instance, request)));
  CHECK(seconds[0] == 0 && seconds[1] > 0 && seconds[2] > 0 && seconds[3] > 0 && seconds[4] == 0 && seconds[5] == 0);
}

// Denormals count as zero inside, whatever the caller had set, and the caller's mode is as before.
void test_float_mode() {
#if defined(__x86_64__)
  Net net(small_net());
  memcpy(net.params(), kWeights, sizeof kWeights);
  net.run(kBit(wl::kPrepare), 0, nullptr, nullptr);
  for (unsigned mode : {0x1f80u, 0x1f80u | 0x8040u, 0x1f80u | 0x6000u /* towards zero */}) {
    _mm_setcsr(mode);
    float x[4] = {1e-39f, 0, 0, 0}, y[4] = {};
    CHECK(bool(net.run(kBit(wl::kForward), 1, x, y)));
    CHECK((_mm_getcsr() & ~0x3fu) == mode, "the mode became %#x", _mm_getcsr());
    CHECK(y[0] == 0.5f);
    _mm_setcsr(0x1f80);
  }
#endif
}

void test_two_threads_two_instances() {
  const int rows = 64;
  const auto train = [&](Net* net) {
    memcpy(net->params(), kWeights, sizeof kWeights);
    std::vector<float> x(rows * 4), y(rows * 4);
    wl::Scalar scalars[wl::kScalarSlots] = {};
    scalars[wl::kSlotFirstGroup].f = 0.01;
    for (int step = 0; step < 300; ++step) {
      for (size_t i = 0; i < x.size(); ++i) x[i] = float((step + int(i)) % 7) / 8;
      net->run(15, rows, x.data(), y.data(), scalars);
    }
  };
  Net alone(small_net(rows), 2), a(small_net(rows), 2), b(small_net(rows), 2);
  train(&alone);
  std::thread other(train, &a);
  train(&b);
  other.join();
  CHECK(memcmp(alone.params(), a.params(), 16) == 0 && memcmp(alone.params(), b.params(), 16) == 0);
}

void test_no_allocation() {
  if (!WL_COUNTS) return;
  const int rows = 4096;  // enough for a parallel region
  Net net(small_net(rows), 2);
  std::vector<float> x(rows * 4), y(rows * 4);
  wl::Scalar scalars[wl::kScalarSlots] = {};
  net.run(15, rows, x.data(), y.data(), scalars);
  usleep(100000);  // the workers come into being, and they do so when they are scheduled
  net.run(15, rows, x.data(), y.data(), scalars);
  const long before = allocations;
  for (int step = 2; step < 50; ++step) net.run(15, step % 2 ? rows : rows / 2, x.data(), y.data(), scalars);
  CHECK(allocations == before, "%ld allocations in 48 runs", allocations - before);
}

void test_memory() {
  for (size_t bytes : {size_t(0), size_t(1), size_t(64), size_t(100000), size_t(5) << 20, (size_t(9) << 20) + 13}) {
    char* block = wl::memory_alloc(bytes);
    CHECK(block && uintptr_t(block) % (bytes >= size_t(4) << 20 ? size_t(2) << 20 : 64) == 0);
    bool zero = true;
    for (size_t i = 0; i < bytes; ++i) zero = zero && block[i] == 0;
    CHECK(zero);
    memset(block, 1, bytes);
    wl::memory_free(block, bytes);
  }
  CHECK(wl::memory_alloc(SIZE_MAX / 2) == nullptr);
  CHECK(wl::memory_alloc(size_t(1) << 55) == nullptr);
}

}  // namespace

int main() {
  test_entries_and_batches();
  test_bad_requests();
  test_slot_views();
  test_stop();
  test_profile();
  test_float_mode();
  test_two_threads_two_instances();
  test_no_allocation();
  test_memory();
  return finish();
}
