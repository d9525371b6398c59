#pragma once
#include <stddef.h>
#include <stdint.h>

namespace wl {

// CRC-32 of zlib (reflected 0xEDB88320). `crc` continues an earlier value; 0 starts.
uint32_t crc32(const void* data, size_t size, uint32_t crc = 0);

}  // namespace wl
