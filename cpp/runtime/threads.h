// The thread layer. threads.cc is the one file that names OpenMP.
#pragma once

namespace wl {

// Affinity, cgroup quota (v1 and v2) and OMP_NUM_THREADS, at least 1.
int default_threads();

// Runs work(context) so that parallel regions inside it are safe even in a forked child (libgomp hangs there): directly where that is
// safe, else on a fresh host thread. Denormals are flushed on the caller inside, and its floating-point mode restored after.
void with_threads(void (*work)(void*), void* context);

}  // namespace wl
