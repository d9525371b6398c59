// Winograd's minimal filtering for 3x3 convolutions of stride 1, F(2x2) and F(4x4), in the three directions: called by conv_pack, conv_fwd,
// conv_bwd_data and conv_bwd_weights where their algorithm is winograd2 or winograd4. Groups are computed one after the other.
//
// Forward and backward-data are the same correlation with the roles of the two pictures exchanged. A tile of (m+2) x (m+2) inputs becomes
// t*t vectors over channels; for each of these t*t places one product [tiles x ic] * [ic x oc] runs on brgemm; the inverse transform, with
// bias, residual and activation, writes m x m outputs. Backward-weights transforms x and dy, sums products over the tiles and
// transforms once at the end.
//
// Two schedules of the correlation, chosen by the size of the transformed weights. By tiles: a task takes a few tiles through all three
// phases, so that they stay in its cache, and packed weights pass by. By columns, where the weights are large: the tiles are transformed
// first; then a task takes a panel of output columns and transforms their weights itself, in its cache, where it needs them.
#pragma once
#include "ops/conv.h"

namespace wl {

inline bool is_winograd(Algorithm a) {
  return a == Algorithm::winograd2 || a == Algorithm::winograd4;
}

// Whether the algorithm can compute the direction at all: 3x3, stride 1, no dilation, padding at most 2.
bool winograd_possible(const ConvShape& shape);

// Whether a convolution that is left to itself may come to it, for some batch: possible, and at least 32 channels of a group on both sides;
// below, the transforms cost as much as the products.
bool winograd_applies(const ConvShape& shape);

// Multiply-adds of one core's time, in units of a direct convolution's multiply-add: direct, winograd2 and winograd4 compared by shapes
// alone. The constants are measured ones (docs/decisions/0002-winograd.md).
double conv_direct_cost(const ConvShape& shape, ConvDirection direction);
double winograd_cost(const ConvShape& shape, ConvDirection direction, Algorithm algorithm);

// Fills kernel, blocking and workspace for `algorithm` (which is winograd2 or winograd4).
void winograd_choose(const ConvShape& shape, ConvDirection direction, Algorithm algorithm, const Kernels& kernels, int threads,
                     Choice* choice);

// Parts in which the correlation gathers something of its output; 0 if it cannot, because they would not follow each other in it.
int64_t winograd_parts(const ConvShape& shape, ConvDirection direction, Algorithm algorithm);

// Transformed weights: [group][t*t][panel][k][width], the same number of bytes on every ISA; none where canonical weights are transformed
// on the way. Directions fwd and bwd_data.
int64_t winograd_packed_bytes(const ConvShape& shape, ConvDirection direction, Algorithm algorithm);
void winograd_pack(const Run& run, const Kernels& kernels, const ConvShape& shape, ConvDirection direction, Algorithm algorithm,
                   const float* w, float* packed);

// y = act(conv(x, w) + bias + residual), where w is packed if it has packed bytes. `scratch` has the bytes that winograd_choose told.
void winograd_fwd(const Run& run, const Kernels& kernels, const ConvShape& shape, Algorithm algorithm, const Tensor& x, const float* w,
                  const Tensor& y, const ConvEpilogueOperands& epilogue, char* scratch);
void winograd_bwd_data(const Run& run, const Kernels& kernels, const ConvShape& shape, Algorithm algorithm, const Tensor& dy,
                       const float* w, const Tensor& dx, const ConvEpilogueOperands& epilogue, char* scratch);

// Its own file; uses run.workspace. winograd_choose calls winograd_bwd_weights_choose.
void winograd_bwd_weights_choose(const ConvShape& shape, Algorithm algorithm, int threads, Choice* choice);
void winograd_bwd_weights(const Run& run, const Kernels& kernels, const ConvShape& shape, Algorithm algorithm, const Tensor& x,
                          const Tensor& dy, float* dw);

}  // namespace wl
