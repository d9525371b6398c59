// conv_fwd: y = act(conv(x, w) + bias + residual), and if wanted the mean and variance of every channel of y. x may be read through a batch
// normalisation.
#include "ops/batch_moments.h"
#include "ops/check.h"
#include "ops/conv_direct.h"
#include "ops/conv_planar.h"
#include "ops/depthwise.h"
#include "ops/winograd.h"

namespace wl {

namespace {

struct Operands {
  const Tensor &x, &w, &y;
  const Tensor *bias, *residual, *mean, *var;
  explicit Operands(const Step& step)
      : x(*step.in[0]),
        w(*step.in[1]),
        y(*step.out[0]),
        bias(step.in[2]),
        residual(step.in[3]),
        mean(step.n_out > 1 ? step.out[1] : nullptr),
        var(step.n_out > 2 ? step.out[2] : nullptr) {}
  ConvShape shape(const Step& step) const { return conv_shape(step, x, y, &w); }
};

Status verify(const Step& step) {
  WL_CHECK(
      step.n_in >= 2 && step.n_in <= 8 && step.n_in != 5 && step.in[0] && step.in[1] && (step.n_out == 1 || step.n_out == 3) && step.out[0],
      "%s: conv_fwd takes x, w or packed, bias, residual and a batch normalisation and writes y, or y, mean and var", step.path);
  const Operands o(step);
  WL_TRY(conv_verify(step, o.x, o.y, &o.w));
  const ConvShape s = o.shape(step);
  WL_TRY(conv_verify_operand(step, s, ConvDirection::fwd, o.w));
  if (o.bias) {
    WL_CHECK(o.bias->dtype == DType::f32 && o.bias->rank == 1 && o.bias->dims[0] == s.oc && o.bias->dense(),
             "%s: bias is not %lld dense float32", step.path, (long long)s.oc);
  }
  if (o.residual) {
    const Tensor& r = *o.residual;
    bool equal = r.dtype == DType::f32 && r.rank == 4 && r.batch == o.y.batch && (r.dims[3] == 1 || r.strides[3] == 1);
    for (int i = 0; equal && i < 4; ++i) equal = r.dims[i] == o.y.dims[i];
    WL_CHECK(equal, "%s: the residual is not float32 with the extents of y and channel stride 1", step.path);
  }
  if (step.n_out == 3) {
    WL_CHECK(o.mean && o.var && o.y.dense(), "%s: statistics are of a y without gaps, mean and var", step.path);
    WL_TRY(check_vector(step, *o.mean, s.oc, "mean"));
    WL_TRY(check_vector(step, *o.var, s.oc, "var"));
  }
  if (conv_normalises(step, ConvDirection::fwd)) WL_TRY(conv_verify_norm(step, s, ConvDirection::fwd, o.x));
  return conv_verify_activation(step);
}

int64_t moment_bytes(const ConvShape& s, int64_t parts) {
  return BatchMoments::elements(parts, s.oc) * (int64_t)sizeof(float);
}

void choose(const Step& step, const Kernels& all, int threads, Choice* choice) {
  const Operands o(step);
  const ConvShape s = o.shape(step);
  const Kernels& kernels = conv_kernels(step, all);
  const bool normalises = conv_normalises(step, ConvDirection::fwd);
  choice->algorithm = conv_algorithm(step, s, ConvDirection::fwd, o.w, kernels, choice);
  conv_choose(s, ConvDirection::fwd, choice->algorithm, normalises, kernels, threads, choice);
  if (!is_packed(o.w)) choice->workspace += choice->packed;
  if (normalises) choice->workspace += conv_norm_bytes(s);
  if (o.mean) choice->workspace += moment_bytes(s, conv_parts(s, ConvDirection::fwd, choice->algorithm, normalises, kernels));
}

void convolve(const Step& step, const Operands& o, const ConvShape& s, Algorithm algorithm, const BatchNorm* norm, const Kernels& kernels,
              const Run& run, const Gathering* gathering) {
  ConvEpilogueOperands epilogue;
  epilogue.gathering = gathering;
  epilogue.bias = o.bias ? o.bias->f32() : nullptr;
  epilogue.residual = o.residual;
  epilogue.activation = UnaryKind(step.i(AttrKey::activation));
  epilogue.alpha = (float)step.f(AttrKey::alpha), epilogue.beta = (float)step.f(AttrKey::beta);
  if (algorithm == Algorithm::planar) return planar_conv(run, kernels, s, ConvDirection::fwd, o.x, o.w.f32(), o.y, epilogue);
  if (algorithm == Algorithm::depthwise) return depthwise_fwd(run, kernels, s, o.x, norm, o.w.f32(), o.y, epilogue);
  char* scratch = run.workspace;
  const float* packed = conv_packed_operand(run, kernels, s, ConvDirection::fwd, algorithm, o.w, &scratch);
  if (is_winograd(algorithm)) return winograd_fwd(run, kernels, s, algorithm, o.x, packed, o.y, epilogue, scratch);
  conv_direct(run, kernels, s, ConvDirection::fwd, o.x, norm, packed, o.y, epilogue, scratch);
}

void run(const Step& step, const Run& run) {
  const Operands o(step);
  const ConvShape s = o.shape(step);
  const Kernels& kernels = conv_kernels(step, *run.kernels);
  const Algorithm algorithm = conv_algorithm(step, s, ConvDirection::fwd, o.w, kernels, nullptr);
  Run rest = run;
  const bool normalises = conv_normalises(step, ConvDirection::fwd);
  BatchNorm norm{};
  if (normalises) norm = conv_batch_norm(step, s, ConvDirection::fwd, &rest.workspace);
  const BatchNorm* through = normalises ? &norm : nullptr;
  if (!o.mean) return convolve(step, o, s, algorithm, through, kernels, rest, nullptr);
  const int64_t parts = conv_parts(s, ConvDirection::fwd, algorithm, normalises, kernels);
  const BatchMoments moments(*kernels.reduce, o.y, parts, reinterpret_cast<float*>(rest.workspace), o.mean->f32(), o.var->f32());
  rest.workspace += moment_bytes(s, parts);
  convolve(step, o, s, algorithm, through, kernels, rest, moments.for_writer());
  moments.complete(run);
}

}  // namespace

extern const Op op_conv_fwd;
const Op op_conv_fwd = {"conv_fwd", verify, choose, run};

}  // namespace wl
