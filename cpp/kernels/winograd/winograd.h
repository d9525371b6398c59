// The transforms of Winograd's minimal filtering F(m x m, 3x3), vectorised over channels (Lavin & Gray 2015; points after the
// measurements in docs/decisions). The products between the transforms run on brgemm.
//
//   forward            Y  = At [ (G g Gt) . (Bt d B) ] A        d: (m+2) x (m+2) pixels, g: 3x3, Y: m x m
//   backward-weights   dg = Gt [ Σ_tiles (A dy At) . (Bt d B) ] G
//
// with interpolation points 0, ±1, ∞ for m = 2 and 0, ±5/8, ±3/2, ∞ for m = 4.
#pragma once
#include <stdint.h>

#include "ops/kinds.h"

namespace wl {

// Two sizes: index 0 is F(2x2,3x3), index 1 is F(4x4,3x3).
constexpr int kWinogradSizes = 2;
constexpr int winograd_m(int size) {
  return size == 0 ? 2 : 4;
}  // outputs per tile and axis
constexpr int winograd_t(int size) {
  return winograd_m(size) + 2;
}  // inputs per tile and axis: t*t products per tile

// The pixels of a tile, row-major, and how many floats further those of the tile that is read next lie: the new ones of these are asked
// for, unless that is 0.
struct WinogradPixels {
  const float* const* at;
  int64_t next;
};

// Where a tile of outputs goes: y[p][c] = activation(tile[p][c] + bias[c] + residual[p][c]) for the pixels p whose y[p] is not null.
struct WinogradOutput {
  float* const* y = nullptr;
  int64_t next = 0;                        // floats to the pixels of the tile that is written next: these are asked for, unless 0
  const float* bias = nullptr;             // `channels` values, or null
  const float* const* residual = nullptr;  // pointers as y's, or null
  UnaryKind activation = UnaryKind::none;
  float alpha = 0, beta = 0;
};

// Where a transformed tile goes: place e of channel c to v[e*stride + (c / width)*panel + c % width], in panels as brgemm's, of its width.
// Channels are stored in whole vectors, with zeros past the last: there must be room for round_up(channels, lanes).
struct WinogradPlaces {
  float* v;
  int64_t stride, panel;
  bool far;  // v lies in no cache of the core: lines are asked for before they are written, of this tile, then of one at v + width
};

struct WinogradKernels {
  // to[e][c] = (Bt d B)[e], e in [0, t*t), c in [0, channels). d.at[p] points at the channels of pixel p of t x t; pixels outside the image
  // point at `channels` zeros. `to` does not overlap d.
  void (*input[kWinogradSizes])(const WinogradPixels& d, const WinogradPlaces& to, int64_t channels);

  // tile[p][c] = (At M A)[p] with M[e] = m[e*stride + c], p in [0, m*m) row-major.
  void (*output[kWinogradSizes])(const float* m, int64_t stride, const WinogradOutput& out, int64_t channels);

  // u[e*stride + c] = (G g Gt)[e] with g[tap] = w[tap*tap_stride + c], tap in [0, 9) row-major. The lines a panel's width further are asked
  // for.
  void (*weights[kWinogradSizes])(const float* w, int64_t tap_stride, float* u, int64_t stride, int64_t channels);

  // to[e][c] = (A dy At)[e]; dy.at[p] points at the channels of pixel p of m x m, zeros outside the image.
  void (*output_bwd[kWinogradSizes])(const WinogradPixels& dy, const WinogradPlaces& to, int64_t channels);

  // dw[tap*tap_stride + c] = (Gt S G)[tap] with S[e] = s[e*stride + c].
  void (*weights_bwd[kWinogradSizes])(const float* s, int64_t stride, float* dw, int64_t tap_stride, int64_t channels);
};

}  // namespace wl
