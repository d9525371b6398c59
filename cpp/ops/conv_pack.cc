// conv_pack: canonical weights into the panels that brgemm reads.
#include "kernels/brgemm/brgemm.h"
#include "ops/conv_direct.h"
#include "ops/depthwise.h"
#include "ops/winograd.h"

namespace wl {

namespace {

constexpr int64_t kRowsPerTask = 64, kLeastElements = 1024;  // of a matrix, in a task
constexpr double kNanosecondsPerFloat = 0.5;

// The shape as far as packing needs it: the weight and the attributes. Pictures are as small as the kernel allows.
ConvShape weight_shape(const Step& step) {
  const Tensor& w = *step.in[0];
  Tensor x = w, y = w;
  ConvShape s = conv_shape(step, x, y, &w);
  s.n = 1, s.oh = s.ow = 1;
  s.ih = s.dilh * (s.kh - 1) + 1, s.iw = s.dilw * (s.kw - 1) + 1;
  s.ic = w.dims[2] * s.g, s.oc = w.dims[3];
  return s;
}

ConvDirection direction_of(const Step& step) {
  return ConvDirection(step.i(AttrKey::direction));
}

Status verify(const Step& step) {
  WL_CHECK(step.n_in == 1 && step.in[0] && step.n_out == 1 && step.out[0], "%s: conv_pack takes a weight and writes packed bytes",
           step.path);
  WL_CHECK(step.in[0]->rank == 4, "%s: the weight has rank %d, not 4", step.path, step.in[0]->rank);
  const int64_t direction = step.i(AttrKey::direction);
  WL_CHECK(direction == int64_t(ConvDirection::fwd) || direction == int64_t(ConvDirection::bwd_data),
           "%s: nothing is packed for direction %lld", step.path, (long long)direction);
  ConvShape s = weight_shape(step);
  WL_TRY(conv_verify_attributes(step, s));
  WL_TRY(conv_verify_weights(step, s, *step.in[0]));
  WL_CHECK(is_packed(*step.out[0]), "%s: packed weights are bytes (u8)", step.path);
  return conv_verify_operand(step, s, direction_of(step), *step.out[0]);
}

void choose(const Step& step, const Kernels& kernels, int, Choice* choice) {
  const ConvShape s = weight_shape(step);
  choice->algorithm = Algorithm(step.i(AttrKey::algorithm, int64_t(Algorithm::direct)));
  choice->packed = conv_packed_bytes(s, direction_of(step), choice->algorithm);
  snprintf(choice->kernel, sizeof choice->kernel, "brgemm pack %d", conv_kernels(step, kernels).brgemm->width);
}

void run(const Step& step, const Run& run) {
  const Kernels& kernels = conv_kernels(step, *run.kernels);
  conv_pack_weights(run, kernels, weight_shape(step), direction_of(step), Algorithm(step.i(AttrKey::algorithm)), step.in[0]->f32(),
                    step.out[0]->f32());
}

// pack_transposed turns square blocks of a vector's length; of a matrix with few rows or columns most of a block would be empty.
constexpr int64_t kNarrow = 8;

void pack_transposed_narrow(const BrgemmPackArgs& g) {
  for (int64_t column = 0; column < g.n; column += g.width) {
    const int64_t columns = min_of(g.n - column, g.width);
    const float* src = g.src + column * g.stride;
    float* dst = g.dst + column / g.width * g.panel;
    for (int64_t p = 0; p < g.k; ++p, dst += g.width) {
      for (int64_t j = 0; j < columns; ++j) dst[j] = src[j * g.stride + p];
      for (int64_t j = columns; j < g.width; ++j) dst[j] = 0;
    }
  }
}

}  // namespace

int64_t conv_packed_bytes(const ConvShape& s, ConvDirection direction, Algorithm algorithm) {
  return is_winograd(algorithm) ? winograd_packed_bytes(s, direction, algorithm) : conv_direct_packed_bytes(s, direction);
}

void conv_pack_weights(const Run& run, const Kernels& kernels, const ConvShape& s, ConvDirection direction, Algorithm algorithm,
                       const float* w, float* packed) {
  if (is_winograd(algorithm))
    winograd_pack(run, kernels, s, direction, algorithm, w, packed);
  else
    conv_direct_pack(run, kernels, s, direction, w, packed);
}

void conv_direct_pack(const Run& run, const Kernels& kernels, const ConvShape& s, ConvDirection direction, const float* w, float* packed) {
  const BrgemmKernels& brgemm = *kernels.brgemm;
  const ConvView view{s, direction};
  const int64_t k = view.k(), columns = view.columns(), width = brgemm.panel_width(columns), panels = div_up(columns, width);
  const int64_t panel = s.taps() * k * width, blocks = div_up(k, kRowsPerTask);
  const int64_t group_blocks = div_up(s.g, max_of(1, kLeastElements / (k * columns)));
  const auto body = [&](int64_t task, int) {
    const Range rows = piece(k, blocks, task % blocks), groups = piece(s.g, group_blocks, task / blocks % group_blocks);
    const int64_t tap = task / blocks / group_blocks, place = view.tap_place(tap / s.kw, tap % s.kw);
    BrgemmPackArgs g;
    g.stride = s.oc, g.k = rows.size(), g.n = columns, g.panel = panel, g.width = width;
    for (int64_t group = groups.begin; group < groups.end; ++group) {
      const float* matrix = w + tap * s.icg() * s.oc + group * s.ocg();  // [ic/g][oc]
      g.dst = packed + group * panels * panel + (place * k + rows.begin) * width;
      if (view.forward()) {
        g.src = matrix + rows.begin * s.oc;
        brgemm.pack(g);
      } else {
        g.src = matrix + rows.begin;
        min_of(g.k, g.n) < kNarrow ? pack_transposed_narrow(g) : brgemm.pack_transposed(g);
      }
    }
  };
  parallel_for(run, s.taps() * group_blocks * blocks, double(s.taps()) * double(s.icg()) * double(s.oc) * kNanosecondsPerFloat, body);
}

extern const Op op_conv_pack;
const Op op_conv_pack = {"conv_pack", verify, choose, run};

}  // namespace wl
