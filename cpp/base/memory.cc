#include "base/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/align.h"

namespace wl {
namespace {

constexpr size_t kPage = 4096, kHugePage = size_t(2) << 20;
constexpr size_t kMapFrom = size_t(64) << 10, kHugeFrom = size_t(4) << 20;

size_t mapped_bytes(size_t bytes) {
  return (bytes + kPage - 1) / kPage * kPage;
}

}  // namespace

char* memory_alloc(size_t bytes) {
  if (bytes > SIZE_MAX / 4) return nullptr;
  if (bytes < kMapFrom) {
    void* block = nullptr;
    const size_t size = (bytes + kCacheLine) / kCacheLine * kCacheLine;  // never 0
    if (posix_memalign(&block, kCacheLine, size) != 0) return nullptr;
    memset(block, 0, size);
    return static_cast<char*>(block);
  }
  const size_t slack = bytes >= kHugeFrom ? kHugePage : 0, size = mapped_bytes(bytes);
  void* map = mmap(nullptr, size + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  char* begin = static_cast<char*>(map);
  if (!slack) return begin;
  char* block = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(begin) + kHugePage - 1) / kHugePage * kHugePage);
  if (block != begin) munmap(begin, size_t(block - begin));
  if (const size_t rest = slack - size_t(block - begin)) munmap(block + size, rest);
#ifdef MADV_HUGEPAGE
  madvise(block, size, MADV_HUGEPAGE);  // a wish: without huge pages everything works, slower
#endif
  return block;
}

void memory_free(char* block, size_t bytes) {
  if (!block) return;
  if (bytes < kMapFrom)
    free(block);
  else
    munmap(block, mapped_bytes(bytes));
}

}  // namespace wl
