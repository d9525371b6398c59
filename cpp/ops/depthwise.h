// Depthwise convolution (one input channel per group) in its three directions: called by conv_fwd, conv_bwd_data and conv_bwd_weights where
// depthwise_applies(). Output channel c*m + j reads input channel c; the weight is [kh][kw][1][ic*m].
//
// Channels are innermost and pixels outside: each task sweeps rows of all three tensors in memory order, and the weights of a block of
// channels stay in L1. With a multiplier m > 1 the input side is widened to ic*m channels in workspace, a row at a time; without one it may
// be normalised there, some rows at a time.
#pragma once
#include "ops/conv.h"

namespace wl {

inline bool depthwise_applies(const ConvShape& s) {
  return s.g == s.ic && s.g > 1;
}

// Fills algorithm, workspace, kernel and blocking; `packed` stays 0: all three directions read and write canonical weights. `normalises`:
// whether x is normalised as it is read.
void depthwise_choose(const ConvShape& s, ConvDirection direction, bool normalises, const Kernels& kernels, int threads, Choice* choice);

// Parts in which forward and backward-data gather something of their output; 0 if they cannot.
int64_t depthwise_parts(const ConvShape& s, ConvDirection direction, bool normalises);

// y = act(conv(x, w) + bias + residual); with `norm` x is normalised as it is read.
void depthwise_fwd(const Run& run, const Kernels& kernels, const ConvShape& s, const Tensor& x, const BatchNorm* norm, const float* w,
                   const Tensor& y, const ConvEpilogueOperands& epilogue);

void depthwise_bwd_data(const Run& run, const Kernels& kernels, const ConvShape& s, const Tensor& dy, const float* w, const Tensor& dx,
                        const Gathering* gathering);

void depthwise_bwd_weights(const Run& run, const Kernels& kernels, const ConvShape& s, const Tensor& x, const BatchNorm* norm,
                           const Tensor& dy, float* dw);

}  // namespace wl
