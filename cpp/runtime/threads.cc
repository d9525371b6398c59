// The thread layer, and the one file that names OpenMP. Without OpenMP a team starts plain threads.
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

// ---- a team ------------------------------------------------------------------------------------------------------------------------
//
// A run opens one region for all its loops. Thread 0 runs the steps; the others wait for loops, take tasks while there are any, and wait
// again. Thread 0 takes tasks too and waits at the end of a loop only for those who are at a task: a thread that the system has not
// scheduled delays nobody, so a busy machine costs no more than the processors that it withholds.

constexpr int kSpins = 1000;  // rounds of waiting with a pause, some ten microseconds, before the processor is offered to others

void pause_once(int spins) {
  if (spins > kSpins) {
    sched_yield();
    return;
  }
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

struct Team {
  static constexpr int kClosed = 1 << 30;
  static constexpr uint64_t kOver = ~uint64_t(0);

  int threads = 1;
  bool asked = false;  // some loop wanted more than one thread
  void (*call)(void*, int64_t, int) = nullptr;
  void* body = nullptr;
  int64_t tasks = 0, chunk = 1;
  alignas(kCacheLine) std::atomic<uint64_t> round{0};  // loops so far, or kOver
  alignas(kCacheLine) std::atomic<int> gate{kClosed};  // threads at the loop, plus kClosed while there is none to enter
  alignas(kCacheLine) std::atomic<int64_t> next{0};
};

// Where this thread stands: the team whose thread 0 it is, if any, and whether it is at a task (loops inside tasks run on one thread).
struct Here {
  Team* team = nullptr;
  bool at_task = false;
};
thread_local Here here;

void take_tasks(Team& team, int thread) {
  for (;;) {
    const int64_t begin = team.next.fetch_add(team.chunk, std::memory_order_relaxed);
    if (begin >= team.tasks) return;
    const int64_t end = min_of(begin + team.chunk, team.tasks);
    for (int64_t task = begin; task < end; ++task) team.call(team.body, task, thread);
  }
}

// The life of the threads but the first.
void serve(Team& team, int thread) {
  const FloatMode mode;
  const Here before = here;
  here = {nullptr, true};
  for (uint64_t seen = 0;;) {
    uint64_t round;
    for (int spins = 0; (round = team.round.load(std::memory_order_acquire)) == seen; ++spins) pause_once(spins);
    if (round == Team::kOver) break;
    seen = round;
    // Who finds the gate closed leaves without a look at the loop, which thread 0 may be changing.
    if (!(team.gate.fetch_add(1, std::memory_order_acquire) & Team::kClosed)) take_tasks(team, thread);
    team.gate.fetch_sub(1, std::memory_order_release);
  }
  here = before;
}

// Thread 0 hands a loop to the team and takes part.
void share(Team& team, int64_t tasks, void (*call)(void*, int64_t, int), void* body) {
  team.call = call, team.body = body, team.tasks = tasks, team.chunk = max_of(tasks / (team.threads * 16), 1);
  team.next.store(0, std::memory_order_relaxed);
  team.gate.fetch_and(~Team::kClosed, std::memory_order_release);
  team.round.fetch_add(1, std::memory_order_release);
  here.at_task = true;
  {
    const FloatMode mode;
    take_tasks(team, 0);
  }
  here.at_task = false;
  team.gate.fetch_or(Team::kClosed, std::memory_order_acq_rel);
  for (int spins = 0; team.gate.load(std::memory_order_acquire) != Team::kClosed; ++spins) pause_once(spins);
}

void lead(Team& team, void (*work)(void*), void* context) {
  const Here before = here;
  here = {&team, false};
  work(context);
  here = before;
  team.round.store(Team::kOver, std::memory_order_release);
}

#if WL_USE_OPENMP
void open_region(Team& team, void (*work)(void*), void* context) {
#pragma omp parallel num_threads(team.threads)
  if (omp_get_thread_num() == 0)
    lead(team, work, context);
  else
    serve(team, omp_get_thread_num());
}
#else
struct Member {
  Team* team;
  int thread;
};
void* member_main(void* argument) {
  const auto* member = static_cast<const Member*>(argument);
  serve(*member->team, member->thread);
  return nullptr;
}
void open_region(Team& team, void (*work)(void*), void* context) {
  constexpr int kMaxTeam = 64;
  pthread_t threads[kMaxTeam];
  Member members[kMaxTeam];
  int started = 0;
  for (int t = 1; t < team.threads && started < kMaxTeam; ++t) {
    members[started] = {&team, t};
    if (pthread_create(&threads[started], nullptr, member_main, &members[started]) != 0) break;
    ++started;
  }
  lead(team, work, context);
  for (int t = 0; t < started; ++t) pthread_join(threads[t], nullptr);
}
#endif

// Runs work(context) as thread 0 of a team; returns whether a loop in it asked for more threads than one.
bool run_team(int threads, void (*work)(void*), void* context) {
  Team team;
  team.threads = threads;
  if (threads > 1)
    open_region(team, work, context);
  else
    lead(team, work, context);
  return team.asked;
}

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

bool with_threads(int threads, void (*work)(void*), void* context, void (*waiting)(void*)) {
  struct Request {
    int threads;
    void (*work)(void*);
    void* context;
    void (*waiting)(void*);
    bool asked;
  } request{threads, work, context, waiting, false};
  const int runs = process.runs.fetch_add(1, std::memory_order_relaxed) + 1;
  request.threads = int(max_of(threads / runs, 1));  // models that run at the same time share the processors
  const auto run = [](void* r) {
    auto& request = *static_cast<Request*>(r);
    request.asked = run_team(request.threads, request.work, request.context);
  };
  const auto wait = [](void* r) {
    const auto& request = *static_cast<Request*>(r);
    if (request.waiting) request.waiting(request.context);
  };
  if (!team_is_lost() || !run_on_host(run, &request, wait)) {
    if (team_is_lost()) request.threads = 1;
    run(&request);
  }
  process.runs.fetch_sub(1, std::memory_order_relaxed);
  return request.asked;
}

void parallel_for_impl(int threads, int64_t tasks, void (*call)(void*, int64_t, int), void* body) {
  if (!here.at_task && here.team) {
    here.team->asked = true;
    if (here.team->threads > 1) return share(*here.team, tasks, call, body);
  }
  if (here.at_task || here.team || threads <= 1) {
    for (int64_t task = 0; task < tasks; ++task) call(body, task, 0);
    return;
  }
  // A loop outside of any run: a team for it alone.
  struct Loop {
    int threads;
    int64_t tasks;
    void (*call)(void*, int64_t, int);
    void* body;
  } loop{threads, tasks, call, body};
  with_threads(
      threads,
      [](void* l) {
        const auto& loop = *static_cast<Loop*>(l);
        parallel_for_impl(loop.threads, loop.tasks, loop.call, loop.body);
      },
      &loop);
}

}  // namespace wl
