// Counts what this extension takes from the heap, for the promise that running allocates nothing: its own operator new, and
// (by the linker's --wrap) its calls of malloc, calloc, realloc, posix_memalign and mmap. Nobody outside the extension is affected.
#include "heap.h"

#include <stdlib.h>
#include <sys/mman.h>

#include <atomic>
#include <new>

namespace {
std::atomic<long long> count{0};
void counted() {
  count.fetch_add(1, std::memory_order_relaxed);
}
}  // namespace

long long wl_py::heap_allocations() {
  return count.load(std::memory_order_relaxed);
}

extern "C" {
void* __real_malloc(size_t);
void* __real_calloc(size_t, size_t);
void* __real_realloc(void*, size_t);
int __real_posix_memalign(void**, size_t, size_t);
void* __real_mmap(void*, size_t, int, int, int, off_t);

void* __wrap_malloc(size_t size) {
  counted();
  return __real_malloc(size);
}
void* __wrap_calloc(size_t n, size_t size) {
  counted();
  return __real_calloc(n, size);
}
void* __wrap_realloc(void* block, size_t size) {
  counted();
  return __real_realloc(block, size);
}
int __wrap_posix_memalign(void** block, size_t alignment, size_t size) {
  counted();
  return __real_posix_memalign(block, alignment, size);
}
void* __wrap_mmap(void* address, size_t size, int protection, int flags, int file, off_t offset) {
  counted();
  return __real_mmap(address, size, protection, flags, file, offset);
}
}

void* operator new(size_t size) {
  if (void* block = malloc(size ? size : 1)) return block;
  throw std::bad_alloc();
}
void* operator new[](size_t size) {
  return operator new(size);
}
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  return malloc(size ? size : 1);
}
void* operator new[](size_t size, const std::nothrow_t&) noexcept {
  return malloc(size ? size : 1);
}
void operator delete(void* block) noexcept {
  free(block);
}
void operator delete[](void* block) noexcept {
  free(block);
}
void operator delete(void* block, size_t) noexcept {
  free(block);
}
void operator delete[](void* block, size_t) noexcept {
  free(block);
}
