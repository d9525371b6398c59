// Where one thread sleeps until others wake it.
#pragma once
#include <stdint.h>

#include <atomic>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <pthread.h>
#endif

namespace wl {

// One thread sleeps here, any thread wakes it. On Linux wake() never waits: neither for the sleeper, which the system may not schedule for
// a while, nor for others who wake. (A condition variable's signal may: glibc's waits until those woken before have left.)
class ParkingSpot {
 public:
  // Sleeps until wake(), unless awaited() holds; may return early. Whoever first makes awaited() true, by a sequentially consistent
  // store, and then calls wake() is not missed.
  template <class Awaited>
  void sleep(Awaited awaited) {
    asleep_.store(1);
    if (!awaited()) block();
    asleep_.store(0);
  }

  // A load where nobody sleeps.
  void wake() {
    if (asleep_.load() && asleep_.exchange(0)) unblock();
  }

 private:
  std::atomic<uint32_t> asleep_{0};

#if defined(__linux__)
  static_assert(sizeof(asleep_) == sizeof(uint32_t), "a futex");
  void block() {
    while (asleep_.load()) syscall(SYS_futex, &asleep_, FUTEX_WAIT_PRIVATE, 1, nullptr, nullptr, 0);
  }
  void unblock() {
    syscall(SYS_futex, &asleep_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  }
#else
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t woken_ = PTHREAD_COND_INITIALIZER;
  void block() {
    pthread_mutex_lock(&mutex_);
    while (asleep_.load()) pthread_cond_wait(&woken_, &mutex_);
    pthread_mutex_unlock(&mutex_);
  }
  void unblock() {
    pthread_mutex_lock(&mutex_);
    pthread_cond_signal(&woken_);
    pthread_mutex_unlock(&mutex_);
  }
#endif
};

}  // namespace wl
