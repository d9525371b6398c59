// What every C++ test uses: checks that count and go on, guarded buffers, repeatable fills, case files, one op run as a step.
// A test file is a plain main() that ends in `return harness::finish();`.
#pragma once
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fstream>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/float_mode.h"
#include "ops/op.h"

namespace harness {

// --- checks -------------------------------------------------------------------------------------------------------------------------
inline int& failures() {
  static int count = 0;
  return count;
}
inline long& checks() {
  static long count = 0;
  return count;
}

// Prints at most 50 failures.
__attribute__((format(printf, 4, 5))) inline void report(const char* file, int line, const char* condition, const char* format = nullptr,
                                                         ...) {
  if (++failures() > 50) return;
  printf("%s:%d: %s failed%s", file, line, condition, format ? ": " : "");
  if (format) {
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
  }
  printf("\n");
}

// Counts; on failure prints place, condition and the text (printf's form, may be left out), and the test goes on.
#define CHECK(cond, ...)                                                    \
  do {                                                                      \
    ++harness::checks();                                                    \
    if (!(cond)) harness::report(__FILE__, __LINE__, #cond, ##__VA_ARGS__); \
  } while (0)

inline int finish() {
  printf("%ld checks, %d failures\n", checks(), failures());
  return failures() != 0;
}

// --- memory with guards -----------------------------------------------------------------------------------------------------------------
// `count` elements that end right before an unreadable page (or, where `align` asks for more than the element's own alignment, at most
// align - 1 bytes before it); bytes between the last readable page's start and the first element are canaries that check() looks at.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t count, size_t align = alignof(T)) : count_(count) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = (size_t)count * sizeof(T);
    const size_t used = wl::round_up(bytes, align);
    inner_ = wl::round_up(used + 64, page);
    map_ = (char*)mmap(nullptr, inner_ + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map_ == MAP_FAILED || mprotect(map_ + page, inner_, PROT_READ | PROT_WRITE)) abort();
    begin_ = map_ + page;
    data_ = begin_ + inner_ - used;
    page_ = page;
    memset(begin_, kCanary, inner_);
    memset(data_, 0, bytes);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(map_, inner_ + 2 * page_); }

  T* data() { return (T*)data_; }
  const T* data() const { return (const T*)data_; }
  int64_t size() const { return count_; }
  T& operator[](int64_t i) { return data()[i]; }
  const T& operator[](int64_t i) const { return data()[i]; }
  T* begin() { return data(); }
  T* end() { return data() + count_; }

  // Nothing was written outside the elements.
  bool intact() const {
    for (const char* p = begin_; p < data_; ++p)
      if (*p != kCanary) return false;
    for (const char* p = data_ + count_ * (int64_t)sizeof(T); p < begin_ + inner_; ++p)
      if (*p != kCanary) return false;
    return true;
  }
  void read_only() { mprotect(map_ + page_, inner_, PROT_READ); }

 private:
  static constexpr char kCanary = 0x5a;
  int64_t count_;
  size_t inner_ = 0, page_ = 0;
  char *map_ = nullptr, *begin_ = nullptr, *data_ = nullptr;
};

// --- fills ------------------------------------------------------------------------------------------------------------------------------
// A small repeatable generator (SplitMix64, Steele et al. 2014).
struct Random {
  uint64_t state;
  explicit Random(uint64_t seed = 1) : state(seed) {}
  uint64_t next() {
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int64_t integer(int64_t low, int64_t high) { return low + (int64_t)(next() % (uint64_t)(high - low + 1)); }  // both ends included
  float real() { return (float)((double)(next() >> 11) * 0x1p-52 - 1.0); }                                     // [-1, 1)
};

// Integers in [-range, range]: sums of products stay exact in float32, so results must agree to the bit.
template <class Buffer>
void fill_integers(Buffer& b, Random& random, int range = 3) {
  for (auto& v : b) v = (float)random.integer(-range, range);
}
template <class Buffer>
void fill_reals(Buffer& b, Random& random) {
  for (auto& v : b) v = random.real();
}

// --- kernels of this machine
// --------------------------------------------------------------------------------------------------------------
template <class Body>
void for_each_kernels(Body body) {
  for (const wl::Kernels* const* k = wl::runnable_kernels(); *k; ++k) body(**k);
}

// --- case files
// --------------------------------------------------------------------------------------------------------------------------- A line of
// tests/cases/*.txt: words of letters each followed by an integer ("ih7" "pad_top2"), with or without spaces between.
struct Case {
  std::string text;
  std::map<std::string, int64_t> values;
  int64_t get(const char* key, int64_t otherwise) const {
    auto found = values.find(key);
    return found == values.end() ? otherwise : found->second;
  }
  int64_t operator[](const char* key) const {
    auto found = values.find(key);
    if (found == values.end()) {
      printf("case '%s' has no %s\n", text.c_str(), key);
      exit(2);
    }
    return found->second;
  }
};

inline Case parse_case(const std::string& line) {
  Case c;
  c.text = line;
  const char* p = line.c_str();
  while (*p) {
    std::string key;
    while (*p == ' ') ++p;
    while (*p && *p != ' ' && *p != '-' && (*p < '0' || *p > '9')) key += *p++;
    char* end = nullptr;
    const int64_t value = strtoll(p, &end, 10);
    if (end == p) break;
    c.values[key] = value;
    p = end;
  }
  return c;
}

// The lines of tests/cases/<name> that are neither empty nor comments (#); what follows a # in a line is dropped.
inline std::vector<Case> read_cases(const char* name) {
  std::vector<Case> cases;
  std::ifstream file(std::string(WL_CASES_DIR "/") + name);
  if (!file) {
    printf("cannot read %s/%s\n", WL_CASES_DIR, name);
    exit(2);
  }
  for (std::string line; std::getline(file, line);) {
    line = line.substr(0, line.find('#'));
    while (!line.empty() && line.back() == ' ') line.pop_back();
    if (!line.empty()) cases.push_back(parse_case(line));
  }
  return cases;
}

// --- one op as a step
// ----------------------------------------------------------------------------------------------------------------------- A dense
// descriptor over `data`; set strides after for views.
inline wl::Tensor tensor(const void* data, std::initializer_list<int64_t> dims, wl::DType dtype = wl::DType::f32) {
  wl::Tensor t;
  t.data = (char*)data;
  t.dtype = dtype;
  t.rank = (uint8_t)dims.size();
  int i = 0;
  for (int64_t d : dims) t.dims[i++] = d;
  int64_t stride = 1;
  for (int a = t.rank - 1; a >= 0; --a) t.strides[a] = stride, stride *= t.dims[a];
  return t;
}

// Builds a step, verifies it, asks for its scratch and runs it. Operands given as null are absent. Keep the tensors alive.
class OpRun {
 public:
  OpRun(wl::Opcode opcode, std::initializer_list<const wl::Tensor*> in, std::initializer_list<const wl::Tensor*> out) {
    step.opcode = opcode;
    step.path = "test";
    for (const wl::Tensor* t : in) step.in[step.n_in++] = t;
    for (const wl::Tensor* t : out) step.out[step.n_out++] = t;
  }
  OpRun& attr(wl::AttrKey key, int64_t value) {
    wl::Attr& a = step.attrs[step.n_attr++];
    a.key = key, a.real = false, a.i = value;
    return *this;
  }
  OpRun& attr(wl::AttrKey key, double value) {
    wl::Attr& a = step.attrs[step.n_attr++];
    a.key = key, a.real = true, a.f = value;
    return *this;
  }
  OpRun& attr(wl::AttrKey key, int value) { return attr(key, (int64_t)value); }

  const wl::Op& op() const { return *wl::find_op((uint16_t)step.opcode); }
  wl::Status verify() const { return op().verify(step); }
  wl::Choice choose(const wl::Kernels& kernels, int threads = 1) const {
    wl::Choice choice;
    if (op().choose) op().choose(step, kernels, threads, &choice);
    return choice;
  }
  // Verifies and runs with a guarded workspace of exactly the size that was asked for (or `planned` bytes, which must be enough). Returns
  // false, with a failed check, when the verifier refuses.
  bool run(const wl::Kernels& kernels, int threads = 1, const wl::Scalar* scalars = nullptr, int64_t planned = -1) const {
    const wl::Status status = verify();
    CHECK(bool(status), "%s", status.text);
    if (!status) return false;
    const int64_t asked = choose(kernels, threads).workspace;
    CHECK(planned < 0 || asked <= planned, "asks for %ld bytes, more than the %ld of the planned batch", (long)asked, (long)planned);
    Guarded<char> workspace(planned < asked ? asked : planned, wl::kCacheLine);
    const wl::FloatMode mode;  // denormals are flushed on this thread as they are in the workers
    wl::Run r;
    r.kernels = &kernels, r.threads = threads, r.workspace = workspace.data(), r.scalars = scalars;
    op().run(step, r);
    CHECK(workspace.intact(), "workspace overrun (%s)", kernels.isa);
    return true;
  }

  wl::Step step;
};

}  // namespace harness
