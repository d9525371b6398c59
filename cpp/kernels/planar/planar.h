// Convolution of few channels: pixels are the lanes of a vector, output channels the rows of a tile.
//
// Pictures are brought into planes first: one float per pixel, rows `pitch` floats apart, a plane per channel (and, where the step between
// output pixels is above 1, one per position modulo that step, so that neighbouring outputs always read neighbouring floats). A term of the
// sum, one kernel position of one channel, is then a fixed offset from an output's own place in the planes.
#pragma once
#include <stdint.h>

#include "ops/kinds.h"

namespace wl {

constexpr int64_t kPlanarFlush = 128;  // terms of one chain of additions

// Output pixels side by side in the planes, one per lane. Its lanes run on from (row, column) with `columns` pixels to a row, then
// pitch - columns lanes that nobody wants, then the next row. `lanes` of them count.
struct PlanarVector {
  int32_t row, column, lanes;
  int32_t begin, end;  // terms outside [begin, end) are zero for all of its pixels: they may be left out
};

// Where a pixel goes: y[row*y_row + column*y_col + r] for the rows (output channels) r of a block.
struct PlanarOutput {
  float* y = nullptr;
  int64_t y_row = 0, y_col = 0;
  const float* bias = nullptr;      // a value per row, or null
  const float* residual = nullptr;  // like y, or null; may be y itself
  int64_t residual_row = 0, residual_col = 0;
  UnaryKind activation = UnaryKind::none;
  float alpha = 0, beta = 0;
};

struct PlanarArgs {
  int rows = 0;  // of the block: 1 … PlanarKernels::rows
  int64_t count = 0;
  const PlanarVector* vectors = nullptr;
  const float* x = nullptr;  // the planes
  int64_t pitch = 0, columns = 0;
  const int32_t* offsets = nullptr;  // of each term
  const float* w = nullptr;          // [term][rows]
  PlanarOutput out;
};

// dw of one block: `rows` planes of dy, `terms` offsets into the planes of x.
struct PlanarWeightsArgs {
  int rows = 0;
  int64_t terms = 0;
  int64_t pixels = 0;  // places of the planes, a multiple of lanes
  const float *x = nullptr, *dy = nullptr;
  int64_t dy_plane = 0;
  const int32_t* offsets = nullptr;
  bool add = false;
  float* sums = nullptr;  // [term][rows][lanes]
};

struct PlanarKernels {
  int lanes;         // pixels of a vector
  int rows;          // output channels of a block, at most
  const char* tile;  // for explain(): "6x64"

  // planes[c*plane + p] = from[p*step + c] for c in [0, channels), p in [0, pixels).
  void (*to_planes)(int64_t channels, int64_t pixels, const float* from, int64_t step, float* planes, int64_t plane);

  // y of each pixel that counts = act(Σ_t w[t][r] * x[place + offsets[t]] + bias[r] + residual[r]), where `place` is row*pitch + column.
  // Each sum is a chain in the order of the terms, begun anew at multiples of kPlanarFlush; the chains are added in order. Reads whole
  // vectors of the planes, up to lanes - 1 floats past the place of the last pixel that counts; writes pixels that count, nothing else.
  void (*run)(const PlanarArgs& args);

  // sums[t][r][l] = (add ? what was there : 0) + Σ_i x[i*lanes + l + offsets[t]] * dy[r*dy_plane + i*lanes + l], i in [0, pixels / lanes).
  void (*weights)(const PlanarWeightsArgs& args);

  // to[i] = Σ_l sums[i][l] for i in [0, count), lanes added in a fixed order.
  void (*add_lanes)(int64_t count, const float* sums, float* to);
};

}  // namespace wl
