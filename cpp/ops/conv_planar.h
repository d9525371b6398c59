// Convolution of few channels on planes, in the three directions: called by conv_fwd, conv_bwd_data and conv_bwd_weights where their
// algorithm is planar.
//
// Vectors run over pixels where the other algorithms run over channels, so a side of 6 channels wastes no lanes. Tensors stay NHWC: each
// task brings the rows it reads into planes of its own (kernels/planar), and writes NHWC from registers. Weights are read in canonical
// form.
#pragma once
#include "ops/conv.h"

namespace wl {

// Whether the algorithm can compute the shape at all: the planes of a task stay small enough to be addressed.
bool planar_possible(const ConvShape& shape);

constexpr int64_t kThinChannels = 16;  // and fewer

// Whether the algorithm is clearly quicker than direct, for shapes with at most kThinChannels channels on a side of a group: by a cost
// model of shapes and lanes alone, whose constants are measured ones (docs/decisions/0006-thin-channels.md).
bool planar_pays(const ConvShape& shape, ConvDirection direction, const Kernels& kernels);

// Fills kernel, blocking and workspace; `packed` stays 0.
void planar_choose(const ConvShape& shape, ConvDirection direction, const Kernels& kernels, int threads, Choice* choice);

// y = act(conv(x, w) + bias + residual) for direction fwd; for bwd_data, x is dy and y is dx.
void planar_conv(const Run& run, const Kernels& kernels, const ConvShape& shape, ConvDirection direction, const Tensor& x, const float* w,
                 const Tensor& y, const ConvEpilogueOperands& epilogue);
void planar_bwd_weights(const Run& run, const Kernels& kernels, const ConvShape& shape, const Tensor& x, const Tensor& dy, float* dw);

}  // namespace wl
