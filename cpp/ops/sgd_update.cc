// Stochastic gradient descent: sgd_update over flat parameters and gradients; sgd_matmul, where the gradient of a large dense weight is
// computed block by block and used while it is in cache, so that it is never written.
#include <stdio.h>

#include "kernels/brgemm/brgemm.h"
#include "ops/flat.h"

namespace wl {
namespace {

Status verify_attributes(const Step& s, bool velocity) {
  WL_CHECK(velocity || s.f(AttrKey::momentum) == 0, "%s: momentum needs a velocity", s.path);
  WL_TRY(check_real(s, AttrKey::momentum, "momentum", 0, 1));
  WL_TRY(check_real(s, AttrKey::dampening, "dampening", 0, 1));
  WL_TRY(check_real(s, AttrKey::weight_decay, "weight_decay", 0, 1e30));
  WL_TRY(check_int(s, AttrKey::nesterov, "nesterov", 0, 1));
  WL_TRY(check_int(s, AttrKey::decoupled, "decoupled", 0, 1));
  return check_int(s, AttrKey::slot, "slot", 0, kScalarSlots - 1, -1);
}

SgdUpdate update_of(const Step& s, const Run& r, const GradClip& clip) {
  const double lr = r.scalars[s.i(AttrKey::slot)].f, decay = s.f(AttrKey::weight_decay);
  const bool decoupled = s.i(AttrKey::decoupled);
  SgdUpdate u;
  u.clip = clip;
  u.lr = (float)lr;
  u.momentum = (float)s.f(AttrKey::momentum);
  u.undamped = r.scalars[kSlotStep].i == 0 ? 1.0f : (float)(1.0 - s.f(AttrKey::dampening));
  u.decay = decoupled ? (float)(lr * decay) : 0.0f;
  u.weight_decay = decoupled ? 0.0f : (float)decay;
  u.nesterov = s.i(AttrKey::nesterov);
  return u;
}

// --- sgd_update: grad, param, [velocity], [clip] -> param, [velocity] -------------------------------------------------------------------

constexpr int kClip = 3;  // input

Status verify_update(const Step& s) {
  WL_TRY(check_arity(s, 2, 4, 1, 2));
  WL_TRY(check_float(s));
  WL_TRY(check_flat(s, 0, -1));
  WL_TRY(check_flat(s, 1, 0));
  if (s.in[2]) WL_TRY(check_flat(s, 2, 1));
  WL_TRY(check_clip(s, s.in[kClip]));
  return verify_attributes(s, s.in[2]);
}

void run_update(const Step& s, const Run& r) {
  const SgdUpdate u = update_of(s, r, clip_of(s, s.in[kClip]));
  const float* grad = s.in[0]->f32();
  float *param = s.out[0]->f32(), *velocity = s.in[2] ? s.out[1]->f32() : nullptr;
  for_each_chunk(r, s.out[0]->elements(), 0.6, [&](int64_t i, int64_t n, int64_t) {
    r.kernels->update->sgd(n, u, grad + i, param + i, velocity ? velocity + i : nullptr);
  });
}

// --- sgd_matmul: x (m, k), dy (m, n), param (k*n), [velocity (k*n)] -> param, [velocity] ------------------------------------------------
// The same update with the gradient xᵀ dy, to the same bits as matmul (trans_a) followed by sgd_update.

constexpr int64_t kStrip = 32;      // rows of the gradient at a time
constexpr int64_t kColumns = 1024;  // of a block: it and dy's share stay in the second cache level
constexpr int64_t kTasks = 16;
constexpr int64_t kGap = 16;  // floats between rows, which shall not lie a power of two apart

Status verify_matmul(const Step& s) {
  WL_TRY(check_arity(s, 3, 4, 1, 2));
  WL_TRY(check_float(s));
  const Tensor &x = *s.in[0], &dy = *s.in[1], &param = *s.out[0];
  WL_CHECK(x.rank == 2 && dy.rank == 2 && x.dims[0] == dy.dims[0] && x.batch == dy.batch,
           "%s: x and dy are not two matrices of equally many rows", s.path);
  WL_CHECK(unit_channels(x) && unit_channels(dy), "%s: the last axis of x or dy has gaps", s.path);
  WL_TRY(check_flat(s, 2, 0));
  if (s.in[3]) WL_TRY(check_flat(s, 3, 1));
  WL_CHECK(param.rank == 1 && param.dims[0] / dy.dims[1] == x.dims[1] && param.dims[0] % dy.dims[1] == 0,
           "%s: %lld parameters are not %lld x %lld", s.path, (long long)param.dims[0], (long long)x.dims[1], (long long)dy.dims[1]);
  WL_TRY(check_clip(s, nullptr));
  return verify_attributes(s, s.in[3]);
}

// Blocks of columns times blocks of strips: tasks that write rectangles of the parameters.
struct Cut {
  int64_t m, k, n;
  int64_t columns, column_blocks, strips, strip_blocks;

  explicit Cut(const Step& s) : m(s.in[0]->dims[0]), k(s.in[0]->dims[1]), n(s.in[1]->dims[1]) {
    column_blocks = div_up(n, kColumns);
    columns = round_up(div_up(n, column_blocks), kStrip);
    strips = div_up(k, kStrip);
    strip_blocks = min_of(strips, max_of(1, kTasks / column_blocks));
  }
  int64_t tasks() const { return column_blocks * strip_blocks; }
  int64_t panel(int64_t width) const { return (m + 1) * width; }  // floats between panels of dy, or of a strip of x
};

// Scratch of a task, in floats: panels of dy, of a strip of x, and the gradient of a strip.
struct Scratch {
  int64_t dy, x, sums;
  explicit Scratch(const Cut& c) : dy((c.m + 1) * c.columns), x((c.m + 1) * kStrip), sums(kStrip * (c.columns + kGap)) {}
  int64_t bytes() const { return round_up((dy + x + sums) * 4, kCacheLine); }
};

void choose_matmul(const Step& s, const Kernels& kernels, int threads, Choice* choice) {
  const Cut c(s);
  choice->workspace = threads * Scratch(c).bytes();
  snprintf(choice->kernel, sizeof choice->kernel, "brgemm %s", kernels.brgemm->tile);
  snprintf(choice->blocking, sizeof choice->blocking, "%lld tasks: %lld columns, %lld rows at a time", (long long)c.tasks(),
           (long long)c.columns, (long long)kStrip);
}

void pack(const BrgemmKernels& brgemm, const Tensor& t, int64_t first, int64_t n, int64_t panel, float* to) {
  BrgemmPackArgs g;
  g.src = t.f32() + first, g.stride = t.strides[0], g.k = t.dims[0], g.n = n;
  g.dst = to, g.panel = panel, g.width = brgemm.width;
  brgemm.pack(g);
}

void run_matmul(const Step& s, const Run& r) {
  const Tensor &x = *s.in[0], &dy = *s.in[1];
  const Cut c(s);
  const Scratch scratch(c);
  const BrgemmKernels& brgemm = *r.kernels->brgemm;
  const SgdUpdate u = update_of(s, r, clip_of(s, nullptr));
  float *param = s.out[0]->f32(), *velocity = s.in[3] ? s.out[1]->f32() : nullptr;
  const int64_t width = brgemm.width, panel = c.panel(width), sum_row = c.columns + kGap;
  parallel_for(r, c.tasks(), double(c.k) * double(c.n) * (0.6 + 0.02 * double(c.m)), [&](int64_t task, int thread) {
    const int64_t column = task % c.column_blocks * c.columns, columns = min_of(c.columns, c.n - column);
    const Range strips = piece(c.strips, c.strip_blocks, task / c.column_blocks);
    float* panels = reinterpret_cast<float*>(r.workspace + thread * scratch.bytes());
    float *strip = panels + scratch.dy, *sums = strip + scratch.x, *rows[kStrip];
    for (int64_t i = 0; i < kStrip; ++i) rows[i] = sums + i * sum_row;
    pack(brgemm, dy, column, columns, panel, panels);
    for (int64_t first = strips.begin * kStrip; first < min_of(strips.end * kStrip, c.k); first += kStrip) {
      const int64_t count = min_of(kStrip, c.k - first);
      pack(brgemm, x, first, count, panel, strip);
      for (int64_t row = 0; row < count; row += width) {
        const BrgemmSegment segment{strip + row / width * panel, panels, c.m};
        BrgemmTransposedArgs g;
        g.m = min_of(width, count - row), g.n = columns, g.count = 1, g.segments = &segment;
        g.a_stride = g.b_stride = width, g.b_panel = panel;
        g.out.c = rows + row;
        brgemm.run_transposed(g);
      }
      for (int64_t i = 0; i < count; ++i) {
        const int64_t at = (first + i) * c.n + column;
        r.kernels->update->sgd(columns, u, rows[i], param + at, velocity ? velocity + at : nullptr);
      }
    }
  });
}

}  // namespace

extern const Op op_sgd_update, op_sgd_matmul;
const Op op_sgd_update = {"sgd_update", verify_update, nullptr, run_update, in_place(1, 0) | in_place(2, 1)};
const Op op_sgd_matmul = {"sgd_matmul", verify_matmul, choose_matmul, run_matmul, in_place(2, 0) | in_place(3, 1)};

}  // namespace wl
