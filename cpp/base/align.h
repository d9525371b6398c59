#pragma once
#include <stdint.h>

namespace wl {

constexpr int64_t kCacheLine = 64;

constexpr int64_t div_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
constexpr int64_t round_up(int64_t a, int64_t b) {
  return div_up(a, b) * b;
}
constexpr int64_t min_of(int64_t a, int64_t b) {
  return a < b ? a : b;
}
constexpr int64_t max_of(int64_t a, int64_t b) {
  return a > b ? a : b;
}

constexpr int64_t clamp(int64_t v, int64_t low, int64_t high) {
  return v < low ? low : v > high ? high : v;
}

// The i-th of `parts` nearly equal pieces of [0, total): pieces differ by at most one.
struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};
constexpr Range piece(int64_t total, int64_t parts, int64_t i) {
  const int64_t base = total / parts, rest = total % parts;
  const int64_t begin = i * base + min_of(i, rest);
  return {begin, begin + base + (i < rest ? 1 : 0)};
}

// A few parts, about `wanted` and at least `least` of them, in a number that 2, 4 or 8 threads divide: shares of threads that end where
// parts do are the same in every loop over the same rows.
constexpr int64_t few_parts(int64_t wanted, int64_t least) {
  int64_t parts = 1;
  while (2 * parts <= wanted) parts *= 2;
  return parts < least ? 2 * parts : parts;
}

}  // namespace wl
