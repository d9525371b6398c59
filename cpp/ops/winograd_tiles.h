// What Winograd's three directions share: the correlation that two of them are, how its output is cut into tiles, and the transforms of
// pictures.
#pragma once
#include "kernels/brgemm/brgemm.h"
#include "kernels/winograd/winograd.h"
#include "ops/winograd.h"

namespace wl {

constexpr int64_t kPanel = 32;      // packed columns are rounded up to this on every ISA; every panel width divides it
constexpr int64_t kMaxTiles = 16;   // pixels per tile: m*m at most
constexpr int64_t kMaxPlaces = 36;  // t*t at most

// A stride between two t*t matrices that is not a multiple of a page, so that 36 streams do not meet in one cache set.
inline int64_t skewed(int64_t floats) {
  return round_up(floats, 16) + 16;
}

// The correlation of one group: k channels of `in` (ih x iw) from `in_channel` on to c channels of `out` (oh x ow) from `out_channel` on.
// Forward takes it from the shape; backward-data exchanges the pictures.
struct Correlation {
  int size;     // of the transforms, an index into WinogradKernels
  bool turned;  // the weights are read transposed, and turned by half a turn
  int64_t n, ih, iw, k, oh, ow, c, pad_top, pad_left;
  int64_t w_row, w_tap, w_first;  // of the canonical weights: floats between rows and between taps, and before those of this group
  int64_t in_channel, out_channel;

  static Correlation of(const ConvShape& s, ConvDirection direction, Algorithm algorithm, int64_t group = 0) {
    const int size = algorithm == Algorithm::winograd4 ? 1 : 0;
    const int64_t row = s.oc, tap = s.icg() * s.oc, i = group * s.icg(), o = group * s.ocg();
    if (direction == ConvDirection::bwd_data)
      return {size, true, s.n, s.oh, s.ow, s.ocg(), s.ih, s.iw, s.icg(), 2 - s.pad_top, 2 - s.pad_left, row, tap, o, o, i};
    return {size, false, s.n, s.ih, s.iw, s.icg(), s.oh, s.ow, s.ocg(), s.pad_top, s.pad_left, row, tap, o, i, o};
  }

  int64_t m() const { return winograd_m(size); }
  int64_t t() const { return winograd_t(size); }
  int64_t places() const { return t() * t(); }
  int64_t tiles_h() const { return div_up(oh, m()); }
  int64_t tiles_w() const { return div_up(ow, m()); }
  int64_t tiles() const { return n * tiles_h() * tiles_w(); }
};

struct WinogradTile {
  int64_t image, y, x;  // first output pixel
};
inline WinogradTile tile_at(const Correlation& g, int64_t index) {
  const int64_t per_image = g.tiles_h() * g.tiles_w(), rest = index % per_image;
  return {index / per_image, rest / g.tiles_w() * g.m(), rest % g.tiles_w() * g.m()};
}

// Pointers to channel `channel` (of all groups) of the extent x extent pixels of `picture` (h x w) from (top, left) on; `outside` stands
// for the pixels that are not there.
inline void tile_pixels(const Tensor& picture, int64_t h, int64_t w, int64_t image, int64_t top, int64_t left, int64_t extent,
                        int64_t channel, float* outside, float** out) {
  const int64_t row = picture.strides[1], column = picture.strides[2];
  float* first = picture.f32() + image * picture.strides[0] + top * row + left * column + channel;
  const bool whole = top >= 0 && left >= 0 && top + extent <= h && left + extent <= w;
  for (int64_t i = 0; i < extent; ++i, first += row)
    for (int64_t j = 0; j < extent; ++j)
      *out++ = whole || (top + i >= 0 && top + i < h && left + j >= 0 && left + j < w) ? first + j * column : outside;
}

constexpr int64_t kNearBytes = 1 << 20;  // what a core may have in its own caches

// Floats from a tile's pixels to those of the next; 0 where the pictures are near.
inline int64_t next_tile(const Correlation& g, const Tensor& pictures) {
  return pictures.elements() * 4 <= kNearBytes ? 0 : g.m() * pictures.strides[2];
}

// Channels of the group in a tile of `in`, transformed. `zeros` has as many.
inline void transform_input(const Kernels& kernels, const Correlation& g, const Tensor& in, int64_t tile, Range channels, float* zeros,
                            const WinogradPlaces& to) {
  const WinogradTile at = tile_at(g, tile);
  float* d[kMaxPlaces];
  tile_pixels(in, g.ih, g.iw, at.image, at.y - g.pad_top, at.x - g.pad_left, g.t(), g.in_channel + channels.begin, zeros, d);
  kernels.winograd->input[g.size]({d, next_tile(g, in)}, to, channels.size());
}

// Memory handed out piece by piece, each aligned to a cache line.
struct FloatMemory {
  char* next;
  float* take(int64_t count) {
    float* p = reinterpret_cast<float*>(next);
    next += round_up(count * 4, kCacheLine);
    return p;
  }
};

inline void row_pointers(float* base, int64_t rows, int64_t stride, float** out) {
  for (int64_t r = 0; r < rows; ++r) out[r] = base + r * stride;
}

}  // namespace wl
