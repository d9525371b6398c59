// Softmax cross entropy from logits. Leading axes are samples: loss = Σ weight_i l_i, divided by their number where `mean` is set, with
// l_i = -Σ_c t'_c log softmax(logits)_c and t' = (1 - smoothing) t + smoothing / classes (torch's label smoothing).
// Labels cannot be known before a run: one outside [0, classes) makes its loss, and so the whole loss, and its gradient NaN.
#include "kernels/eltwise/eltwise.h"
#include "kernels/reduce/reduce.h"
#include "ops/axes.h"
#include "ops/check.h"
#include "ops/combining_time.h"

namespace wl {
namespace {

// `rows` has the extents of the samples and classes.
Status verify_targets(const Step& s, const Tensor& rows, const Tensor& target, const Tensor* weight) {
  Tensor samples = rows;
  --samples.rank;
  if (target.dtype == DType::i32) {
    WL_CHECK(reads_as(target, samples), "%s: labels and logits differ in extents", s.path);
  } else {
    WL_CHECK(target.dtype == DType::f32, "%s: targets are labels (int32) or shares (float32)", s.path);
    WL_TRY(check_rows(s, target, rows, "targets"));
  }
  WL_CHECK(!weight || (weight->dtype == DType::f32 && reads_as(*weight, samples)), "%s: weights are float32 with one per sample", s.path);
  WL_TRY(check_real(s, AttrKey::smoothing, "smoothing", 0, 1));
  return check_int(s, AttrKey::mean, "mean", 0, 1);
}

Status verify_rows(const Step& s, const Tensor& t, const Tensor& like, const char* what) {
  WL_CHECK(t.dtype == DType::f32 && t.rank >= 1, "%s: %s is not float32 with an axis of classes", s.path, what);
  return check_rows(s, t, like, what);
}

Status verify_loss(const Step& s) {
  WL_TRY(check_arity(s, 2, 3, 2, 2));
  const Tensor& prob = *s.out[1];
  WL_TRY(verify_rows(s, prob, prob, "prob"));
  WL_TRY(verify_rows(s, *s.in[0], prob, "logits"));
  WL_TRY(check_scalar(s, *s.out[0], "the loss"));
  WL_TRY(verify_targets(s, prob, *s.in[1], s.in[2]));
  return check_outputs(s);
}

Status verify_grad(const Step& s) {
  WL_TRY(check_arity(s, 2, 4, 1, 1));
  const Tensor& dlogits = *s.out[0];
  WL_TRY(verify_rows(s, dlogits, dlogits, "dlogits"));
  WL_TRY(verify_rows(s, *s.in[0], dlogits, "prob"));
  WL_CHECK(s.n_in == 4 && s.in[3], "%s: dloss is absent", s.path);
  WL_TRY(check_scalar(s, *s.in[3], "dloss"));
  WL_TRY(verify_targets(s, dlogits, *s.in[1], s.in[2]));
  return check_outputs(s);
}

int64_t samples_of(const Tensor& rows) {
  return rows.elements() / rows.dim_from_end(0);
}

void choose_loss(const Step& s, const Kernels&, int, Choice* choice) {
  choice->workspace = round_up(samples_of(*s.out[1]) * (int64_t)sizeof(float), kCacheLine);
}

// Rows of two tensors with their targets. Labels (2), shares (3) and weights (4) are joint axes too: only samples' strides are read of
// them.
struct Samples {
  const Step& s;
  const bool integer;
  const ChannelRows<5> view;
  const int64_t tasks;

  Samples(const Step& step, const Tensor& a, const Tensor& b)
      : s(step),
        integer(step.in[1]->dtype == DType::i32),
        view({&a, &b, integer ? step.in[1] : nullptr, integer ? nullptr : step.in[1], step.in[2]}),
        tasks(view.tasks()) {}

  ClassRows targets(const int64_t* offset) const {
    ClassRows t = {};
    if (integer) {
      t.labels = s.in[1]->as<int32_t>() + offset[2], t.label_stride = view.row_stride(2);
    } else {
      t.targets = s.in[1]->f32() + offset[3], t.target_row = view.row_stride(3);
    }
    if (s.in[2]) t.weight = s.in[2]->f32() + offset[4], t.weight_stride = view.row_stride(4);
    t.smoothing = (float)s.f(AttrKey::smoothing);
    return t;
  }
};

void run_loss(const Step& s, const Run& r) {
  const Tensor &logits = *s.in[0], &prob = *s.out[1];
  const Samples samples(s, prob, logits);
  const auto& view = samples.view;
  float* losses = reinterpret_cast<float*>(r.workspace);
  parallel_for(r, samples.tasks, 2.0 * (double)(view.rows * view.channels), [&](int64_t task, int) {
    int64_t row = piece(view.rows, samples.tasks, task).begin;
    view.each_run(samples.tasks, task, [&](int64_t rows, const int64_t* offset) {
      r.kernels->eltwise->cross_entropy(rows, view.channels, logits.f32() + offset[1], view.row_stride(1), samples.targets(offset),
                                        losses + row, prob.f32() + offset[0], view.row_stride(0));
      row += rows;
    });
  });
  const CombiningTime combining(r);
  float sum;
  r.kernels->reduce->rows(ReduceKind::sum, 1, view.rows, losses, 0, &sum);
  *s.out[0]->f32() = s.i(AttrKey::mean) ? sum / (float)view.rows : sum;
}

void run_grad(const Step& s, const Run& r) {
  const Tensor &prob = *s.in[0], &dlogits = *s.out[0];
  const Samples samples(s, dlogits, prob);
  const auto& view = samples.view;
  const float dloss = *s.in[3]->f32(), factor = s.i(AttrKey::mean) ? dloss / (float)view.rows : dloss;
  parallel_for(r, samples.tasks, 0.5 * (double)(view.rows * view.channels), [&](int64_t task, int) {
    view.each_run(samples.tasks, task, [&](int64_t rows, const int64_t* offset) {
      r.kernels->eltwise->cross_entropy_grad(rows, view.channels, prob.f32() + offset[1], view.row_stride(1), samples.targets(offset),
                                             factor, dlogits.f32() + offset[0], view.row_stride(0));
    });
  });
}

}  // namespace

extern const Op op_cross_entropy, op_cross_entropy_bwd;
const Op op_cross_entropy = {"cross_entropy", verify_loss, choose_loss, run_loss};
const Op op_cross_entropy_bwd = {"cross_entropy_bwd", verify_grad, nullptr, run_grad};

}  // namespace wl
