// Sum, mean and maximum over any set of axes of a tensor with any strides.
//
// What is reduced into one output is cut into pieces by its own extents alone, never by how many outputs there are, so a sample's bits do
// not depend on its batch. Pieces are combined in order.
#include "kernels/reduce/reduce.h"

#include "ops/axes.h"
#include "ops/check.h"
#include "ops/combining_time.h"

namespace wl {
namespace {

constexpr int64_t kPiece = 65536;       // elements of a piece
constexpr int64_t kSegment = 4096;      // longest run that one kernel call sums into one number
constexpr int64_t kColumnBlock = 2048;  // outputs side by side that one task accumulates
constexpr int64_t kMostPieces = 256;

// The axes of x as kept and reduced ones, each as joint axes; the axis along which x has stride 1 is taken apart, together with those
// before it that continue it.
struct Plan {
  Axes<2> kept;     // of y and x
  Axes<1> reduced;  // of x
  enum Inner { kept_inner, reduced_inner, strided } inner = strided;
  int64_t length = 1, y_stride = 0;  // of the inner axis
  int64_t rows = 1, outputs = 1;     // of the reduced and of the kept axes that are left
  int64_t segments = 1;              // per row (reduced_inner)
  int64_t pieces = 1;                // per output
};

Plan plan_of(const Step& s) {
  const Tensor &x = *s.in[0], &y = *s.out[0];
  const int64_t mask = s.i(AttrKey::axes);
  Plan p;
  // The batch axis counts as long even when it happens to be 1, so that the plan is the same for every running extent.
  const auto is_long = [&x](int a) { return x.dims[a] > 1 || (a == 0 && x.batch); };
  int inner = -1, first_inner = x.rank;
  for (int a = 0; a < x.rank; ++a)
    if (is_long(a) && x.strides[a] == 1) inner = a;
  if (inner >= 0) {
    p.inner = mask >> inner & 1 ? Plan::reduced_inner : Plan::kept_inner;
    p.length = x.dims[inner], p.y_stride = y.strides[inner], first_inner = inner;
    for (int a = inner - 1; a >= 0; --a) {
      if (!is_long(a)) continue;
      const bool kept = p.inner == Plan::kept_inner;
      if ((mask >> a & 1) == kept || x.strides[a] != p.length) break;
      if (kept && ((a == 0 && x.batch) || y.strides[a] != p.y_stride * p.length)) break;  // the cut does not depend on the batch
      p.length *= x.dims[a], first_inner = a;
    }
  }
  const auto append = [](auto* axes, int64_t extent, auto... strides) {
    const int64_t stride[] = {strides...};
    bool merges = axes->rank > 0;
    for (size_t k = 0; k < sizeof...(strides) && merges; ++k) merges = axes->stride[k][axes->rank - 1] == stride[k] * extent;
    if (!merges) axes->extent[axes->rank++] = 1;
    axes->extent[axes->rank - 1] *= extent;
    for (size_t k = 0; k < sizeof...(strides); ++k) axes->stride[k][axes->rank - 1] = stride[k];
  };
  for (int a = 0; a < x.rank; ++a) {
    if ((a >= first_inner && a <= inner) || !is_long(a)) continue;
    if (mask >> a & 1)
      append(&p.reduced, x.dims[a], x.strides[a]);
    else
      append(&p.kept, x.dims[a], y.strides[a], x.strides[a]);
  }
  if (p.kept.rank == 0) p.kept.extent[p.kept.rank++] = 1;
  if (p.reduced.rank == 0) p.reduced.extent[p.reduced.rank++] = 1;
  p.rows = p.reduced.total(), p.outputs = p.kept.total();
  if (p.inner == Plan::reduced_inner) {
    p.segments = div_up(p.length, kSegment);
    p.pieces = min_of(div_up(p.rows * p.length, kPiece), p.rows * p.segments);
  } else if (p.inner == Plan::kept_inner) {
    p.pieces = min_of(div_up(p.rows * min_of(p.length, kColumnBlock), kPiece), p.rows);
  }
  p.pieces = min_of(p.pieces, kMostPieces);
  return p;
}

Status verify(const Step& s) {
  WL_TRY(check_arity(s, 1, 1, 1, 1));
  WL_TRY(check_float(s));
  const Tensor &x = *s.in[0], &y = *s.out[0];
  WL_TRY(check_int(s, AttrKey::kind, "kind", 0, (int64_t)ReduceKind::max));
  WL_TRY(check_int(s, AttrKey::axes, "axes", 0, ((int64_t)1 << x.rank) - 1));
  WL_CHECK(x.rank == y.rank, "%s: x has rank %d, y %d", s.path, x.rank, y.rank);
  for (int a = 0; a < x.rank; ++a) {
    const bool reduced = s.i(AttrKey::axes) >> a & 1;
    WL_CHECK(y.dims[a] == (reduced ? 1 : x.dims[a]), "%s: axis %d of y has extent %lld", s.path, a, (long long)y.dims[a]);
  }
  if (x.rank) {
    const bool reduced = s.i(AttrKey::axes) & 1;
    WL_CHECK(reduced ? !y.batch : y.batch == x.batch || x.dims[0] == 1, "%s: the batch axis of x and y does not agree", s.path);
  }
  return check_outputs(s);
}

double combine(ReduceKind kind, double a, double b) {
  if (kind != ReduceKind::max) return a + b;
  return b > a || b != b ? b : a;
}
double neutral(ReduceKind kind) {
  return kind == ReduceKind::max ? -(double)__builtin_inf() : 0.0;
}
float finish(ReduceKind kind, double value, double count) {
  return (float)(kind == ReduceKind::mean ? value / count : value);
}

int64_t workspace_of(const Plan& p) {
  if (p.pieces == 1) return 0;
  if (p.inner == Plan::reduced_inner) return p.outputs * p.pieces * (int64_t)sizeof(double);
  return p.outputs * p.pieces * p.length * (int64_t)sizeof(float);
}

void choose(const Step& s, const Kernels&, int, Choice* choice) {
  choice->workspace = round_up(workspace_of(plan_of(s)), kCacheLine);
}

// x has stride 1 along a reduced axis: segments of it become numbers, which are added in double.
void run_along(const Step& s, const Run& r, const Plan& p, ReduceKind kind, double count) {
  const Tensor &x = *s.in[0], &y = *s.out[0];
  const int64_t all = p.rows * p.segments, per_task = p.pieces > 1 ? 1 : max_of(1, kTaskElements / (p.rows * p.length));
  double* partial = reinterpret_cast<double*>(r.workspace);
  Axes<1> grid = p.reduced;  // rows and their segments
  const auto piece_value = [&](int64_t offset, int64_t which) {
    double value = neutral(kind);
    const Range range = piece(all, p.pieces, which);
    for (int64_t begin = range.begin; begin < range.end;) {
      const int64_t segment = begin % p.segments, row = begin / p.segments, length = min_of(kSegment, p.length - segment * kSegment);
      const int64_t most = p.segments == 1 ? range.end - begin : 1;  // rows that one call may take together
      for_each_run(grid, row, row + most, [&](int64_t rows, const int64_t* at) {
        float sums[64];
        for (int64_t i = 0; i < rows; i += 64) {
          const int64_t n = min_of(64, rows - i), stride = grid.stride[0][grid.rank - 1];
          r.kernels->reduce->rows(kind, n, length, x.f32() + offset + at[0] + i * stride + segment * kSegment, stride, sums);
          for (int64_t j = 0; j < n; ++j) value = combine(kind, value, (double)sums[j]);
        }
      });
      begin += most;
    }
    return value;
  };
  const int64_t last = p.kept.rank - 1, x_stride = p.kept.stride[1][last], y_stride = p.kept.stride[0][last];
  const auto one_row_each = [&](int64_t n, const float* from, float* to) {  // outputs that are a single segment
    float sums[64];
    for (int64_t i = 0; i < n; i += 64) {
      const int64_t m = min_of(64, n - i);
      r.kernels->reduce->rows(kind, m, p.length, from + i * x_stride, x_stride, sums);
      for (int64_t j = 0; j < m; ++j) to[(i + j) * y_stride] = finish(kind, combine(kind, neutral(kind), (double)sums[j]), count);
    }
  };
  parallel_for(r, div_up(p.outputs, per_task) * p.pieces, 0.3 * (double)x.elements(), [&](int64_t task, int) {
    const int64_t which = task % p.pieces, first = task / p.pieces * per_task;
    int64_t output = first;
    for_each_run(p.kept, first, min_of(p.outputs, first + per_task), [&](int64_t n, const int64_t* offset) {
      if (all == 1) return one_row_each(n, x.f32() + offset[1], y.f32() + offset[0]);
      for (int64_t i = 0; i < n; ++i, ++output) {
        const double value = piece_value(offset[1] + i * x_stride, which);
        if (p.pieces > 1)
          partial[output * p.pieces + which] = value;
        else
          y.f32()[offset[0] + i * y_stride] = finish(kind, value, count);
      }
    });
  });
  if (p.pieces == 1) return;
  const CombiningTime combining(r);
  for_each_run(p.kept, 0, p.outputs, [&, output = (int64_t)0](int64_t n, const int64_t* offset) mutable {
    for (int64_t i = 0; i < n; ++i, ++output) {
      double value = neutral(kind);
      for (int64_t g = 0; g < p.pieces; ++g) value = combine(kind, value, partial[output * p.pieces + g]);
      y.f32()[offset[0] + i * y_stride] = finish(kind, value, count);
    }
  });
}

// x has stride 1 along a kept axis: rows are added to a block of outputs side by side.
void run_across(const Step& s, const Run& r, const Plan& p, ReduceKind kind, double count) {
  const Tensor &x = *s.in[0], &y = *s.out[0];
  const int64_t c = p.length, blocks = div_up(c, kColumnBlock);
  const int64_t per_task = p.pieces > 1 ? 1 : max_of(1, kTaskElements / (p.rows * min_of(c, kColumnBlock)));
  float* partial = reinterpret_cast<float*>(r.workspace);
  const auto clear = [&](float* acc, int64_t n) {
    for (int64_t i = 0; i < n; ++i) acc[i] = (float)neutral(kind);
  };
  const auto write = [&](const float* acc, int64_t n, int64_t y_offset, int64_t column) {
    float* to = y.f32() + y_offset + column * p.y_stride;
    const float divisor = kind == ReduceKind::mean ? (float)count : 1.0f;
    for (int64_t i = 0; i < n; ++i) to[i * p.y_stride] = acc[i] / divisor;
  };
  const auto each_output = [&](int64_t first, int64_t end, auto body) {
    int64_t output = first;
    for_each_run(p.kept, first, end, [&](int64_t n, const int64_t* offset) {
      const int64_t last = p.kept.rank - 1;
      for (int64_t i = 0; i < n; ++i, ++output)
        body(output, offset[0] + i * p.kept.stride[0][last], offset[1] + i * p.kept.stride[1][last]);
    });
  };
  parallel_for(r, div_up(p.outputs, per_task) * p.pieces * blocks, 0.3 * (double)x.elements(), [&](int64_t task, int) {
    const int64_t column = task % blocks * kColumnBlock, width = min_of(kColumnBlock, c - column);
    const int64_t which = task / blocks % p.pieces, first = task / blocks / p.pieces * per_task;
    const Range range = piece(p.rows, p.pieces, which);
    each_output(first, min_of(p.outputs, first + per_task), [&](int64_t output, int64_t y_offset, int64_t x_offset) {
      float acc[kColumnBlock];
      clear(acc, width);
      for_each_run(p.reduced, range.begin, range.end, [&](int64_t rows, const int64_t* at) {
        r.kernels->reduce->columns(kind, rows, width, x.f32() + x_offset + at[0] + column, p.reduced.stride[0][p.reduced.rank - 1], acc);
      });
      if (p.pieces == 1) return write(acc, width, y_offset, column);
      float* to = partial + (output * p.pieces + which) * c + column;
      for (int64_t i = 0; i < width; ++i) to[i] = acc[i];
    });
  });
  if (p.pieces == 1) return;
  const CombiningTime combining(r);
  parallel_for(r, p.outputs * blocks, 0.3 * (double)(p.outputs * p.pieces * c), [&](int64_t task, int) {
    const int64_t column = task % blocks * kColumnBlock, width = min_of(kColumnBlock, c - column);
    each_output(task / blocks, task / blocks + 1, [&](int64_t output, int64_t y_offset, int64_t) {
      float acc[kColumnBlock];
      clear(acc, width);
      r.kernels->reduce->columns(kind, p.pieces, width, partial + output * p.pieces * c + column, c, acc);
      write(acc, width, y_offset, column);
    });
  });
}

// No axis of x has stride 1: element by element, in double.
void run_strided(const Step& s, const Run& r, const Plan& p, ReduceKind kind, double count) {
  const Tensor &x = *s.in[0], &y = *s.out[0];
  parallel_for(r, p.outputs, 2.0 * (double)x.elements(), [&](int64_t output, int) {
    for_each_run(p.kept, output, output + 1, [&](int64_t, const int64_t* offset) {
      double value = neutral(kind);
      for_each_run(p.reduced, 0, p.rows, [&](int64_t n, const int64_t* at) {
        const float* from = x.f32() + offset[1] + at[0];
        for (int64_t i = 0; i < n; ++i) value = combine(kind, value, (double)from[i * p.reduced.stride[0][p.reduced.rank - 1]]);
      });
      y.f32()[offset[0]] = finish(kind, value, count);
    });
  });
}

void run(const Step& s, const Run& r) {
  const Plan p = plan_of(s);
  const ReduceKind kind = (ReduceKind)s.i(AttrKey::kind);
  const double count = (double)(s.in[0]->elements() / s.out[0]->elements());
  switch (p.inner) {
    case Plan::reduced_inner: return run_along(s, r, p, kind, count);
    case Plan::kept_inner: return run_across(s, r, p, kind, count);
    case Plan::strided: return run_strided(s, r, p, kind, count);
  }
}

}  // namespace

extern const Op op_reduce;
const Op op_reduce = {"reduce", verify, choose, run};

}  // namespace wl
