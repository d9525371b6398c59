#include "kernels/eltwise/eltwise.h"
#include "kernels/reduce/reduce.h"
#include "ops/axes.h"
#include "ops/check.h"
#include "ops/combining_time.h"

namespace wl {
namespace {

constexpr int64_t kMostPartials = 64;     // tasks that sum, combined in order
constexpr int64_t kBlockElements = 4096;  // of dx, between computing and summing

template <int K>
bool gapless_inner(const Axes<K>& axes) {
  const int last = axes.rank - 1;
  if (axes.extent[last] == 1) return true;
  for (int k = 0; k < K; ++k)
    if (axes.stride[k][last] != 1) return false;
  return true;
}

// Rough time of one element in nanoseconds.
double cost(UnaryKind kind) {
  switch (kind) {
    case UnaryKind::none:
    case UnaryKind::relu:
    case UnaryKind::relu6:
    case UnaryKind::leaky_relu:
    case UnaryKind::square:
    case UnaryKind::abs:
    case UnaryKind::affine: return 0.3;
    default: return 1.0;
  }
}

Status verify_unary(const Step& s) {
  WL_TRY(check_arity(s, 1, 1, 1, 1));
  WL_TRY(check_float(s));
  WL_CHECK(unary_saves(s.i(AttrKey::kind)), "%s: no unary kind %lld", s.path, (long long)s.i(AttrKey::kind));
  WL_CHECK(same_extents(*s.in[0], *s.out[0]), "%s: x and y differ in extents", s.path);
  WL_CHECK(gapless_inner(collapse<2>({s.out[0], s.in[0]})), "%s: the innermost axis of x and y needs stride 1", s.path);
  return check_outputs(s);
}

void run_unary(const Step& s, const Run& r) {
  const Tensor &x = *s.in[0], &y = *s.out[0];
  const UnaryKind kind = (UnaryKind)s.i(AttrKey::kind);
  const float alpha = (float)s.f(AttrKey::alpha), beta = (float)s.f(AttrKey::beta);
  for_each_rect(r, collapse<2>({&y, &x}), cost(kind), [&](const Rect<2>& t) {
    for (int64_t i = 0; i < t.rows; ++i)
      r.kernels->eltwise->unary(kind, alpha, beta, t.cols, x.f32() + t.offset[1] + i * t.row[1], y.f32() + t.offset[0] + i * t.row[0]);
  });
}

// `s` may be absent for the kinds whose derivative reads nothing. The second
// output, where it is, gets the sums of dx over all axes but the last: the
// gradient of a bias.
Status verify_grad(const Step& s) {
  WL_TRY(check_arity(s, 0, 2, 1, 2));
  WL_TRY(check_float(s));
  const char saves = unary_saves(s.i(AttrKey::kind));
  WL_CHECK(saves, "%s: no unary kind %lld", s.path, (long long)s.i(AttrKey::kind));
  WL_CHECK(s.n_in == 2 && s.in[1], "%s: dy is absent", s.path);
  WL_CHECK(s.in[0] || saves == 'n', "%s: this kind's gradient needs the saved tensor", s.path);
  const Tensor& dx = *s.out[0];
  for (int i = 0; i < 2; ++i) WL_CHECK(!s.in[i] || same_extents(*s.in[i], dx), "%s: input %d and dx differ in extents", s.path, i);
  if (s.out[1]) {
    WL_CHECK(dx.rank >= 1, "%s: sums need an axis of channels", s.path);
    WL_TRY(check_rows(s, dx, dx, "dx"));
    WL_TRY(check_rows(s, *s.in[1], dx, "dy"));
    if (s.in[0]) WL_TRY(check_rows(s, *s.in[0], dx, "the saved tensor"));
    WL_TRY(check_vector(s, *s.out[1], dx.dim_from_end(0), "the sums"));
  } else {
    WL_CHECK(gapless_inner(collapse<3>({s.out[0], s.in[1], s.in[0] ? s.in[0] : s.in[1]})), "%s: the innermost axis needs stride 1", s.path);
  }
  return check_outputs(s);
}

// dx, dy and what is saved.
ChannelRows<3> grad_view(const Step& s) {
  return ChannelRows<3>({s.out[0], s.in[1], s.in[0] ? s.in[0] : s.in[1]});
}

void choose_grad(const Step& s, const Kernels&, int, Choice* choice) {
  if (!s.out[1]) return;
  const auto view = grad_view(s);
  choice->workspace = round_up(view.tasks(kMostPartials) * view.channels * (int64_t)sizeof(float), kCacheLine);
}

void run_grad(const Step& s, const Run& r) {
  const Tensor &dy = *s.in[1], &dx = *s.out[0], &saved = s.in[0] ? *s.in[0] : dy;
  const UnaryKind kind = (UnaryKind)s.i(AttrKey::kind);
  const float alpha = (float)s.f(AttrKey::alpha), beta = (float)s.f(AttrKey::beta);
  const EltwiseKernels& eltwise = *r.kernels->eltwise;
  if (!s.out[1])
    return for_each_rect(r, collapse<3>({&dx, &dy, &saved}), cost(kind), [&](const Rect<3>& t) {
      for (int64_t i = 0; i < t.rows; ++i)
        eltwise.unary_grad(kind, alpha, beta, t.cols, saved.f32() + t.offset[2] + i * t.row[2], dy.f32() + t.offset[1] + i * t.row[1],
                           dx.f32() + t.offset[0] + i * t.row[0]);
    });

  const auto view = grad_view(s);
  const int64_t c = view.channels, tasks = view.tasks(kMostPartials), block = max_of(1, kBlockElements / c);
  const bool gapless = view.row_stride(0) == c && view.row_stride(1) == c && view.row_stride(2) == c;
  float *partial = reinterpret_cast<float*>(r.workspace), *sums = s.out[1]->f32();
  parallel_for(r, tasks, (cost(kind) + 0.1) * (double)(view.rows * c), [&](int64_t task, int) {
    float* own = partial + c * task;
    for (int64_t i = 0; i < c; ++i) own[i] = 0.0f;
    view.each_run(tasks, task, [&](int64_t rows, const int64_t* offset) {
      for (int64_t begin = 0; begin < rows; begin += block) {  // summed while it is in the first cache level
        const int64_t n = min_of(block, rows - begin), lines = gapless ? 1 : n, length = gapless ? n * c : c;
        float* to = dx.f32() + offset[0] + begin * view.row_stride(0);
        for (int64_t i = 0; i < lines; ++i)
          eltwise.unary_grad(kind, alpha, beta, length, saved.f32() + offset[2] + (begin + i) * view.row_stride(2),
                             dy.f32() + offset[1] + (begin + i) * view.row_stride(1), to + i * view.row_stride(0));
        r.kernels->reduce->columns(ReduceKind::sum, 1, n, c, to, 0, view.row_stride(0), own);
      }
    });
  });
  const CombiningTime combining(r);
  for (int64_t i = 0; i < c; ++i) sums[i] = 0.0f;
  r.kernels->reduce->columns(ReduceKind::sum, 1, tasks, c, partial, 0, c, sums);
}

}  // namespace

extern const Op op_unary, op_unary_bwd;
const Op op_unary = {"unary", verify_unary, nullptr, run_unary, in_place(0, 0)};
const Op op_unary_bwd = {"unary_bwd", verify_grad, choose_grad, run_grad, in_place(1, 0)};

}  // namespace wl
