// The thread layer: every task once, floating-point mode in the workers, sharing, late workers, idleness, forked children, the default
// count.
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include <atomic>
#include <thread>

#include "base/cpu_quota.h"
#include "harness.h"
#include "runtime/threads.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif
#ifdef __SANITIZE_THREAD__
constexpr bool kThreadSanitizer = true;  // it forbids threads after a fork
#else
constexpr bool kThreadSanitizer = false;
#endif

namespace {

// Runs `tasks` tasks on `threads` threads inside with_threads; returns whether each ran once on a thread within bounds.
struct Sweep {
  int threads;
  int64_t tasks;
  std::vector<std::atomic<int>> ran;
  std::atomic<bool> good{true};
  std::atomic<int> high{0};
  Sweep(int threads, int64_t tasks) : threads(threads), tasks(tasks), ran(size_t(tasks)) {}
  bool run() {
    wl::with_threads(
        threads,
        [](void* self) {
          auto& sweep = *static_cast<Sweep*>(self);
          wl::Run run;
          run.threads = sweep.threads;
          wl::parallel_for(run, sweep.tasks, 1e9, [&](int64_t task, int thread) {
            ++sweep.ran[size_t(task)];
            if (thread < 0 || thread >= sweep.threads) sweep.good = false;
            for (int seen = sweep.high; thread > seen && !sweep.high.compare_exchange_weak(seen, thread);) continue;
          });
        },
        this);
    for (auto& count : ran)
      if (count != 1) good = false;
    return good;
  }
};

void test_parallel_for() {
  for (int threads : {1, 2, 3, 4, 7, 16})
    for (int64_t tasks : {0, 1, 2, 3, 15, 16, 17, 1000, 100003})
      CHECK(Sweep(threads, tasks).run(), "%d threads, %lld tasks", threads, (long long)tasks);
}

void test_small_work_stays_here() {
  const pthread_t self = pthread_self();
  wl::Run run;
  run.threads = 4;
  bool here = true;
  wl::parallel_for(run, 100, 5000, [&](int64_t, int thread) { here = here && thread == 0 && pthread_equal(pthread_self(), self); });
  CHECK(here);
}

void test_nested_and_concurrent() {
  std::atomic<int> inner{0};
  wl::Run run;
  run.threads = 2;
  wl::parallel_for(run, 4, 1e9, [&](int64_t, int) { wl::parallel_for(run, 8, 1e9, [&](int64_t, int) { ++inner; }); });
  CHECK(inner == 32);
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) good += Sweep(3, 50).run();
    });
  for (auto& thread : threads) thread.join();
  CHECK(good == 800);
}

// Two bodies at once get half of the threads each; afterwards one gets all of them again.
void test_sharing() {
  std::atomic<bool> other_runs{false}, done{false};
  struct Context {
    std::atomic<bool>&runs, &done;
  } context{other_runs, done};
  std::thread other([&] {
    wl::with_threads(
        4,
        [](void* c) {
          auto& context = *static_cast<Context*>(c);
          context.runs = true;
          while (!context.done) std::this_thread::yield();
        },
        &context);
  });
  while (!other_runs) std::this_thread::yield();
  for (int i = 0; i < 20; ++i) {
    Sweep sweep(4, 1000);
    CHECK(sweep.run() && sweep.high < 2, "thread %d ran", sweep.high.load());
  }
  done = true;
  other.join();
}

// While every worker is held at a task of one run, the others' runs end.
void test_workers_held_elsewhere() {
  struct Context {
    std::atomic<int> at_task{0};
    std::atomic<bool> release{false};
  } context;
  std::thread other([&] {
    wl::with_threads(
        4,
        [](void* c) {
          auto& context = *static_cast<Context*>(c);
          wl::Run run;
          run.threads = 4;
          wl::parallel_for(run, 4, 1e9, [&](int64_t, int) {
            ++context.at_task;
            while (!context.release) std::this_thread::yield();
          });
        },
        &context);
  });
  for (int i = 0; i < 1000 && context.at_task < 4; ++i) usleep(1000);  // OMP_THREAD_LIMIT may leave it fewer threads
  for (int i = 0; i < 100; ++i) CHECK(Sweep(8, 1000).run());
  context.release = true;
  other.join();
}

// More threads that are never idle than processors: short runs end all the same.
void test_busy_machine() {
  std::atomic<bool> done{false};
  std::vector<std::thread> busy;
  for (long i = 0; i <= 2 * sysconf(_SC_NPROCESSORS_ONLN); ++i)
    busy.emplace_back([&] {
      while (!done) continue;
    });
  for (int i = 0; i < 1000; ++i) CHECK(Sweep(2 + i % 3, 30).run());
  done = true;
  for (auto& thread : busy) thread.join();
}

// Several threads at once, each with another number of threads in every run.
void test_changing_counts() {
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) good += Sweep(1 + (i * 5 + t) % 23, 1 + i).run();
    });
  for (auto& thread : threads) thread.join();
  CHECK(good == 600);
}

// O-14: workers that have nothing to do sleep, and wake.
void test_idle() {
  const auto processor_seconds = [] {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
  };
  for (int i = 0; i < 3; ++i) {
    CHECK(Sweep(4, 1000).run());
    usleep(100000);
    const double before = processor_seconds();
    usleep(300000);
    CHECK(processor_seconds() - before < 0.01, "%g s of an idle 0.3 s", processor_seconds() - before);
  }
}

void test_float_mode_in_workers() {
#if defined(__x86_64__)
  struct Context {
    std::atomic<int> wrong{0};
    volatile float tiny = 1e-39f;
  } context;
  wl::Run run;
  run.threads = 4;
  for (int repeat = 0; repeat < 20; ++repeat) {
    wl::parallel_for(run, 64, 1e9, [&](int64_t, int) {
      if ((_mm_getcsr() & 0x8040) != 0x8040 || context.tiny * 1.0f != 0.0f) ++context.wrong;
    });
#ifdef _OPENMP
    // The workers belong to everybody who uses OpenMP: their mode must be as before.
    int flushed = 0;
#pragma omp parallel num_threads(4) reduction(+ : flushed)
    flushed += (_mm_getcsr() & 0x8040) != 0;
    CHECK(flushed == 0);
#endif
  }
  CHECK(context.wrong == 0 && (_mm_getcsr() & 0x8040) == 0);
#endif
}

// Waits up to ten seconds; kills what hangs.
bool child_succeeds(pid_t child) {
  int status = 0;
  for (int i = 0; i < 1000; ++i) {
    if (waitpid(child, &status, WNOHANG) == child) return WIFEXITED(status) && WEXITSTATUS(status) == 0;
    usleep(10000);
  }
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  return false;
}

// After the parent had a team: the child runs, from the surviving thread and from a new one, and so does its own child.
void test_fork() {
  wl::watch_forks();
  CHECK(Sweep(2, 100).run());
  const int generation = wl::fork_generation();
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    bool good = wl::fork_generation() == generation + 1;
    for (int i = 0; i < 50; ++i) good = good && Sweep(2, 100).run();
    bool other_good = false;
    std::thread other([&] { other_good = Sweep(2, 100).run(); });
    other.join();
    wl::Run run;  // a bare region, outside with_threads
    run.threads = 2;
    std::atomic<int> count{0};
    wl::parallel_for(run, 10, 1e9, [&](int64_t, int) { ++count; });
    const pid_t grandchild = fork();
    if (grandchild == 0) _exit(Sweep(2, 100).run() ? 0 : 1);
    _exit(good && other_good && count == 10 && child_succeeds(grandchild) ? 0 : 1);
  }
  CHECK(child_succeeds(child));
  CHECK(Sweep(2, 100).run() && wl::fork_generation() == generation);
}

// Forks while another thread is in the middle of runs, and from within a run, which goes on in both processes.
void test_fork_in_the_middle() {
  std::atomic<bool> done{false};
  std::thread other([&] {
    while (!done) CHECK(Sweep(3, 100).run());
  });
  for (int i = 0; i < 5; ++i) {
    struct Context {
      Sweep first{3, 100}, second{3, 100};
      pid_t child = -1;
    } context;
    fflush(stdout);
    const auto work = [](void* c) {
      auto& context = *static_cast<Context*>(c);
      const auto loop = [](Sweep& sweep) {
        wl::Run run;
        run.threads = sweep.threads;
        wl::parallel_for(run, sweep.tasks, 1e9, [&](int64_t task, int) { ++sweep.ran[size_t(task)]; });
        for (auto& count : sweep.ran)
          if (count != 1) sweep.good = false;
      };
      loop(context.first);
      context.child = fork();
      loop(context.second);
    };
    wl::with_threads(3, work, &context);
    const bool good = context.first.good && context.second.good;
    if (context.child == 0) _exit(good && Sweep(3, 100).run() ? 0 : 1);
    CHECK(good && child_succeeds(context.child));
  }
  done = true;
  other.join();
}

void write_file(const std::string& path, const char* text) {
  FILE* file = fopen(path.c_str(), "w");
  fputs(text, file);
  fclose(file);
}

void test_cpu_quota() {
  char name[] = "/tmp/wl_quota_XXXXXX";
  const std::string root = mkdtemp(name), self = root + "/self";
  for (const char* folder : {"/a", "/a/b", "/cpu", "/cpu/c", "/unified", "/unified/a"}) mkdir((root + folder).c_str(), 0700);
  const auto quota = [&](const char* text) {
    write_file(self, text);
    return wl::cpu_quota(self.c_str(), root.c_str());
  };
  CHECK(wl::cpu_quota("/nonexistent", root.c_str()) == 0);
  CHECK(quota("0::/a/b\n") == 0);  // v2, no limits
  write_file(root + "/a/b/cpu.max", "max 100000\n");
  CHECK(quota("0::/a/b\n") == 0);
  write_file(root + "/a/b/cpu.max", "250000 100000\n");
  CHECK(quota("0::/a/b\n") == 2.5);
  write_file(root + "/a/cpu.max", "150000 100000\n");  // the parent grants less
  CHECK(quota("0::/a/b\n") == 1.5);
  CHECK(quota("0::/a/b/not/here\n") == 1.5);
  CHECK(quota("4:memory:/x\n3:cpu,cpuacct:/c\n") == 0);  // v1
  write_file(root + "/cpu/c/cpu.cfs_quota_us", "-1\n");
  write_file(root + "/cpu/c/cpu.cfs_period_us", "100000\n");
  CHECK(quota("3:cpu,cpuacct:/c\n") == 0);
  write_file(root + "/cpu/c/cpu.cfs_quota_us", "50000\n");
  CHECK(quota("3:cpuacct,cpu:/c\n") == 0.5);
  CHECK(quota("3:cpuset:/c\n") == 0);
  write_file(root + "/unified/a/cpu.max", "100000 100000\n");  // both, v2 beside
  CHECK(quota("3:cpu:/\n0::/a\n") == 1);
  CHECK(quota("nonsense\n:\n::\n") == 0);
  CHECK(system(("rm -r " + root).c_str()) == 0);
}

void test_default_threads() {
  unsetenv("OMP_NUM_THREADS");
  const int own = wl::default_threads();
  CHECK(own >= 1);
  setenv("OMP_NUM_THREADS", "5,2", 1);
  CHECK(wl::default_threads() == 5);
  for (const char* useless : {"0", "-3", "many", ""}) {
    setenv("OMP_NUM_THREADS", useless, 1);
    CHECK(wl::default_threads() == own);
  }
  unsetenv("OMP_NUM_THREADS");
}

}  // namespace

int main() {
  test_parallel_for();
  test_small_work_stays_here();
  test_nested_and_concurrent();
  test_sharing();
  test_workers_held_elsewhere();
  test_busy_machine();
  test_changing_counts();
  test_idle();  // before this program's own regions, whose threads spin for as long as their runtime likes
  test_float_mode_in_workers();
  if (!kThreadSanitizer) {
    test_fork();
    test_fork_in_the_middle();
  }
  test_cpu_quota();
  test_default_threads();
  return harness::finish();
}
