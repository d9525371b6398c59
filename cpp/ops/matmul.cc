// matmul: y = act(a b + bias) over broadcast batches. The forward of a dense layer, its backward-data (trans_b) and backward-weights
// (trans_a).
//
// Each task owns a block of rows and a strip of columns of one product; it walks along k, brings a block of b into panels in its own
// scratch and multiplies. b is read in long pieces and once per block of rows, so with few rows (small batches) the speed is that of memory
// and nothing has to be prepared. Sums are cut at multiples of kBrgemmFlush, so that bits do not depend on the blocks.
#include <stdio.h>
#include <string.h>

#include "kernels/brgemm/brgemm.h"
#include "ops/op.h"

namespace wl {

namespace {

constexpr int64_t kRows = 240, kColumns = 256, kTasks = 8;  // rows and columns of a task, at most; tasks wanted
constexpr int64_t kTerms = 4 * kBrgemmFlush;                // of a block of b
constexpr int64_t kFewRows = 64, kFewTasks = 4;             // where reading b is the work
constexpr int64_t kFewFloats = 128 << 10;                   // of a block of b then: half a megabyte, to stay in the second cache level
constexpr int64_t kFewColumnsTransposed = 128;
constexpr double kNanosecondsPerMac = 0.02, kNanosecondsPerFloat = 0.3;

struct Product {
  int64_t m, n, k, batches;
  bool trans_a, trans_b;
  int64_t a_stride, b_stride, y_stride;
};

Product product_of(const Step& step) {
  const Tensor &a = *step.in[0], &b = *step.in[1], &y = *step.out[0];
  Product p;
  p.trans_a = step.i(AttrKey::trans_a) != 0, p.trans_b = step.i(AttrKey::trans_b) != 0;
  p.m = y.dim_from_end(1), p.n = y.dim_from_end(0), p.k = a.dim_from_end(p.trans_a ? 1 : 0);
  p.batches = 1;
  for (int i = 0; i < y.rank - 2; ++i) p.batches *= y.dims[i];
  p.a_stride = a.strides[a.rank - 2], p.b_stride = b.strides[b.rank - 2], p.y_stride = y.strides[y.rank - 2];
  return p;
}

Status verify_matrix(const Step& step, const Tensor* t, const char* what) {
  WL_CHECK(t, "%s: matmul needs %s", step.path, what);
  WL_CHECK(t->dtype == DType::f32 && t->rank >= 2, "%s: %s is not a float32 matrix", step.path, what);
  WL_CHECK(t->dim_from_end(0) == 1 || t->strides[t->rank - 1] == 1, "%s: the last axis of %s has stride %lld, not 1", step.path, what,
           (long long)t->strides[t->rank - 1]);
  return Status::good();
}

Status verify(const Step& step) {
  WL_CHECK(step.n_in >= 2 && step.n_in <= 3 && step.n_out == 1, "%s: matmul takes a, b and bias and writes y", step.path);
  const Tensor *a = step.in[0], *b = step.in[1], *y = step.out[0], *bias = step.in[2];
  WL_TRY(verify_matrix(step, a, "a"));
  WL_TRY(verify_matrix(step, b, "b"));
  WL_TRY(verify_matrix(step, y, "y"));
  WL_CHECK(a->rank == y->rank && b->rank == y->rank, "%s: a, b and y have ranks %d, %d and %d", step.path, a->rank, b->rank, y->rank);
  for (int i = 0; i < y->rank - 2; ++i)
    WL_CHECK(a->dims[i] == y->dims[i] && b->dims[i] == y->dims[i], "%s: batch axis %d has %lld, %lld and %lld", step.path, i,
             (long long)a->dims[i], (long long)b->dims[i], (long long)y->dims[i]);
  const Product p = product_of(step);
  const int64_t am = a->dim_from_end(p.trans_a ? 0 : 1), bk = b->dim_from_end(p.trans_b ? 0 : 1), bn = b->dim_from_end(p.trans_b ? 1 : 0);
  WL_CHECK(am == p.m && bk == p.k && bn == p.n, "%s: (%lld, %lld) times (%lld, %lld) is not (%lld, %lld)", step.path, (long long)am,
           (long long)p.k, (long long)bk, (long long)bn, (long long)p.m, (long long)p.n);
  if (bias)
    WL_CHECK(bias->dtype == DType::f32 && bias->rank == 1 && bias->dims[0] == p.n && bias->dense(), "%s: bias is not %lld dense float32",
             step.path, (long long)p.n);
  const int64_t activation = step.i(AttrKey::activation);
  WL_CHECK(activation >= 0 && activation <= int64_t(UnaryKind::affine), "%s: no activation %lld", step.path, (long long)activation);
  return Status::good();
}

// How the work is cut: by shape alone. With few rows the time is that of reading b: then in long pieces of its rows.
struct Cut {
  int64_t row_blocks, column_blocks, tasks;
  int64_t width, terms;  // of a panel; of a block of b
  int64_t rows;          // of a task, at most
};

Cut cut_work(const Product& p, const BrgemmKernels& brgemm) {
  Cut c;
  c.width = brgemm.panel_width(p.n);
  const int64_t panels = div_up(p.n, c.width);
  const bool few = p.m <= kFewRows;
  int64_t columns = kColumns;
  c.terms = kTerms;
  if (few && p.trans_b) columns = kFewColumnsTransposed, c.terms = kFewFloats / kFewColumnsTransposed;
  if (few && !p.trans_b)
    columns = min_of(max_of(p.n / kFewTasks, kFewColumnsTransposed), kFewFloats / kBrgemmFlush), c.terms = kBrgemmFlush;
  int64_t panels_per_task = max_of(columns / c.width, 1);
  c.row_blocks = div_up(p.m, kRows);
  c.rows = min_of(p.m, kRows);
  const int64_t others = p.batches * c.row_blocks, wanted = few ? kFewTasks : kTasks;
  if (others * div_up(panels, panels_per_task) < wanted) panels_per_task = max_of(1, panels * others / wanted);
  c.column_blocks = div_up(panels, panels_per_task);
  c.tasks = others * c.column_blocks;
  return c;
}

// Floats of b's panels in a task, at most, with the gap behind each panel: for this m and every smaller one.
int64_t packed_floats(const Product& p, int64_t width) {
  static_assert(kFewFloats >= kColumns * kTerms, "few rows take the larger block");
  return min_of(kFewFloats, round_up(p.n, width) * p.k) + min_of(kFewFloats / kBrgemmFlush, round_up(p.n, width));
}

// Rows of a that lie a multiple of 4096 bytes apart share one set of the first cache level, which has fewer ways than a tile has rows:
// blocks of such a are copied into rows a little further apart.
bool rows_collide(const Product& p) {
  return !p.trans_a && p.m > 1 && p.a_stride % 1024 == 0;
}
constexpr int64_t kRowGap = 16;

// Floats of copied rows of a, at most: for this m and every smaller one.
int64_t copied_floats(const Product& p, const Cut& c) {
  if (!rows_collide(p)) return 0;
  const int64_t few_terms = p.trans_b ? kFewFloats / kFewColumnsTransposed : kBrgemmFlush;
  return max_of(c.rows * (min_of(kTerms, p.k) + kRowGap), min_of(c.rows, kFewRows) * (min_of(few_terms, p.k) + kRowGap));
}

// Bytes of scratch per thread: row pointers, panels of b, copied rows of a.
int64_t pointer_bytes(const Cut& c) {
  return round_up(2 * c.rows * 8, kCacheLine);
}
int64_t thread_bytes(const Product& p, const Cut& c) {
  return pointer_bytes(c) + round_up(packed_floats(p, c.width) * 4, kCacheLine) + round_up(copied_floats(p, c) * 4, kCacheLine);
}

const Kernels& kernels_of(const Step& step, const Kernels& kernels) {
  return Algorithm(step.i(AttrKey::algorithm)) == Algorithm::ref ? *find_kernels("ref") : kernels;
}

void choose(const Step& step, const Kernels& all, int threads, Choice* choice) {
  const Kernels& kernels = kernels_of(step, all);
  const Product p = product_of(step);
  const Cut c = cut_work(p, *kernels.brgemm);
  choice->algorithm = &kernels == &all ? Algorithm::direct : Algorithm::ref;
  choice->workspace = threads * thread_bytes(p, c);
  snprintf(choice->kernel, sizeof choice->kernel, "brgemm %s", kernels.brgemm->tile);
  snprintf(choice->blocking, sizeof choice->blocking, "%lld tasks: %lld rows x %lld columns, %lld terms at a time", (long long)c.tasks,
           (long long)c.rows, (long long)div_up(p.n, c.column_blocks), (long long)c.terms);
}

// The first element of batch `index` (row-major over the leading axes of y).
float* batch_of(const Tensor& t, const Tensor& y, int64_t index) {
  int64_t offset = 0;
  for (int i = y.rank - 3; i >= 0; --i) {
    offset += index % y.dims[i] * t.strides[i];
    index /= y.dims[i];
  }
  return t.f32() + offset;
}

void run(const Step& step, const Run& run) {
  const BrgemmKernels& brgemm = *kernels_of(step, *run.kernels).brgemm;
  const Tensor &a = *step.in[0], &b = *step.in[1], &y = *step.out[0];
  const float* bias = step.in[2] ? step.in[2]->f32() : nullptr;
  const Product p = product_of(step);
  const Cut cut = cut_work(p, brgemm);
  const int64_t panels = div_up(p.n, cut.width), bytes = thread_bytes(p, cut);

  const auto body = [&](int64_t task, int thread) {
    const Range row = piece(p.m, cut.row_blocks, task % cut.row_blocks);
    task /= cut.row_blocks;
    const Range panel = piece(panels, cut.column_blocks, task % cut.column_blocks);
    const int64_t batch = task / cut.column_blocks, column = panel.begin * cut.width;
    const int64_t n = min_of(panel.end * cut.width, p.n) - column;
    const float *a0 = batch_of(a, y, batch), *b0 = batch_of(b, y, batch);

    char* memory = run.workspace + thread * bytes;
    const float** a_rows = (const float**)memory;
    float** y_rows = (float**)(a_rows + cut.rows);
    float* packed = (float*)(memory + pointer_bytes(cut));
    float* copied = (float*)(memory + pointer_bytes(cut) + round_up(packed_floats(p, cut.width) * 4, kCacheLine));
    float* y0 = batch_of(y, y, batch) + row.begin * p.y_stride + column;
    for (int64_t r = 0; r < row.size(); ++r) y_rows[r] = y0 + r * p.y_stride;
    const bool copy_a = rows_collide(p);
    const int64_t row_stride = copy_a ? min_of(cut.terms, p.k) + kRowGap : p.a_stride;
    if (!p.trans_a)
      for (int64_t r = 0; r < row.size(); ++r) a_rows[r] = (copy_a ? copied : a0 + row.begin * p.a_stride) + r * row_stride;

    for (int64_t term = 0; term < p.k; term += cut.terms) {
      const int64_t k = min_of(cut.terms, p.k - term);
      BrgemmPackArgs pack;
      pack.stride = p.b_stride, pack.k = k, pack.n = n, pack.dst = packed, pack.width = cut.width;
      pack.panel = (k + 1) * cut.width;  // panels a power of two apart would share cache sets
      pack.src = p.trans_b ? b0 + column * p.b_stride + term : b0 + term * p.b_stride + column;
      (p.trans_b ? brgemm.pack_transposed : brgemm.pack)(pack);

      if (copy_a)
        for (int64_t r = 0; r < row.size(); ++r)
          memcpy(copied + r * row_stride, a0 + (row.begin + r) * p.a_stride + term, (size_t)k * sizeof(float));

      BrgemmOutput out;
      out.c = y_rows, out.accumulate = term > 0;
      if (term + k == p.k) {
        out.bias = bias ? bias + column : nullptr;
        out.activation = UnaryKind(step.i(AttrKey::activation));
        out.alpha = (float)step.f(AttrKey::alpha), out.beta = (float)step.f(AttrKey::beta);
      }
      if (p.trans_a) {
        const BrgemmSegment segment{a0 + term * p.a_stride + row.begin, packed, k};
        BrgemmTransposedArgs g;
        g.m = row.size(), g.n = n, g.count = 1, g.segments = &segment, g.a_stride = p.a_stride;
        g.b_stride = cut.width, g.b_panel = pack.panel, g.out = out;
        brgemm.run_transposed(g);
      } else {
        BrgemmArgs g;
        g.m = row.size(), g.n = n, g.k = k, g.a = a_rows, g.a_rows = row.size(), g.a_offset = copy_a ? 0 : term;
        g.b = packed, g.b_stride = cut.width, g.b_panel = pack.panel, g.out = out;
        brgemm.run(g);
      }
    }
  };
  const double products = double(p.batches) * double(p.n) * double(p.k);
  parallel_for(run, cut.tasks, products * (double(p.m) * kNanosecondsPerMac + kNanosecondsPerFloat), body);
}

}  // namespace

extern const Op op_matmul;
const Op op_matmul = {"matmul", verify, choose, run};

}  // namespace wl
