// Geometry and verification shared by the convolution ops.
#include <stdio.h>
#include <string.h>

#include "ops/check.h"
#include "ops/conv.h"
#include "ops/conv_direct.h"
#include "ops/conv_planar.h"
#include "ops/depthwise.h"
#include "ops/winograd.h"

namespace wl {

namespace {

constexpr int64_t kMaxKernel = 1 << 16, kMaxStep = 1 << 24;  // keep every product of positions far from overflow

Status verify_activation_tensor(const Step& step, const Tensor& t, const char* what) {
  WL_CHECK(t.dtype == DType::f32, "%s: %s is not float32", step.path, what);
  WL_CHECK(t.rank == 4, "%s: %s has rank %d, not 4 (n, h, w, c)", step.path, what, t.rank);
  WL_CHECK(t.dims[3] == 1 || t.strides[3] == 1, "%s: the channels of %s have stride %lld, not 1", step.path, what, (long long)t.strides[3]);
  return Status::good();
}

Status verify_range(const Step& step, const char* what, int64_t value, int64_t low, int64_t high) {
  WL_CHECK(value >= low && value <= high, "%s: %s is %lld, outside %lld…%lld", step.path, what, (long long)value, (long long)low,
           (long long)high);
  return Status::good();
}

Status verify_extent(const Step& step, const char* axis, int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pads,
                     int64_t dilation) {
  const int64_t room = in + pads - dilation * (kernel - 1) - 1;
  const int64_t expect = room < 0 ? 0 : room / stride + 1;
  WL_CHECK(expect == out, "%s: %s: input %lld, kernel %lld, stride %lld, padding %lld, dilation %lld give %lld positions, not %lld",
           step.path, axis, (long long)in, (long long)kernel, (long long)stride, (long long)pads, (long long)dilation, (long long)expect,
           (long long)out);
  return Status::good();
}

}  // namespace

ConvShape conv_shape(const Step& step, const Tensor& x, const Tensor& y, const Tensor* w) {
  const bool canonical = w && !is_packed(*w) && w->rank == 4;
  ConvShape s;
  s.n = x.dims[0], s.ih = x.dims[1], s.iw = x.dims[2], s.ic = x.dims[3];
  s.oh = y.dims[1], s.ow = y.dims[2], s.oc = y.dims[3];
  s.kh = step.i(AttrKey::kernel_h, canonical ? w->dims[0] : 0);
  s.kw = step.i(AttrKey::kernel_w, canonical ? w->dims[1] : 0);
  s.sh = step.i(AttrKey::stride_h, 1), s.sw = step.i(AttrKey::stride_w, 1);
  s.pad_top = step.i(AttrKey::pad_top), s.pad_left = step.i(AttrKey::pad_left);
  s.pad_bottom = step.i(AttrKey::pad_bottom), s.pad_right = step.i(AttrKey::pad_right);
  s.dilh = step.i(AttrKey::dilation_h, 1), s.dilw = step.i(AttrKey::dilation_w, 1);
  s.g = step.i(AttrKey::groups, 1);
  return s;
}

Status conv_verify_attributes(const Step& step, const ConvShape& s) {
  WL_TRY(verify_range(step, "kernel_h", s.kh, 1, kMaxKernel));
  WL_TRY(verify_range(step, "kernel_w", s.kw, 1, kMaxKernel));
  WL_TRY(verify_range(step, "stride_h", s.sh, 1, kMaxStep));
  WL_TRY(verify_range(step, "stride_w", s.sw, 1, kMaxStep));
  WL_TRY(verify_range(step, "pad_top", s.pad_top, 0, kMaxStep));
  WL_TRY(verify_range(step, "pad_left", s.pad_left, 0, kMaxStep));
  WL_TRY(verify_range(step, "pad_bottom", s.pad_bottom, 0, kMaxStep));
  WL_TRY(verify_range(step, "pad_right", s.pad_right, 0, kMaxStep));
  WL_TRY(verify_range(step, "dilation_h", s.dilh, 1, kMaxStep));
  WL_TRY(verify_range(step, "dilation_w", s.dilw, 1, kMaxStep));
  WL_TRY(verify_range(step, "groups", s.g, 1, s.ic < s.oc ? s.ic : s.oc));
  WL_CHECK(s.ic % s.g == 0 && s.oc % s.g == 0, "%s: %lld -> %lld channels do not divide into %lld groups", step.path, (long long)s.ic,
           (long long)s.oc, (long long)s.g);
  WL_CHECK(double(s.taps()) * double(s.icg()) * double(s.oc) <= 1e12, "%s: a weight of %lld x %lld x %lld x %lld is too large", step.path,
           (long long)s.kh, (long long)s.kw, (long long)s.icg(), (long long)s.oc);
  const int64_t algorithm = step.i(AttrKey::algorithm);
  WL_CHECK(algorithm >= 0 && algorithm <= int64_t(Algorithm::winograd4), "%s: no kernel for algorithm %lld", step.path,
           (long long)algorithm);
  WL_CHECK(Algorithm(algorithm) != Algorithm::planar || planar_possible(s),
           "%s: too many channels or kernel positions for algorithm planar", step.path);
  WL_CHECK(!is_winograd(Algorithm(algorithm)) || winograd_possible(s), "%s: algorithm winograd needs a 3x3 kernel of stride 1", step.path);
  WL_CHECK(Algorithm(algorithm) != Algorithm::depthwise || depthwise_applies(s),
           "%s: algorithm depthwise needs one input channel per group, not %lld", step.path, (long long)s.icg());
  return Status::good();
}

Status conv_verify_activation(const Step& step) {
  return verify_range(step, "activation", step.i(AttrKey::activation), 0, int64_t(UnaryKind::affine));
}

Status conv_verify_norm(const Step& step, const ConvShape& s, ConvDirection direction, const Tensor& x) {
  WL_TRY(check_batch_norm(step, conv_norm(direction), s.ic));
  const bool plain = s.taps() == 1 && s.sh == 1 && s.sw == 1 && s.ih == s.oh && s.iw == s.ow && s.pad_top == 0 && s.pad_left == 0;
  WL_CHECK(depthwise_applies(s) ? s.ocg() == 1 : plain && s.g == 1,
           "%s: only a depthwise convolution without a multiplier, or a 1x1 of stride 1 without padding and groups, normalises its input",
           step.path);
  const Algorithm algorithm = Algorithm(step.i(AttrKey::algorithm));
  WL_CHECK(algorithm != Algorithm::planar && !is_winograd(algorithm), "%s: this algorithm does not normalise its input", step.path);
  WL_CHECK(x.dense(), "%s: an input that is normalised has gaps", step.path);
  const UnaryKind activation = UnaryKind(step.i(AttrKey::in_activation));
  WL_CHECK(activation == UnaryKind::none || activation == UnaryKind::relu || activation == UnaryKind::relu6,
           "%s: in_activation is none, relu or relu6, not %lld", step.path, (long long)activation);
  return Status::good();
}

int64_t conv_norm_bytes(const ConvShape& s) {
  return round_up(2 * s.ic * (int64_t)sizeof(float), kCacheLine);
}

BatchNorm conv_batch_norm(const Step& step, const ConvShape& s, ConvDirection direction, char** scratch) {
  float* memory = (float*)*scratch;
  *scratch += conv_norm_bytes(s);
  return BatchNorm::of(step, conv_norm(direction), s.ic, UnaryKind(step.i(AttrKey::in_activation)), memory);
}

Status conv_verify(const Step& step, const Tensor& x, const Tensor& y, const Tensor* w) {
  WL_TRY(verify_activation_tensor(step, x, "the input side"));
  WL_TRY(verify_activation_tensor(step, y, "the output side"));
  const ConvShape s = conv_shape(step, x, y, w);
  WL_CHECK(y.dims[0] == s.n, "%s: %lld pictures in, %lld out", step.path, (long long)s.n, (long long)y.dims[0]);
  WL_CHECK(x.batch == y.batch, "%s: one side has a free batch extent, the other has not", step.path);
  WL_TRY(conv_verify_attributes(step, s));
  WL_TRY(verify_extent(step, "rows", s.ih, s.oh, s.kh, s.sh, s.pad_top + s.pad_bottom, s.dilh));
  WL_TRY(verify_extent(step, "columns", s.iw, s.ow, s.kw, s.sw, s.pad_left + s.pad_right, s.dilw));
  return Status::good();
}

Status conv_verify_weights(const Step& step, const ConvShape& s, const Tensor& w) {
  WL_CHECK(w.dtype == DType::f32 && w.rank == 4 && w.dense() && w.dims[0] == s.kh && w.dims[1] == s.kw && w.dims[2] == s.icg() &&
               w.dims[3] == s.oc,
           "%s: the weight is not dense float32 (%lld, %lld, %lld, %lld)", step.path, (long long)s.kh, (long long)s.kw, (long long)s.icg(),
           (long long)s.oc);
  return Status::good();
}

Status conv_verify_operand(const Step& step, const ConvShape& s, ConvDirection direction, const Tensor& w) {
  if (!is_packed(w)) return conv_verify_weights(step, s, w);
  const Algorithm algorithm = Algorithm(step.i(AttrKey::algorithm));
  WL_CHECK(algorithm != Algorithm::planar, "%s: algorithm planar reads canonical weights, not packed ones", step.path);
  const int64_t need = conv_packed_bytes(s, direction, algorithm);
  WL_CHECK(need > 0, "%s: so large weights are transformed on the way: winograd reads the canonical ones, not packed ones", step.path);
  WL_CHECK(w.rank == 1 && w.strides[0] == 1 && w.dims[0] >= need, "%s: packed weights hold fewer than %lld dense bytes", step.path,
           (long long)need);
  WL_CHECK(w.offset % kCacheLine == 0, "%s: packed weights are not aligned to %lld bytes", step.path, (long long)kCacheLine);
  return Status::good();
}

const Kernels& conv_kernels(const Step& step, const Kernels& kernels) {
  return Algorithm(step.i(AttrKey::algorithm)) == Algorithm::ref ? *find_kernels("ref") : kernels;
}

namespace {

// Winograd is chosen where it is clearly quicker by the cost model: its rounding errors are larger.
constexpr double kWinogradMargin = 0.85;

void refuse(Choice* choice, const char* algorithm, const char* reason) {
  const size_t used = strlen(choice->refused);
  snprintf(choice->refused + used, sizeof choice->refused - used, "%s%s: %s", used ? "; " : "", algorithm, reason);
}

}  // namespace

Algorithm conv_algorithm(const Step& step, const ConvShape& s, ConvDirection direction, const Tensor& w, const Kernels& kernels,
                         Choice* choice) {
  const Algorithm asked = Algorithm(step.i(AttrKey::algorithm));
  if (asked != Algorithm::automatic) return asked;
  Choice ignored;
  if (!choice) choice = &ignored;
  if (is_packed(w)) {
    refuse(choice, "depthwise, planar, winograd", "the weight is packed for direct");
    return Algorithm::direct;
  }
  if (depthwise_applies(s)) {
    refuse(choice, "direct, planar, winograd", "one input channel per group");
    return Algorithm::depthwise;
  }
  refuse(choice, "depthwise", "more than one input channel per group");
  if (conv_normalises(step, direction)) {
    refuse(choice, "planar, winograd", "the input is normalised as it is read");
    return Algorithm::direct;
  }
  if (planar_pays(s, direction, kernels)) {
    refuse(choice, "direct, winograd", "few channels leave lanes empty");
    return Algorithm::planar;
  }
  refuse(choice, "planar",
         min_of(s.icg(), s.ocg()) <= kThinChannels ? "channels fill the lanes well enough" : "more than 16 channels on both sides");
  if (!winograd_possible(s)) {
    refuse(choice, "winograd", "not a 3x3 kernel of stride 1 without dilation and with padding up to 2");
    return Algorithm::direct;
  }
  if (!winograd_applies(s)) {
    refuse(choice, "winograd", "fewer than 32 channels of a group: transforms cost as much as the products");
    return Algorithm::direct;
  }
  Algorithm best = Algorithm::direct;
  double least = conv_direct_cost(s, direction) * kWinogradMargin;
  const Algorithm candidates[] = {Algorithm::winograd2, Algorithm::winograd4};
  for (const Algorithm a : candidates) {
    const double cost = winograd_cost(s, direction, a);
    if (cost >= least) continue;
    best = a;
    least = cost;
  }
  const char* slower =
      best == Algorithm::direct ? "transforms cost more than they save at these extents" : "more multiply-adds at these extents";
  if (best != Algorithm::direct) refuse(choice, "direct", slower);
  if (best != Algorithm::winograd2) refuse(choice, "winograd2", slower);
  if (best != Algorithm::winograd4) refuse(choice, "winograd4", slower);
  return best;
}

void conv_choose(const ConvShape& s, ConvDirection direction, Algorithm algorithm, bool normalises, const Kernels& kernels, int threads,
                 Choice* choice) {
  if (algorithm == Algorithm::planar)
    planar_choose(s, direction, kernels, threads, choice);
  else if (algorithm == Algorithm::depthwise)
    depthwise_choose(s, direction, normalises, kernels, threads, choice);
  else if (is_winograd(algorithm))
    winograd_choose(s, direction, algorithm, kernels, threads, choice);
  else
    conv_direct_choose(s, direction, normalises, kernels, threads, choice);
}

int64_t conv_parts(const ConvShape& s, ConvDirection direction, Algorithm algorithm, bool normalises, const Kernels& kernels) {
  if (algorithm == Algorithm::depthwise) return depthwise_parts(s, direction, normalises);
  if (is_winograd(algorithm)) return winograd_parts(s, direction, algorithm);
  return algorithm == Algorithm::direct || algorithm == Algorithm::ref ? conv_direct_parts(s, direction, kernels) : 0;
}

const float* conv_packed_operand(const Run& run, const Kernels& kernels, const ConvShape& s, ConvDirection direction, Algorithm algorithm,
                                 const Tensor& w, char** scratch) {
  const int64_t bytes = conv_packed_bytes(s, direction, algorithm);
  if (is_packed(w) || bytes == 0) return w.f32();
  float* packed = (float*)*scratch;
  *scratch += bytes;
  conv_pack_weights(run, kernels, s, direction, algorithm, w.f32(), packed);
  return packed;
}

Range conv_valid(int64_t out, int64_t in, int64_t stride, int64_t pad, int64_t offset) {
  const int64_t first = pad - offset, last = in - 1 + pad - offset;  // o*stride must lie in [first, last]
  if (last < 0) return {0, 0};
  const int64_t begin = first <= 0 ? 0 : div_up(first, stride), end = min_of(out, last / stride + 1);
  return {begin, max_of(begin, end)};
}

}  // namespace wl
