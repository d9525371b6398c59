// The thread layer, and the one file that names OpenMP.
//
// A process has one crew of workers, called into being by the first run that wants them and kept: the threads of an OpenMP region that a
// thread of ours opens and does not leave. So OMP_PROC_BIND, OMP_PLACES and OMP_STACKSIZE mean what they say, and a run opens and closes
// nothing. Without OpenMP plain threads take their place.
//
// A run leads a team: thread 0 runs the steps and posts its loops there, a share of neighbouring tasks for each thread. So a thread finds
// in its cache what it wrote in the loop before, while tasks follow the same pictures and rows. Who is done with a share takes from the
// ends of the others', and thread 0 waits at the end of a loop only for chunks that others have begun. So a thread that the system has not
// scheduled delays nobody, and a busy machine costs no more than the processors that it withholds. Teams outlive their runs: a late worker
// finds nothing left and goes.
#include "runtime/threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <new>

#include "base/align.h"
#include "base/clock.h"
#include "base/cpu_quota.h"
#include "base/float_mode.h"
#include "base/parking.h"
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

// Rounds of waiting with a pause before a thread offers its processor to others. A worker that waits for a loop does so after some
// tens of microseconds. Thread 0 waits for a chunk of a loop, mostly a short one: some half a millisecond, then its worker has lost its
// processor.
constexpr int kWorkerSpins = 1000, kLeaderSpins = 10000;
constexpr double kWorthwhile = 1e5;    // nanoseconds of loops for threads: a run with less is as quick alone
constexpr double kIdleSeconds = 5e-4;  // a worker that has found nothing to do for so long sleeps

void pause_once(bool offer) {
  if (offer) {
    sched_yield();
    return;
  }
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// ---- a team ------------------------------------------------------------------------------------------------------------------------

// The chunks [begin, end) of a loop that one thread is due and nobody has begun, in one word with the loop's number: a chunk is begun by a
// compare-and-exchange, so only in the very loop that was seen.
class Share {
 public:
  static constexpr int64_t kMostChunks = (1 << 16) - 1;

  void post(uint32_t loop, const Range& chunks) {
    word_.store(uint64_t(loop) << 32 | uint64_t(chunks.begin) << 16 | uint64_t(chunks.end), std::memory_order_release);
  }
  void close() { word_ = 0; }
  uint64_t look() const { return word_.load(std::memory_order_acquire); }
  static bool any(uint64_t seen) { return first(seen) != end(seen); }

  // Begins a chunk, the first or the last, if the share is as it was seen; else nothing (-1), and `seen` is what it is now.
  enum End { kFirst, kLast };
  int64_t begin(uint64_t& seen, End which) {
    const uint64_t rest = which == kFirst ? seen + (1 << 16) : seen - 1;
    if (!any(seen) || !word_.compare_exchange_weak(seen, rest, std::memory_order_acq_rel)) return -1;
    return which == kFirst ? first(seen) : end(seen) - 1;
  }

 private:
  static int64_t first(uint64_t seen) { return int64_t(seen >> 16 & 0xffff); }
  static int64_t end(uint64_t seen) { return int64_t(seen & 0xffff); }

  alignas(kCacheLine) std::atomic<uint64_t> word_{0};
};

struct Team {
  static_assert(32 * kMaxThreads <= Share::kMostChunks, "chunks of a loop");

  std::atomic<bool> led{false};
  // The loop. Only who holds a chunk of it may look: then thread 0 waits.
  void (*call)(void*, int64_t, int) = nullptr;
  void* body = nullptr;
  int64_t tasks = 0, chunk = 0;
  std::atomic<uint32_t> loop{0};                           // its number, known when all shares are posted
  std::atomic<uint64_t> seats{0};                          // which workers may take part: seat_of()
  alignas(kCacheLine) std::atomic<int64_t> unfinished{0};  // chunks
  Share share[kMaxThreads];                                // by thread
};

constexpr int kMaxTeams = 64;  // runs at the same time that can have workers

// The thread number that worker 1…workers has in a team's loops, 1…workers, or 0 where the team has fewer threads. Without other runs it is
// the worker's own, so that its part of the workspace stays in its cache; teams of several runs begin at different workers.
uint64_t pack_seats(int first, int threads) {
  return uint64_t(first) << 32 | uint64_t(threads);
}
int threads_of(uint64_t seats) {
  return int(seats & 0xffffffff);
}
int seat_of(uint64_t seats, int worker, int workers) {
  const int first = int(seats >> 32) % workers;
  const int seat = 1 + (worker - 1 + workers - first) % workers;
  return seat < threads_of(seats) ? seat : 0;
}

struct Crew {
  std::atomic<int> wanted{0};        // workers that runs have asked for so far
  std::atomic<int> size{0};          // workers there are
  std::atomic<bool> founded{false};  // the thread exists that keeps the region open
  std::atomic<int> teams{0};         // this many of `team` have been in use
  ParkingSpot founder;
  Team team[kMaxTeams];
  struct alignas(kCacheLine) Worker {
    ParkingSpot spot;
  } worker[kMaxThreads];  // 1…
};
Crew crew;

// Where this thread stands.
struct Here {
  bool at_task = false;  // loops inside tasks run on one thread
  bool running = false;  // it is thread 0 of a run
  double shared_ns = 0;  // what loops of the run that wanted more than one thread cost, roughly
  int threads = 1;       // of the run
  Team* team = nullptr;  // of the run, if it has one
};
thread_local Here here;

struct Process {
  std::atomic<int> runs{0};   // with_threads bodies under way
  std::atomic<int> forks{0};  // between the first process and this one
};
Process process;

void run_chunk(Team& team, int64_t chunk, int thread) {
  const int64_t begin = chunk * team.chunk, end = min_of(begin + team.chunk, team.tasks);
  for (int64_t task = begin; task < end; ++task) team.call(team.body, task, thread);
}

// Takes chunks of the loop, the thread's own first, until all are begun; returns how many. Workers hold one already, so that thread 0
// waits.
int64_t take_chunks(Team& team, int thread, int threads) {
  int64_t taken = 0;
  for (int i = 0; i < threads; ++i) {
    Share& share = team.share[(thread + i) % threads];
    for (uint64_t seen = share.look(); Share::any(seen);) {
      const int64_t chunk = share.begin(seen, i == 0 ? Share::kFirst : Share::kLast);
      if (chunk < 0) continue;
      run_chunk(team, chunk, thread);
      ++taken;
      seen = share.look();
    }
  }
  return taken;
}

// ---- workers -----------------------------------------------------------------------------------------------------------------------

bool any_chunk_for(int worker, int workers) {
  for (int t = 0, teams = crew.teams.load(); t < teams; ++t) {
    const Team& team = crew.team[t];
    team.loop.load();  // sequentially consistent, as it is stored: so the shares are those of that loop
    const int seat = seat_of(team.seats.load(), worker, workers);
    if (seat && Share::any(team.share[seat].look())) return true;
  }
  return false;
}

// Takes part in the loops that have a share for the worker; returns whether there were any.
bool help(int worker, int workers) {
  bool helped = false;
  for (int t = 0, teams = crew.teams.load(std::memory_order_acquire); t < teams; ++t) {
    Team& team = crew.team[t];
    const uint64_t seats = team.seats.load(std::memory_order_acquire);
    const int seat = seat_of(seats, worker, workers);
    if (!seat) continue;
    uint64_t seen = team.share[seat].look();
    if (!Share::any(seen) || team.seats.load(std::memory_order_acquire) != seats) continue;  // seats that belong to this share
    const int64_t chunk = team.share[seat].begin(seen, Share::kFirst);
    if (chunk < 0) continue;
    run_chunk(team, chunk, seat);
    const int64_t taken = 1 + take_chunks(team, seat, threads_of(seats));
    team.unfinished.fetch_sub(taken, std::memory_order_release);
    helped = true;
  }
  return helped;
}

// The life of a worker, until the crew is to grow beyond `wanted`.
void serve(int worker, int workers, int wanted) {
  const FloatMode mode;
  const Here before = here;
  here = {};
  here.at_task = true;
  const auto grows = [wanted] { return crew.wanted.load() > wanted; };
  double idle_since = 0;
  for (int spins = 0; !grows(); ++spins) {
    if (help(worker, workers)) {
      spins = 0;
    } else if (spins == kWorkerSpins) {
      idle_since = seconds_now();
    } else if (spins > kWorkerSpins && seconds_now() - idle_since > kIdleSeconds) {
      crew.worker[worker].spot.sleep([&] { return grows() || any_chunk_for(worker, workers); });
      spins = 0;
    }
    pause_once(spins > kWorkerSpins);
  }
  here = before;
}

// The founder's life. It is thread 0 of the region, in the place of the threads that lead: so the workers have the processors beside
// theirs.
void found(int workers, int wanted) {
  crew.size.store(workers);
  while (crew.wanted.load() <= wanted) crew.founder.sleep([wanted] { return crew.wanted.load() > wanted; });
  for (int w = 1; w <= workers; ++w) crew.worker[w].spot.wake();
}

#if WL_USE_OPENMP
void keep_region(int wanted) {
#pragma omp parallel num_threads(wanted + 1)
  {
    const int thread = omp_get_thread_num(), workers = omp_get_num_threads() - 1;
    if (thread == 0)
      found(workers, wanted);
    else
      serve(thread, workers, wanted);
  }
}
#else
struct Member {
  pthread_t thread;
  int worker, workers, wanted;
};
void keep_region(int wanted) {
  constexpr int kMaxWorkers = 63;
  Member members[kMaxWorkers];
  const int workers = int(min_of(wanted, kMaxWorkers));
  int started = 0;
  for (; started < workers; ++started) {
    Member& member = members[started];
    member = {{}, started + 1, workers, wanted};
    const auto main = [](void* m) -> void* {
      const auto& member = *static_cast<const Member*>(m);
      serve(member.worker, member.workers, member.wanted);
      return nullptr;
    };
    if (pthread_create(&member.thread, nullptr, main, &member) != 0) break;
  }
  found(workers, wanted);
  for (int w = 0; w < started; ++w) pthread_join(members[w].thread, nullptr);
}
#endif

void* founder_main(void*) {
  for (;;) keep_region(crew.wanted.load());
}

// Sees to it that there will be `workers` workers; waits for none.
void want_workers(int workers) {
  int wanted = crew.wanted.load(std::memory_order_relaxed);
  while (wanted < workers && !crew.wanted.compare_exchange_weak(wanted, workers)) continue;
  if (wanted >= workers) return;
  if (crew.founded.exchange(true)) {
    crew.founder.wake();
    return;
  }
  pthread_attr_t detached;
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  if (pthread_create(&thread, &detached, founder_main, nullptr) != 0) {  // alone, then; the next run tries again
    crew.wanted = 0;
    crew.founded = false;
  }
  pthread_attr_destroy(&detached);
}

// ---- thread 0 ----------------------------------------------------------------------------------------------------------------------

// A free team, or null.
Team* claim_team() {
  for (int t = 0; t < kMaxTeams; ++t) {
    if (crew.team[t].led.load(std::memory_order_relaxed) || crew.team[t].led.exchange(true, std::memory_order_acquire)) continue;
    int teams = crew.teams.load();
    while (teams <= t && !crew.teams.compare_exchange_weak(teams, t + 1)) continue;
    return &crew.team[t];
  }
  return nullptr;
}

// Gives the team as many threads as are there for each of the runs now under way; returns how many.
int take_seats(Team& team, int threads) {
  threads = int(max_of(threads / process.runs.load(std::memory_order_relaxed), 1));
  team.seats.store(pack_seats(int(&team - crew.team) * threads, threads), std::memory_order_release);
  return threads;
}

void wake_workers(const Team& team, int threads) {
  const int workers = crew.size.load(std::memory_order_relaxed), first = int(team.seats.load(std::memory_order_relaxed) >> 32);
  for (int seat = 1; seat < threads && seat <= workers; ++seat) crew.worker[1 + (seat - 1 + first) % workers].spot.wake();
}

// Hands a loop to the team and takes part.
void share(Team& team, int threads, int64_t tasks, void (*call)(void*, int64_t, int), void* body) {
  team.call = call, team.body = body, team.tasks = tasks;
  team.chunk = max_of(tasks / (threads * 16), 1);
  const int64_t chunks = div_up(tasks, team.chunk);
  team.unfinished.store(chunks, std::memory_order_relaxed);
  const uint32_t loop = team.loop.load(std::memory_order_relaxed) + 1;
  for (int t = threads - 1; t >= 0; --t) team.share[t].post(loop, piece(chunks, threads, t));
  team.loop.store(loop);
  wake_workers(team, threads);
  here.at_task = true;
  int64_t taken;
  {
    const FloatMode mode;
    taken = take_chunks(team, 0, threads);
  }
  here.at_task = false;
  for (int spins = 0; team.unfinished.load(std::memory_order_acquire) != taken; ++spins) pause_once(spins > kLeaderSpins);
}

// ---- fork ---------------------------------------------------------------------------------------------------------------------------

// The workers stayed behind in the parent, and so did the leaders of all runs but one that this thread may be in: it goes on alone.
void after_fork_in_child() {
  ++process.forks;
  process.runs = here.running ? 1 : 0;
  for (int w = 1, size = crew.size; w <= size; ++w) new (&crew.worker[w]) Crew::Worker;
  new (&crew.founder) ParkingSpot;
  crew.wanted = crew.size = 0;
  crew.founded = false;
  for (int t = 0, teams = crew.teams; t < teams; ++t) {
    for (Share& share : crew.team[t].share) share.close();
    crew.team[t].led = &crew.team[t] == here.team;
  }
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

bool with_threads(int threads, void (*work)(void*), void* context) {
  const Here before = here;
  here = {};
  here.running = true;
  here.threads = threads;
  process.runs.fetch_add(1, std::memory_order_relaxed);
  if (threads > 1 && (here.team = claim_team())) {
    want_workers(threads - 1);
    wake_workers(*here.team, take_seats(*here.team, threads));  // now, for it takes them as long as the first steps do
  }
  work(context);
  if (here.team) here.team->led.store(false, std::memory_order_release);
  process.runs.fetch_sub(1, std::memory_order_relaxed);
  const bool worthwhile = here.shared_ns >= kWorthwhile;
  here = before;
  return worthwhile;
}

void parallel_for_impl(int threads, double cost_ns, int64_t tasks, void (*call)(void*, int64_t, int), void* body) {
  if (here.running && !here.at_task) {
    here.shared_ns += cost_ns;
    if (here.team) {
      const int at_hand = take_seats(*here.team, int(min_of(threads, here.threads)));
      if (at_hand > 1) return share(*here.team, at_hand, tasks, call, body);
    }
  }
  if (here.at_task || here.running || threads <= 1) {
    for (int64_t task = 0; task < tasks; ++task) call(body, task, 0);
    return;
  }
  // A loop outside of any run: a run for it alone.
  struct Loop {
    int threads;
    double cost_ns;
    int64_t tasks;
    void (*call)(void*, int64_t, int);
    void* body;
  } loop{threads, cost_ns, tasks, call, body};
  with_threads(
      threads,
      [](void* l) {
        const auto& loop = *static_cast<Loop*>(l);
        parallel_for_impl(loop.threads, loop.cost_ns, loop.tasks, loop.call, loop.body);
      },
      &loop);
}

}  // namespace wl
