#include "runtime/probe.h"

#include <atomic>

#include "base/clock.h"
#include "base/float_mode.h"
#include "kernels/probe/probe.h"
#include "ops/op.h"
#include "runtime/threads.h"

namespace wl {
namespace {

constexpr double kAlways = 1e9;  // nanoseconds: worth every thread
constexpr int64_t kTasksPerThread = 16;

// What the kernels computed goes here, so that no compiler finds them useless.
std::atomic<float> sink;

// The least seconds that body() takes, tried for `seconds` after one round that wakes the threads and touches the memory.
template <class Body>
double least_seconds(int threads, double seconds, Body body) {
  struct Work {
    Body* body;
    double seconds, least;
  } work{&body, seconds, 1e30};
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
          if (now - start < work.least) work.least = now - start;
          start = now;
        }
      },
      &work);
  return work.least;
}

}  // namespace

double probe_flops(const Kernels& kernels, int threads, double seconds) {
  constexpr int64_t kRounds = 1 << 13;
  Run run;
  run.threads = threads;
  const int64_t tasks = threads * kTasksPerThread;
  const double least = least_seconds(threads, seconds, [&] {
    parallel_for(run, tasks, kAlways,
                 [&](int64_t, int) { sink.store(kernels.probe->multiply_adds(kRounds, 0.999f, 1e-6f), std::memory_order_relaxed); });
  });
  return 2.0 * double(kernels.probe->chains) * kernels.lanes * double(kRounds) * double(tasks) / least;
}

double probe_bytes(const Kernels& kernels, int threads, double seconds, int64_t count, const float* from, float* to) {
  Run run;
  run.threads = threads;
  const int64_t tasks = threads * kTasksPerThread;
  const double least = least_seconds(threads, seconds, [&] {
    parallel_for(run, tasks, kAlways, [&](int64_t task, int) {
      const Range part = piece(count, tasks, task);
      if (to)
        kernels.probe->copy(part.size(), from + part.begin, to + part.begin);
      else
        sink.store(kernels.probe->read(part.size(), from + part.begin), std::memory_order_relaxed);
    });
  });
  return double(count) * sizeof(float) * (to ? 2.0 : 1.0) / least;
}

}  // namespace wl
