// What the convolution ops share: geometry, verification, and the layout of packed weights. One row of output pixels is
//   y[n][oy][ox][o] = Σ_{ky,kx,i} x[n][oy*sh - pad_top + ky*dilh][ox*sw - pad_left + kx*dilw][i] * w[ky][kx][i][o]
// with x zero outside the picture; in group q the channels i run over [q*icg, (q+1)*icg) of x and o over [q*ocg, (q+1)*ocg) of y.
// x and y may be any NHWC views with channel stride 1; w is dense, [kh][kw][ic/g][oc], oc group-major.
#pragma once
#include "ops/batch_norm.h"
#include "ops/op.h"

namespace wl {

struct ConvShape {
  int64_t n, ih, iw, ic, oh, ow, oc, kh, kw;
  int64_t sh, sw, pad_top, pad_left, pad_bottom, pad_right, dilh, dilw, g;

  int64_t icg() const { return ic / g; }
  int64_t ocg() const { return oc / g; }
  int64_t taps() const { return kh * kw; }
  double macs() const { return double(n) * double(oh) * double(ow) * double(oc) * double(taps()) * double(icg()); }
};

// The shape of a step between `x` (input side: x or dx) and `y` (output side: y or dy). Kernel extents come from the attributes kernel_h
// and kernel_w, or where these are absent from the canonical weight `w` (w or dw; null or packed: the attributes are needed).
ConvShape conv_shape(const Step& step, const Tensor& x, const Tensor& y, const Tensor* w);

// All that conv_fwd, conv_bwd_data and conv_bwd_weights rely on about x, y, the attributes and how they fit: float32, rank 4, channel
// stride 1, ranges, divisibility by groups, oh = (ih + pad_top + pad_bottom - dilh*(kh-1) - 1) / sh + 1 (rounded down) and ow alike.
Status conv_verify(const Step& step, const Tensor& x, const Tensor& y, const Tensor* w);

// The ranges of kernel, stride, padding, dilation, groups and algorithm, and divisibility of the channels: what conv_verify checks without
// pictures.
Status conv_verify_attributes(const Step& step, const ConvShape& shape);

// Whether a step reads its input through a batch normalisation, whose operands begin at input conv_norm(direction). Only what reads every
// pixel once or a few times can: depthwise convolution, and 1x1 of stride 1 without padding.
constexpr int conv_norm(ConvDirection direction) {
  return direction == ConvDirection::fwd ? 4 : 2;
}
inline bool conv_normalises(const Step& step, ConvDirection direction) {
  return direction != ConvDirection::bwd_data && step.n_in > conv_norm(direction);
}
Status conv_verify_norm(const Step& step, const ConvShape& shape, ConvDirection direction, const Tensor& x);

// That batch normalisation, on memory that is taken from *scratch; its bytes are those of conv_norm_bytes.
int64_t conv_norm_bytes(const ConvShape& shape);
BatchNorm conv_batch_norm(const Step& step, const ConvShape& shape, ConvDirection direction, char** scratch);

// A known activation.
Status conv_verify_activation(const Step& step);

// `w` is the canonical float32 weight of `shape`.
Status conv_verify_weights(const Step& step, const ConvShape& shape, const Tensor& w);

// `w` is either the canonical weight or the packed bytes (u8, rank 1, at least conv_packed_bytes) for this direction.
Status conv_verify_operand(const Step& step, const ConvShape& shape, ConvDirection direction, const Tensor& w);
inline bool is_packed(const Tensor& w) {
  return w.dtype == DType::u8;
}

// The kernels that a step runs on: those of its run, or the reference ones where its algorithm is `ref`.
const Kernels& conv_kernels(const Step& step, const Kernels& kernels);

// The algorithm of a step in a direction: the one that its attribute asks for (verified before), or for `automatic` the quickest by the
// cost models that can compute it (of `kernels` only the lanes matter). `w` is the weight operand: packed bytes without an attribute are
// direct's. Writes the others' reasons to choice->refused unless choice is null.
Algorithm conv_algorithm(const Step& step, const ConvShape& shape, ConvDirection direction, const Tensor& w, const Kernels& kernels,
                         Choice* choice);

// Along one axis, the output positions that read inside the input at kernel offset k*dil: the o in [0, out) with 0 <= o*stride - pad +
// offset < in.
Range conv_valid(int64_t out, int64_t in, int64_t stride, int64_t pad, int64_t offset);

// What is gathered of a dense tensor while each part of it is still in cache: by the convolution that writes it, if that has parts, else in
// a pass of its own. The parts are combined in order, so the bits depend on how the shape is cut alone.
class Gathering {
 public:
  static constexpr int64_t kParts = 64;  // of such a pass

  // The channels of part `part`, which is the rows of pixels `rows` of all pictures. May run at the same time for other parts or channels.
  virtual void add(int64_t part, Range rows, Range channels) const = 0;

  // For the writer, which adds every part in every channel; null if it has none.
  const Gathering* for_writer() const { return written_in_parts_ ? this : nullptr; }

  // Once the tensor is written.
  void complete(const Run& run) const {
    if (!written_in_parts_)
      parallel_for(run, parts_, 0.5 * (double)(rows_ * channels_), [&](int64_t part, int) {
        add(part, piece(rows_, parts_, part), {0, channels_});
      });
    combine(run);
  }

 protected:
  // Rows are all axes of `t` but the last; `parts` are the writer's, or 0.
  Gathering(const Tensor& t, int64_t parts)
      : channels_(t.dim_from_end(0)),
        rows_(t.elements() / channels_),
        parts_(parts > 0 ? parts : min_of(kParts, rows_)),
        written_in_parts_(parts > 0) {}
  ~Gathering() = default;
  virtual void combine(const Run& run) const = 0;

  const int64_t channels_, rows_, parts_;

 private:
  const bool written_in_parts_;
};

// What becomes of a convolution's sums: y = act(sums + bias + residual), of which something may be gathered. Backward-data gathers at most.
struct ConvEpilogueOperands {
  const float* bias = nullptr;       // (oc), or null
  const Tensor* residual = nullptr;  // extents of y, or null; may be y itself
  UnaryKind activation = UnaryKind::none;
  float alpha = 0, beta = 0;
  const Gathering* gathering = nullptr;  // of algorithms with parts
};

// Fills `choice` for an algorithm of forward or backward-data. `normalises`: whether the input is normalised as it is read.
void conv_choose(const ConvShape& shape, ConvDirection direction, Algorithm algorithm, bool normalises, const Kernels& kernels, int threads,
                 Choice* choice);

// Parts in which such an algorithm writes its output, for a Gathering; 0 if it has none that follow each other.
int64_t conv_parts(const ConvShape& shape, ConvDirection direction, Algorithm algorithm, bool normalises, const Kernels& kernels);

// --- packed weights -----------------------------------------------------------------------------------------------------------------
// Packed weights are the B operand of brgemm: for direct convolution [group][panel][tap][k][width] (conv_direct.h), for Winograd
// [group][place][panel][k][width] (winograd.h), with zeros in the columns past the last channel. Forward: k runs over ic/g and the columns
// over oc/g; backward-data: the other way round.

// Bytes of the packed weights for a direction: the same on every ISA. None where the algorithm reads canonical ones.
int64_t conv_packed_bytes(const ConvShape& shape, ConvDirection direction, Algorithm algorithm);

// The weights that the algorithm reads: those of operand `w`, or, where w is canonical and they must be packed, packed into *scratch, which
// is moved past them.
const float* conv_packed_operand(const Run& run, const Kernels& kernels, const ConvShape& shape, ConvDirection direction,
                                 Algorithm algorithm, const Tensor& w, char** scratch);

// Packs canonical `w` for `direction` into `packed`; parallel.
void conv_pack_weights(const Run& run, const Kernels& kernels, const ConvShape& shape, ConvDirection direction, Algorithm algorithm,
                       const float* w, float* packed);

}  // namespace wl
