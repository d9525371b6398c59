// The thread layer, and the one file that names OpenMP. Without OpenMP a region starts plain threads.
#include "runtime/threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <new>

#include "base/cpu_quota.h"
#include "base/float_mode.h"
#include "ops/op.h"

// libgomp is unknown to ThreadSanitizer, which would report its barriers as races.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif
#if defined(_OPENMP) && !defined(__SANITIZE_THREAD__)
#define WL_USE_OPENMP 1
#include <omp.h>
#else
#define WL_USE_OPENMP 0
#endif

namespace wl {
namespace {

// ---- a parallel region -------------------------------------------------------------------------------------------------------------

struct Loop {
  void (*call)(void*, int64_t, int);
  void* body;
  int64_t tasks, chunk;
  std::atomic<int64_t> next{0};
};

// What each thread of a region does: takes the next tasks until none is left.
void drain(Loop& loop, int thread) {
  const FloatMode mode;
  for (;;) {
    const int64_t begin = loop.next.fetch_add(loop.chunk, std::memory_order_relaxed);
    if (begin >= loop.tasks) return;
    const int64_t end = min_of(begin + loop.chunk, loop.tasks);
    for (int64_t task = begin; task < end; ++task) loop.call(loop.body, task, thread);
  }
}

#if WL_USE_OPENMP
void run_team(Loop& loop, int team) {
#pragma omp parallel num_threads(team)
  drain(loop, omp_get_thread_num());
}
#else
struct Member {
  Loop* loop;
  int thread;
};
void* member_main(void* argument) {
  const auto* member = static_cast<const Member*>(argument);
  drain(*member->loop, member->thread);
  return nullptr;
}
void run_team(Loop& loop, int team) {
  constexpr int kMaxTeam = 64;
  pthread_t threads[kMaxTeam];
  Member members[kMaxTeam];
  int started = 0;
  for (int t = 1; t < team && started < kMaxTeam; ++t) {
    members[started] = {&loop, t};
    if (pthread_create(&threads[started], nullptr, member_main, &members[started]) != 0) break;
    ++started;
  }
  drain(loop, 0);
  for (int t = 0; t < started; ++t) pthread_join(threads[t], nullptr);
}
#endif

// ---- fork ---------------------------------------------------------------------------------------------------------------------------

// Runs one piece of work at a time on a thread of its own, for the thread that survived a fork: libgomp believes that this one
// still has its workers and would wait for them for ever. A fresh thread gets a fresh team.
struct Host {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
  bool running = false;  // the thread exists
  void (*work)(void*) = nullptr;
  void* context = nullptr;
};

struct Process {
  std::atomic<int> runs{0};   // with_threads bodies under way
  std::atomic<int> forks{0};  // between the first process and this one
  pthread_t survivor{};
  Host host;
};
Process process;

void* host_main(void*) {
  Host& host = process.host;
  pthread_mutex_lock(&host.mutex);
  for (;;) {
    while (!host.work) pthread_cond_wait(&host.changed, &host.mutex);
    pthread_mutex_unlock(&host.mutex);
    host.work(host.context);
    pthread_mutex_lock(&host.mutex);
    host.work = nullptr;
    pthread_cond_broadcast(&host.changed);
  }
}

// False when there is no thread to be had.
bool run_on_host(void (*work)(void*), void* context, void (*waiting)(void*)) {
  Host& host = process.host;
  pthread_mutex_lock(&host.mutex);
  if (!host.running) {
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_t thread;
    host.running = pthread_create(&thread, &detached, host_main, nullptr) == 0;
    pthread_attr_destroy(&detached);
  }
  if (!host.running) {
    pthread_mutex_unlock(&host.mutex);
    return false;
  }
  host.context = context;
  host.work = work;
  pthread_cond_broadcast(&host.changed);
  while (host.work) {
    timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 50 * 1000 * 1000;
    if (until.tv_nsec >= 1000 * 1000 * 1000) until.tv_sec += 1, until.tv_nsec -= 1000 * 1000 * 1000;
    pthread_cond_timedwait(&host.changed, &host.mutex, &until);
    if (host.work && waiting) {
      pthread_mutex_unlock(&host.mutex);
      waiting(context);
      pthread_mutex_lock(&host.mutex);
    }
  }
  pthread_mutex_unlock(&host.mutex);
  return true;
}

void after_fork_in_child() {
  process.survivor = pthread_self();
  ++process.forks;
  process.runs = 0;
  new (&process.host) Host;  // its thread stayed behind in the parent
}

// True on the thread whose libgomp team was lost in a fork.
bool team_is_lost() {
  return fork_generation() > 0 && pthread_equal(process.survivor, pthread_self());
}

}  // namespace

int fork_generation() {
  return process.forks.load(std::memory_order_relaxed);
}

void watch_forks() {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, [] { pthread_atfork(nullptr, nullptr, after_fork_in_child); });
}

int default_threads() {
  if (const char* text = getenv("OMP_NUM_THREADS")) {  // "4" or "4,2"
    const long wish = strtol(text, nullptr, 10);
    if (wish >= 1 && wish <= kMaxThreads) return int(wish);
  }
  int threads = int(sysconf(_SC_NPROCESSORS_ONLN));
  cpu_set_t set;  // fails on machines with more than 1024 processors
  if (sched_getaffinity(0, sizeof set, &set) == 0) threads = CPU_COUNT(&set);
  const double quota = cpu_quota("/proc/self/cgroup", "/sys/fs/cgroup");
  const int granted = int(quota) + (quota > int(quota));
  if (quota > 0 && granted < threads) threads = granted;
  return threads < 1 ? 1 : threads > kMaxThreads ? kMaxThreads : threads;
}

void with_threads(void (*work)(void*), void* context, void (*waiting)(void*)) {
  process.runs.fetch_add(1, std::memory_order_relaxed);
  if (!team_is_lost() || !run_on_host(work, context, waiting)) work(context);
  process.runs.fetch_sub(1, std::memory_order_relaxed);
}

void parallel_for_impl(int threads, int64_t tasks, void (*call)(void*, int64_t, int), void* body) {
  const int runs = process.runs.load(std::memory_order_relaxed);
  if (runs > 1) threads = int(max_of(threads / runs, 1));  // models that run at the same time share the processors
  const int team = int(min_of(threads, tasks));
  if (team <= 1 || team_is_lost()) {
    for (int64_t task = 0; task < tasks; ++task) call(body, task, 0);
    return;
  }
  Loop loop{call, body, tasks, max_of(tasks / (team * 16), 1)};
  run_team(loop, team);
}

}  // namespace wl
