// The thread layer. threads.cc is the one file that names OpenMP.
#pragma once

namespace wl {

constexpr int kMaxThreads = 1024;

// OMP_NUM_THREADS when it is set, else what affinity and cgroup quota (v1 and v2, rounded up) grant; 1…kMaxThreads.
int default_threads();

// From now on a fork of this process is noticed in the child. instance_create calls it; a host that may fork earlier does so itself.
void watch_forks();
int fork_generation();  // forks noticed between the first process and this one

// Runs work(context) on this thread, with up to threads - 1 workers at hand for the parallel_for loops in it (fewer where bodies run at the
// same time: they share the processors), and returns whether its loops were worth it: long enough together. Waits for no worker, neither at
// the beginning nor at the end: one that the system does not schedule in time is missed, no more. Works in a forked child too.
bool with_threads(int threads, void (*work)(void*), void* context);

}  // namespace wl
