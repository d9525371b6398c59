#pragma once
#include <stddef.h>

namespace wl {

// `bytes` zeroed bytes, 64-byte aligned; null when there is no memory. Pages are taken from the operating system when first
// touched and given back by memory_free. From 4 MB on the block is 2 MB aligned and asks for huge pages.
char* memory_alloc(size_t bytes);
void memory_free(char* block, size_t bytes);  // the size that was asked for; null is fine

}  // namespace wl
