// conv_bwd_data: dx = the gradient of a convolution with respect to its input; also the forward of a transposed convolution.
#include "ops/conv_direct.h"
#include "ops/conv_planar.h"
#include "ops/depthwise.h"
#include "ops/winograd.h"

namespace wl {

namespace {

struct Operands {
  const Tensor &dy, &w, &dx;
  explicit Operands(const Step& step) : dy(*step.in[0]), w(*step.in[1]), dx(*step.out[0]) {}
  ConvShape shape(const Step& step) const { return conv_shape(step, dx, dy, &w); }
};

Status verify(const Step& step) {
  WL_CHECK(step.n_in == 2 && step.in[0] && step.in[1] && step.n_out == 1 && step.out[0],
           "%s: conv_bwd_data takes dy and w or packed and writes dx", step.path);
  const Operands o(step);
  WL_TRY(conv_verify(step, o.dx, o.dy, &o.w));
  return conv_verify_operand(step, o.shape(step), ConvDirection::bwd_data, o.w);
}

void choose(const Step& step, const Kernels& all, int threads, Choice* choice) {
  const Operands o(step);
  const ConvShape s = o.shape(step);
  const Kernels& kernels = conv_kernels(step, all);
  choice->algorithm = conv_algorithm(step, s, ConvDirection::bwd_data, o.w, kernels, choice);
  if (choice->algorithm == Algorithm::planar) return planar_choose(s, ConvDirection::bwd_data, kernels, threads, choice);
  if (choice->algorithm == Algorithm::depthwise) return depthwise_choose(s, ConvDirection::bwd_data, kernels, threads, choice);
  if (is_winograd(choice->algorithm))
    winograd_choose(s, ConvDirection::bwd_data, choice->algorithm, kernels, threads, choice);
  else
    conv_direct_choose(s, ConvDirection::bwd_data, kernels, threads, choice);
  if (!is_packed(o.w)) choice->workspace += choice->packed;
}

void run(const Step& step, const Run& run) {
  const Operands o(step);
  const ConvShape s = o.shape(step);
  const Kernels& kernels = conv_kernels(step, *run.kernels);
  const Algorithm algorithm = conv_algorithm(step, s, ConvDirection::bwd_data, o.w, kernels, nullptr);
  if (algorithm == Algorithm::planar) return planar_conv(run, kernels, s, ConvDirection::bwd_data, o.dy, o.w.f32(), o.dx, {});
  if (algorithm == Algorithm::depthwise) return depthwise_bwd_data(run, kernels, s, o.dy, o.w.f32(), o.dx);
  char* scratch = run.workspace;
  const float* packed = conv_packed_operand(run, kernels, s, ConvDirection::bwd_data, algorithm, o.w, &scratch);
  if (is_winograd(algorithm)) return winograd_bwd_data(run, kernels, s, algorithm, o.dy, packed, o.dx, scratch);
  conv_direct(run, kernels, s, ConvDirection::bwd_data, o.dy, packed, o.dx, {}, scratch);
}

}  // namespace

extern const Op op_conv_bwd_data;
const Op op_conv_bwd_data = {"conv_bwd_data", verify, choose, run};

}  // namespace wl
