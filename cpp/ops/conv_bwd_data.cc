// conv_bwd_data: dx = the gradient of a convolution with respect to its input; also the forward of a transposed convolution. Where the
// convolution's input was a batch normalisation, and if wanted, the sums that the gradient of that begins with.
#include "ops/batch_gradient.h"
#include "ops/check.h"
#include "ops/conv_direct.h"
#include "ops/conv_planar.h"
#include "ops/depthwise.h"
#include "ops/winograd.h"

namespace wl {

namespace {

struct Operands {
  const Tensor &dy, &w, &dx;
  const Tensor *x, *sums;
  explicit Operands(const Step& step)
      : dy(*step.in[0]), w(*step.in[1]), dx(*step.out[0]), x(step.in[2]), sums(step.n_out > 1 ? step.out[1] : nullptr) {}
  ConvShape shape(const Step& step) const { return conv_shape(step, dx, dy, &w); }
};

constexpr int kNorm = 3;  // the first input of the batch normalisation

Status verify_sums(const Step& step, const Operands& o, int64_t channels) {
  WL_CHECK(o.sums && o.x, "%s: the sums need the x of the batch normalisation", step.path);
  WL_CHECK(o.x->dtype == DType::f32 && same_extents(*o.x, o.dx) && o.x->dense() && o.dx.dense(),
           "%s: the x of the batch normalisation is not float32 with the extents of dx, or one of them has gaps", step.path);
  WL_TRY(check_batch_norm(step, kNorm, channels));
  WL_TRY(check_vector(step, *o.sums, 2 * channels, "the sums"));
  const char saves = unary_saves(step.i(AttrKey::activation));
  WL_CHECK(saves && saves != 'x', "%s: the gradient of activation %lld cannot be taken from its output", step.path,
           (long long)step.i(AttrKey::activation));
  return Status::good();
}

Status verify(const Step& step) {
  WL_CHECK((step.n_in == 2 || (step.n_in >= 5 && step.n_in <= 7)) && step.in[0] && step.in[1] && step.n_out == (step.n_in == 2 ? 1 : 2) &&
               step.out[0],
           "%s: conv_bwd_data takes dy and w or packed and writes dx, or takes a batch normalisation too and writes its sums", step.path);
  const Operands o(step);
  WL_TRY(conv_verify(step, o.dx, o.dy, &o.w));
  const ConvShape s = o.shape(step);
  if (step.n_out == 2) WL_TRY(verify_sums(step, o, s.ic));
  return conv_verify_operand(step, s, ConvDirection::bwd_data, o.w);
}

int64_t norm_elements(const ConvShape& s) {
  return round_up(2 * s.ic, 16);
}
int64_t sum_bytes(const ConvShape& s, int64_t parts) {
  return (norm_elements(s) + BatchGradient::elements(parts, s.ic)) * (int64_t)sizeof(float);
}

void choose(const Step& step, const Kernels& all, int threads, Choice* choice) {
  const Operands o(step);
  const ConvShape s = o.shape(step);
  const Kernels& kernels = conv_kernels(step, all);
  choice->algorithm = conv_algorithm(step, s, ConvDirection::bwd_data, o.w, kernels, choice);
  conv_choose(s, ConvDirection::bwd_data, choice->algorithm, false, kernels, threads, choice);
  if (!is_packed(o.w)) choice->workspace += choice->packed;
  if (o.sums) choice->workspace += sum_bytes(s, conv_parts(s, ConvDirection::bwd_data, choice->algorithm, false, kernels));
}

void convolve(const Operands& o, const ConvShape& s, Algorithm algorithm, const Kernels& kernels, const Run& run,
              const Gathering* gathering) {
  if (algorithm == Algorithm::planar) return planar_conv(run, kernels, s, ConvDirection::bwd_data, o.dy, o.w.f32(), o.dx, {});
  if (algorithm == Algorithm::depthwise) return depthwise_bwd_data(run, kernels, s, o.dy, o.w.f32(), o.dx, gathering);
  char* scratch = run.workspace;
  const float* packed = conv_packed_operand(run, kernels, s, ConvDirection::bwd_data, algorithm, o.w, &scratch);
  ConvEpilogueOperands epilogue;
  epilogue.gathering = gathering;
  if (is_winograd(algorithm)) return winograd_bwd_data(run, kernels, s, algorithm, o.dy, packed, o.dx, epilogue, scratch);
  conv_direct(run, kernels, s, ConvDirection::bwd_data, o.dy, nullptr, packed, o.dx, epilogue, scratch);
}

void run(const Step& step, const Run& run) {
  const Operands o(step);
  const ConvShape s = o.shape(step);
  const Kernels& kernels = conv_kernels(step, *run.kernels);
  const Algorithm algorithm = conv_algorithm(step, s, ConvDirection::bwd_data, o.w, kernels, nullptr);
  if (!o.sums) return convolve(o, s, algorithm, kernels, run, nullptr);
  const int64_t parts = conv_parts(s, ConvDirection::bwd_data, algorithm, false, kernels);
  float* memory = reinterpret_cast<float*>(run.workspace);
  const BatchNorm norm = BatchNorm::of(step, kNorm, s.ic, UnaryKind(step.i(AttrKey::activation)), memory);
  const BatchGradient sums(*kernels.reduce, o.dx, *o.x, norm, parts, memory + norm_elements(s), o.sums->f32());
  Run rest = run;
  rest.workspace += sum_bytes(s, parts);
  convolve(o, s, algorithm, kernels, rest, sums.for_writer());
  sums.complete(run);
}

}  // namespace

extern const Op op_conv_bwd_data;
const Op op_conv_bwd_data = {"conv_bwd_data", verify, choose, run};

}  // namespace wl
