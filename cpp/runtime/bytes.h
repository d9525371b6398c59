// Little-endian reads from bytes of any alignment. Every read is inside [0, size) by the caller's check.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace wl {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file format is little-endian");

template <class T>
T read_at(const char* data, size_t offset) {
  T value;
  memcpy(&value, data + offset, sizeof value);
  return value;
}

inline bool all_zero(const char* data, size_t begin, size_t end) {
  for (size_t i = begin; i < end; ++i)
    if (data[i]) return false;
  return true;
}

}  // namespace wl
