#include "runtime/probe.h"

#include <atomic>

#include "base/clock.h"
#include "base/float_mode.h"
#include "kernels/brgemm/brgemm.h"
#include "kernels/probe/probe.h"
#include "ops/op.h"
#include "runtime/threads.h"

namespace wl {
namespace {

constexpr double kAlways = 1e9;  // nanoseconds: worth every thread
constexpr int64_t kTasksPerThread = 16;

constexpr int64_t kRows = 48, kTerms = 256;  // of a product
int64_t product_columns(const Kernels& kernels) {
  return 2 * kernels.brgemm->width;
}

// What the kernels computed goes here, so that no compiler finds them useless.
std::atomic<float> sink;

struct Rounds {
  double least = 1e30, total = 0;  // seconds
  int64_t count = 0;
};

// The seconds that body() takes, tried for `seconds` after one round that wakes the threads and touches the memory.
template <class Body>
Rounds rounds_of(int threads, double seconds, Body body) {
  struct Work {
    Body* body;
    double seconds;
    Rounds rounds;
  } work{&body, seconds, {}};
  with_threads(
      threads,
      [](void* w) {
        auto& work = *static_cast<Work*>(w);
        const FloatMode mode;
        (*work.body)();
        const double end = seconds_now() + work.seconds;
        for (double start = seconds_now(); start < end;) {
          (*work.body)();
          const double now = seconds_now();
          const double spent = now - start;
          if (spent < work.rounds.least) work.rounds.least = spent;
          work.rounds.total += spent;
          ++work.rounds.count;
          start = now;
        }
      },
      &work);
  return work.rounds;
}

}  // namespace

double probe_flops(const Kernels& kernels, int threads, double seconds) {
  constexpr int64_t kRounds = 1 << 13;
  Run run;
  run.threads = threads;
  const int64_t tasks = threads * kTasksPerThread;
  const Rounds rounds = rounds_of(threads, seconds, [&] {
    parallel_for(run, tasks, kAlways,
                 [&](int64_t, int) { sink.store(kernels.probe->multiply_adds(kRounds, 0.999f, 1e-6f), std::memory_order_relaxed); });
  });
  return 2.0 * double(kernels.probe->chains) * kernels.lanes * double(kRounds) * double(tasks) / rounds.least;
}

int64_t probe_products_floats(const Kernels& kernels, int threads) {
  const int64_t columns = product_columns(kernels);
  return threads * (kRows * kTerms + kTerms * columns + kRows * columns);
}

double probe_products(const Kernels& kernels, int threads, double seconds, float* memory) {
  const BrgemmKernels& brgemm = *kernels.brgemm;
  const int64_t columns = product_columns(kernels), floats = probe_products_floats(kernels, 1);
  Run run;
  run.threads = threads;
  const int64_t tasks = threads * kTasksPerThread;
  const Rounds rounds = rounds_of(threads, seconds, [&] {
    parallel_for(run, tasks, kAlways, [&](int64_t, int thread) {
      float *a = memory + thread * floats, *b = a + kRows * kTerms, *c = b + kTerms * columns;
      const float* a_rows[kRows];
      float* c_rows[kRows];
      for (int64_t r = 0; r < kRows; ++r) a_rows[r] = a + r * kTerms, c_rows[r] = c + r * columns;
      BrgemmArgs product;
      product.m = product.a_rows = kRows, product.n = columns, product.k = kTerms;
      product.a = a_rows;
      product.b = b, product.b_stride = brgemm.width, product.b_panel = kTerms * brgemm.width;
      product.out.c = c_rows;
      brgemm.run(product);
    });
  });
  return 2.0 * double(kRows * columns * kTerms) * double(tasks) * double(rounds.count) / rounds.total;
}

double probe_bytes(const Kernels& kernels, int threads, double seconds, int64_t count, const float* from, float* to) {
  Run run;
  run.threads = threads;
  const int64_t tasks = threads * kTasksPerThread;
  const Rounds rounds = rounds_of(threads, seconds, [&] {
    parallel_for(run, tasks, kAlways, [&](int64_t task, int) {
      const Range part = piece(count, tasks, task);
      if (to)
        kernels.probe->copy(part.size(), from + part.begin, to + part.begin);
      else
        sink.store(kernels.probe->read(part.size(), from + part.begin), std::memory_order_relaxed);
    });
  });
  return double(count) * sizeof(float) * (to ? 2.0 : 1.0) / rounds.least;
}

}  // namespace wl
