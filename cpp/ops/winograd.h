// Winograd's minimal filtering for 3x3 convolutions of stride 1, F(2x2) and F(4x4), in the three directions: called by conv_pack, conv_fwd,
// conv_bwd_data and conv_bwd_weights where their algorithm is winograd2 or winograd4.
//
// Forward and backward-data are the same correlation with the roles of the two pictures exchanged. A tile of (m+2) x (m+2) inputs becomes
// t*t vectors over channels; for each of these t*t places one product [tiles x ic] * [ic x oc] runs on brgemm; the inverse transform, with
// bias, residual and activation, writes m x m outputs. Backward-weights transforms x and dy, sums products over the tiles and
// transforms once at the end.
//
// Two schedules, chosen by the size of the transformed weights. `fused`: each task takes a few tiles through all three phases, so that
// they stay in its cache. `team`: all threads work through one phase after the other over a block of many tiles, so that large
// weights are read once per block.
#pragma once
#include "ops/conv.h"

namespace wl {

inline bool is_winograd(Algorithm a) {
  return a == Algorithm::winograd2 || a == Algorithm::winograd4;
}

// Whether the algorithm can compute the direction at all: 3x3, stride 1, no dilation, one group, padding at most 2.
bool winograd_possible(const ConvShape& shape);

// Multiply-adds of one core's time, in units of a direct convolution's multiply-add: direct, winograd2 and winograd4 compared by shapes
// alone. The constants are measured ones (docs/decisions/0002-winograd.md).
double conv_direct_cost(const ConvShape& shape, ConvDirection direction);
double winograd_cost(const ConvShape& shape, ConvDirection direction, Algorithm algorithm);

// Fills kernel, blocking and workspace for `algorithm` (which is winograd2 or winograd4).
void winograd_choose(const ConvShape& shape, ConvDirection direction, Algorithm algorithm, const Kernels& kernels, int threads,
                     Choice* choice);

// Transformed weights: [t*t][panel][k][width], the same number of bytes on every ISA. Directions fwd and bwd_data.
int64_t winograd_packed_bytes(const ConvShape& shape, ConvDirection direction, Algorithm algorithm);
void winograd_pack(const Run& run, const Kernels& kernels, const ConvShape& shape, ConvDirection direction, Algorithm algorithm,
                   const float* w, float* packed);

// y = act(conv(x, w) + bias + residual). `scratch` has the bytes that winograd_choose told; backward-weights uses run.workspace.
void winograd_fwd(const Run& run, const Kernels& kernels, const ConvShape& shape, Algorithm algorithm, const Tensor& x, const float* packed,
                  const Tensor& y, const ConvEpilogueOperands& epilogue, char* scratch);
void winograd_bwd_data(const Run& run, const Kernels& kernels, const ConvShape& shape, Algorithm algorithm, const Tensor& dy,
                       const float* packed, const Tensor& dx, char* scratch);
void winograd_bwd_weights(const Run& run, const Kernels& kernels, const ConvShape& shape, Algorithm algorithm, const Tensor& x,
                          const Tensor& dy, float* dw);

}  // namespace wl
