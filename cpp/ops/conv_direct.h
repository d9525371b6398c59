// Direct convolution on brgemm. Forward and backward-data are the same correlation: every output pixel sums taps of input pixels times a
// (channels in x channels out) matrix per tap. Backward-data of stride s splits into s*s phases by the position of the pixel modulo the
// stride: a phase is a correlation of step 1 over its own subset of taps, so no dilated copy, no scatter, and pixels that no tap reaches
// get zeros.
#pragma once
#include "ops/conv.h"

namespace wl {

// The panels [group][panel][tap][k][width] of canonical `w`; backward-data orders the taps by phase.
int64_t conv_direct_packed_bytes(const ConvShape& shape, ConvDirection direction);
void conv_direct_pack(const Run& run, const Kernels& kernels, const ConvShape& shape, ConvDirection direction, const float* w,
                      float* packed);

// Bytes of scratch for `threads` threads, and what explain() shows. `normalises`: whether the input is normalised as it is read.
void conv_direct_choose(const ConvShape& shape, ConvDirection direction, bool normalises, const Kernels& kernels, int threads,
                        Choice* choice);

// Parts in which conv_direct gathers something of its output; 0 if it cannot, because the parts would not follow each other in it.
int64_t conv_direct_parts(const ConvShape& shape, ConvDirection direction, const Kernels& kernels);

// y = act(correlation of x with the packed weights + bias + residual). Forward: x and y are those of the convolution; backward-data: x is
// dy and y is dx. `scratch` has the bytes that conv_direct_choose told, `packed` comes from conv_direct_pack for the same direction. With
// `norm` x is normalised as it is read.
void conv_direct(const Run& run, const Kernels& kernels, const ConvShape& shape, ConvDirection direction, const Tensor& x,
                 const BatchNorm* norm, const float* packed, const Tensor& y, const ConvEpilogueOperands& epilogue, char* scratch);

// --- what packing and running must agree on ------------------------------------------------------------------------------------------

// How the pixels under the taps reach brgemm. A function of kernel, stride, dilation and channels alone: it fixes the order of the sum.
enum class ConvForm {
  pixels,       // a row pointer per tap and pixel, a zero row outside the picture; k runs over channels
  rows,         // input rows copied with their padding; k runs over (kx, channel), one row pointer per ky
  interleaved,  // the rows under an output row copied side by side, [ix][ky][channel]; k runs over (kx, ky, channel)
};

// One axis of a correlation: output position o reads the input positions o*step + begin + t*gap, t < taps, and stands at out_begin +
// o*out_step.
struct ConvAxis {
  int64_t in, out, step, begin, gap, taps, out_begin, out_step;
  int64_t taps_before;  // kernel positions of earlier phases
};

// The correlation seen from one direction.
struct ConvView {
  const ConvShape& shape;
  ConvDirection direction;

  bool forward() const { return direction == ConvDirection::fwd; }
  int64_t k() const { return forward() ? shape.icg() : shape.ocg(); }        // channels per tap
  int64_t columns() const { return forward() ? shape.ocg() : shape.icg(); }  // output channels per group
  int64_t phases_h() const { return forward() ? 1 : min_of(shape.sh, shape.ih); }
  int64_t phases_w() const { return forward() ? 1 : min_of(shape.sw, shape.iw); }
  ConvAxis rows(int64_t phase) const;
  ConvAxis cols(int64_t phase) const;
  ConvForm form() const;
  // Where the weights of kernel position (ky, kx) stand among the taps of a packed panel.
  int64_t tap_place(int64_t ky, int64_t kx) const;
};

}  // namespace wl
