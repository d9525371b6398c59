// The file around a program, and the named arrays in it. See docs/program-format.md.
#pragma once
#include <stddef.h>

#include "base/status.h"
#include "base/tensor.h"

namespace wl {

constexpr uint32_t section_tag(const char (&letters)[5]) {
  return uint32_t(uint8_t(letters[0])) | uint32_t(uint8_t(letters[1])) << 8 | uint32_t(uint8_t(letters[2])) << 16 |
         uint32_t(uint8_t(letters[3])) << 24;
}

struct Section {
  uint32_t tag = 0;
  const char* data = nullptr;  // inside the container
  size_t size = 0;
  size_t offset = 0;  // of the data from the start of the file, for messages
};

constexpr int kMaxSections = 16;

struct Container {
  int n_sections = 0;
  Section sections[kMaxSections];
  const Section* find(uint32_t tag) const {
    for (int i = 0; i < n_sections; ++i)
      if (sections[i].tag == tag) return &sections[i];
    return nullptr;
  }
};

// Checks everything about the container, every section's CRC included. The sections point into `data`.
Status container_parse(const void* data, size_t size, Container* out);

// A named array of a section WGHT or TRNR.
struct NamedArray {
  const char* name = nullptr;  // not terminated
  int name_length = 0;
  DType dtype = DType::f32;
  int rank = 0;
  int64_t dims[kMaxRank] = {};
  const char* data = nullptr;
  size_t bytes = 0;
};

// Walks the arrays of a section in order; each is checked when it is reached.
class ArrayReader {
 public:
  explicit ArrayReader(const Section& section) : section_(section) {}
  // The next array; `*done` when there is none left.
  Status next(NamedArray* array, bool* done);

 private:
  const Section& section_;
  size_t at_ = 0, left_ = 0;
  bool started_ = false;
};

// Code::corrupt, with the offset from the start of the file.
__attribute__((format(printf, 2, 3))) Status file_error(size_t offset, const char* format, ...);

// Whether `size` bytes are well-formed UTF-8 without NUL.
bool valid_utf8(const char* text, size_t size);

}  // namespace wl
