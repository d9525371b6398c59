// matmul: y = act(a b + bias) over broadcast batches. The forward of a dense
// layer, its backward-data (trans_b) and backward-weights (trans_a).
//
// The work is cut into blocks of rows, columns and, where these are few, terms;
// a block is a task. There are two ways to a block's sums:
//   streamed  few rows: b, the weights, is read once as it lies (kernels/dense)
//   packed    else: b is brought into panels, a piece of its rows at a time
// Both add in the same order, cut at multiples of kBrgemmFlush. Which terms
// form a block depends on k and the columns alone (and on the rows where they
// are features, trans_a): a row's bits do not depend on how many rows there
// are.
#include <stdio.h>
#include <string.h>

#include "kernels/brgemm/brgemm.h"
#include "kernels/dense/dense.h"
#include "kernels/outer/outer.h"
#include "ops/combining_time.h"
#include "ops/op.h"

namespace wl {

namespace {

constexpr int64_t kTasks = 8;                   // wanted
constexpr int64_t kRows = 240, kColumns = 256;  // of a packed block, at most
constexpr int64_t kTerms = 4 * kBrgemmFlush;    // of a panel, a multiple of kBrgemmFlush
constexpr int64_t kFewRows = 16,
                  kFewRowsTransposed = 2;          // where reading b is the work
constexpr int64_t kStrip = 512;                    // columns of a streamed block, at most: long pieces of b's rows
constexpr int64_t kSplitTerms = 8 * kBrgemmFlush;  // terms of a block, at least, where terms are split
constexpr int64_t kPartFloats = 1 << 20;           // of the blocks' sums, at most, where terms are split
constexpr double kTaskMacs = 1 << 18;              // of a task, at least, where there are enough
constexpr int64_t kLeastRows = 48;                 // of a block, where rows are cut to get more tasks
constexpr int64_t kRowGap = 16;                    // between copied rows, which shall not lie a power of two apart
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

enum class Way { streamed, packed };

// How the work is cut: by shape alone.
struct Cut {
  Way way;
  int64_t width;      // of a panel; columns of a block are a multiple of it
  int64_t splits;     // blocks of terms
  int64_t pass_rows;  // rows of y at a time: all, but for splits
  int64_t row_blocks, column_blocks,
      tasks;              // of a pass and batch; tasks of a pass
  int64_t rows, columns;  // of a block, at most
};

// Rows that are streamed, at most.
int64_t few_rows(const Product& p) {
  return p.trans_a ? 0 : p.trans_b ? kFewRowsTransposed : kFewRows;
}

// Columns of a packed block: more where the sums are short, so that y is
// written in long pieces.
int64_t columns_of(const Product& p) {
  return kColumns * kTerms / max_of(kBrgemmFlush, min_of(p.k, kTerms));
}

Cut cut_work(const Product& p, const BrgemmKernels& brgemm) {
  Cut c;
  c.way = p.m <= few_rows(p) ? Way::streamed : Way::packed;
  c.width = brgemm.panel_width(p.n);
  const int64_t panels = div_up(p.n, c.width);
  const int64_t apart = div_up(p.n, kColumns) * (p.trans_a ? p.batches * div_up(p.m, kRows) : 1);
  c.splits = max_of(1, min_of(kTasks / apart, p.k / kSplitTerms));
  c.pass_rows = c.splits == 1 ? p.m : min_of(p.m, max_of(1, kPartFloats / (c.splits * p.n)));
  const int64_t others = c.splits == 1 ? p.batches : c.splits;  // blocks that neither rows nor columns make

  c.row_blocks = div_up(c.pass_rows, kRows);
  c.column_blocks = div_up(p.n, c.way == Way::streamed ? kStrip : columns_of(p));
  // More blocks for the threads: along the longer side first.
  const int64_t wanted = (int64_t)min_of(double(kTasks), double(c.pass_rows) * double(p.n) * double(p.k) / kTaskMacs);
  const auto cut_rows = [&] { c.row_blocks = max_of(c.row_blocks, min_of(c.pass_rows / kLeastRows, wanted / (others * c.column_blocks))); };
  if (c.pass_rows > p.n) cut_rows();
  c.column_blocks = min_of(panels, max_of(c.column_blocks, wanted / (others * c.row_blocks)));
  cut_rows();
  c.rows = div_up(c.pass_rows, c.row_blocks);
  c.columns = min_of(p.n, div_up(panels, c.column_blocks) * c.width);
  c.tasks = others * c.row_blocks * c.column_blocks;
  return c;
}

// Rows that lie a multiple of 4096 bytes apart share one set of the first cache
// level, which has fewer ways than a tile has rows: blocks of such rows are
// copied a little further apart first.
bool collides(int64_t stride) {
  return stride % 1024 == 0;
}

// Floats of scratch of a task, at most, for this m and every smaller one.
struct Scratch {
  int64_t b;         // panels, or parts of sums
  int64_t a;         // copied rows
  int64_t pointers;  // rows
  int64_t bytes() const { return round_up((b + a) * 4 + 2 * pointers * 8, kCacheLine); }
};

Scratch scratch_of(const Product& p) {
  const int64_t few = min_of(p.m, few_rows(p)), rows = min_of(p.m, kRows), terms = min_of(p.k, kTerms);
  Scratch s;
  s.b = max_of(dense_scratch(few, min_of(p.n, kStrip), terms, 32), (terms + 1) * round_up(min_of(p.n, columns_of(p)), 32));
  s.a = p.trans_a ? (terms + 1) * round_up(rows, 32) : rows * (terms + kRowGap);
  s.pointers = rows;
  s.b = round_up(s.b, 16), s.a = round_up(s.a, 16);
  return s;
}

int64_t part_floats(const Product& p, const Cut& c) {
  return c.splits == 1 ? 0 : c.splits * c.pass_rows * p.n;
}

const Kernels& kernels_of(const Step& step, const Kernels& kernels) {
  return Algorithm(step.i(AttrKey::algorithm)) == Algorithm::ref ? *find_kernels("ref") : kernels;
}

void choose(const Step& step, const Kernels& all, int threads, Choice* choice) {
  const Kernels& kernels = kernels_of(step, all);
  const Product p = product_of(step);
  const Cut c = cut_work(p, *kernels.brgemm);
  choice->algorithm = &kernels == &all ? Algorithm::direct : Algorithm::ref;
  choice->workspace = threads * scratch_of(p).bytes() + round_up(part_floats(p, c) * 4, kCacheLine);
  if (c.way == Way::streamed)
    snprintf(choice->kernel, sizeof choice->kernel, "dense, %d columns", kernels.dense->width);
  else
    snprintf(choice->kernel, sizeof choice->kernel, "brgemm %s", kernels.brgemm->tile);
  snprintf(choice->blocking, sizeof choice->blocking, "%lld tasks: %lld rows x %lld columns x %lld terms", (long long)c.tasks,
           (long long)c.rows, (long long)c.columns, (long long)div_up(p.k, c.splits));
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

// A block of the product: c[r][j] = epilogue(Σ a b) over its terms.
struct Block {
  int64_t rows, columns, terms;
  const float *a, *b;    // first elements
  float* const* c;       // row pointers
  const float** a_rows;  // room for row pointers
  float *b_scratch, *a_scratch;
  BrgemmOutput out;  // what is done to the sums
};

void streamed(const Product& p, const Kernels& kernels, const Block& block) {
  DenseArgs g;
  g.m = block.rows, g.n = block.columns, g.a_stride = p.a_stride, g.b_stride = p.b_stride, g.scratch = block.b_scratch, g.c = block.c;
  for (int64_t term = 0; term < block.terms || term == 0; term += kTerms) {
    g.k = min_of(kTerms, block.terms - term), g.accumulate = term > 0;
    g.a = block.a + term, g.b = block.b + term * (p.trans_b ? 1 : p.b_stride);
    (p.trans_b ? kernels.dense->run_transposed : kernels.dense->run)(g);
  }
  if (block.out.bias || block.out.activation != UnaryKind::none) kernels.dense->finish(g.m, g.n, block.out);
}

void packed(const Product& p, const Kernels& kernels, const Block& block, int64_t width) {
  const BrgemmKernels& brgemm = *kernels.brgemm;
  const bool copy = collides(p.a_stride) && block.rows > 1;
  const int64_t a_stride = copy ? min_of(kTerms, block.terms) + kRowGap : p.a_stride;
  for (int64_t term = 0; term < block.terms || term == 0; term += kTerms) {
    const int64_t k = min_of(kTerms, block.terms - term);
    BrgemmPackArgs pack;
    pack.stride = p.b_stride, pack.k = k, pack.n = block.columns, pack.dst = block.b_scratch, pack.width = width;
    pack.panel = (k + 1) * width;  // panels a power of two apart would share cache sets
    pack.src = block.b + term * (p.trans_b ? 1 : p.b_stride);
    (p.trans_b ? brgemm.pack_transposed : brgemm.pack)(pack);

    BrgemmOutput out;
    if (term + k == block.terms) out = block.out;
    out.c = block.c, out.accumulate = term > 0;
    if (p.trans_a) {
      const float* a = block.a + term * p.a_stride;
      BrgemmTransposedArgs g;
      g.n = block.columns, g.count = 1, g.b_stride = width, g.b_panel = pack.panel, g.out = out;
      int64_t group = block.rows, a_panel = group;
      g.a_stride = p.a_stride;
      if (copy || k > kBrgemmFlush) {  // the rows of a long block lie on more pages than
                                       // the processor keeps addresses of
        BrgemmPackArgs rows;
        rows.src = a, rows.stride = p.a_stride, rows.k = k, rows.n = block.rows, rows.dst = block.a_scratch;
        rows.width = group = g.a_stride = brgemm.width, rows.panel = a_panel = (k + 1) * rows.width;
        brgemm.pack(rows);
        a = rows.dst;
      }
      for (int64_t row = 0; row < block.rows; row += group, a += a_panel) {
        const BrgemmSegment segment{a, pack.dst, k};
        g.m = min_of(group, block.rows - row), g.segments = &segment, g.out.c = block.c + row;
        brgemm.run_transposed(g);
      }
    } else {
      for (int64_t r = 0; r < block.rows; ++r) {
        block.a_rows[r] = copy ? block.a_scratch + r * a_stride : block.a + r * a_stride + term;
        if (copy) memcpy(block.a_scratch + r * a_stride, block.a + r * p.a_stride + term, (size_t)k * sizeof(float));
      }
      BrgemmArgs g;
      g.m = block.rows, g.n = block.columns, g.k = k, g.a = block.a_rows, g.a_rows = block.rows;
      g.b = pack.dst, g.b_stride = width, g.b_panel = pack.panel, g.out = out;
      brgemm.run(g);
    }
  }
}

void run(const Step& step, const Run& run) {
  const Kernels& kernels = kernels_of(step, *run.kernels);
  const Tensor &a = *step.in[0], &b = *step.in[1], &y = *step.out[0];
  const Product p = product_of(step);
  const Cut cut = cut_work(p, *kernels.brgemm);
  const Scratch scratch = scratch_of(p);
  const int64_t panels = div_up(p.n, cut.width);
  float* parts = (float*)(run.workspace + run.threads * scratch.bytes());  // [split][row of the pass][column]
  const double products = double(p.n) * double(p.k);

  BrgemmOutput epilogue;
  epilogue.activation = UnaryKind(step.i(AttrKey::activation));
  epilogue.alpha = (float)step.f(AttrKey::alpha), epilogue.beta = (float)step.f(AttrKey::beta);
  const float* bias = step.in[2] ? step.in[2]->f32() : nullptr;

  for (int64_t pass = 0; pass < (cut.splits == 1 ? 1 : p.batches * div_up(p.m, cut.pass_rows)); ++pass) {
    const int64_t passes = div_up(p.m, cut.pass_rows), first_row = pass % passes * cut.pass_rows;
    const int64_t pass_rows = min_of(cut.pass_rows, p.m - first_row);
    const auto body = [&](int64_t task, int thread) {
      const Range row = piece(pass_rows, cut.row_blocks, task % cut.row_blocks);
      task /= cut.row_blocks;
      const Range panel = piece(panels, cut.column_blocks, task % cut.column_blocks);
      task /= cut.column_blocks;
      const Range flush = piece(div_up(p.k, kBrgemmFlush), cut.splits, task % cut.splits);
      const int64_t batch = cut.splits == 1 ? task : pass / passes, split = task % cut.splits;
      const int64_t column = panel.begin * cut.width, term = flush.begin * kBrgemmFlush, first = first_row + row.begin;

      Block block;
      block.rows = row.size(), block.columns = min_of(panel.end * cut.width, p.n) - column;
      block.terms = min_of(flush.end * kBrgemmFlush, p.k) - term;
      block.a = batch_of(a, y, batch) + (p.trans_a ? term * p.a_stride + first : first * p.a_stride + term);
      block.b = batch_of(b, y, batch) + (p.trans_b ? column * p.b_stride + term : term * p.b_stride + column);
      char* memory = run.workspace + thread * scratch.bytes();
      block.b_scratch = (float*)memory, block.a_scratch = block.b_scratch + scratch.b;
      block.a_rows = (const float**)(block.a_scratch + scratch.a);
      float** c = (float**)(block.a_rows + scratch.pointers);
      float* c0 =
          cut.splits == 1 ? batch_of(y, y, batch) + first * p.y_stride + column : parts + (split * pass_rows + row.begin) * p.n + column;
      const int64_t c_stride = cut.splits == 1 ? p.y_stride : p.n;
      for (int64_t r = 0; r < block.rows; ++r) c[r] = c0 + r * c_stride;
      block.c = c;
      if (cut.splits == 1) block.out = epilogue, block.out.bias = bias ? bias + column : nullptr;
      block.out.c = block.c;
      switch (cut.way) {
        case Way::streamed: return streamed(p, kernels, block);
        case Way::packed: return packed(p, kernels, block, cut.width);
      }
    };
    parallel_for(run, cut.tasks,
                 products * double(cut.splits == 1 ? p.batches : 1) * (double(pass_rows) * kNanosecondsPerMac + kNanosecondsPerFloat),
                 body);
    if (cut.splits == 1) continue;

    // The blocks of terms are added in their order.
    const CombiningTime combining(run);
    const int64_t pieces = min_of(kTasks, pass_rows), batch = pass / passes;
    parallel_for(run, pieces, 0.2 * double(part_floats(p, cut)), [&](int64_t task, int) {
      const Range row = piece(pass_rows, pieces, task);
      for (int64_t split = 1; split < cut.splits; ++split)
        kernels.outer->add(row.size() * p.n, parts + (split * pass_rows + row.begin) * p.n, parts + row.begin * p.n);
      for (int64_t r = row.begin; r < row.end; ++r) {
        float* c = batch_of(y, y, batch) + (first_row + r) * p.y_stride;
        memcpy(c, parts + r * p.n, (size_t)p.n * sizeof(float));
        BrgemmOutput out = epilogue;
        out.c = &c, out.bias = bias;
        if (bias || out.activation != UnaryKind::none) kernels.dense->finish(1, p.n, out);
      }
    });
  }
}

}  // namespace

extern const Op op_matmul;
const Op op_matmul = {"matmul", verify, choose, run};

}  // namespace wl
