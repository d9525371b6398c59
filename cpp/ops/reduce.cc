// Sum, mean and maximum over any set of axes of a tensor with any strides.
//
// What is reduced into one output is cut into pieces by its own extents alone, never by how many outputs there are, so a sample's bits do
// not depend on its batch. Pieces are combined in order.
#include "kernels/reduce/reduce.h"

#include <string.h>

#include "ops/axes.h"
#include "ops/check.h"
#include "ops/combining_time.h"

namespace wl {
namespace {

constexpr int64_t kPiece = 65536;       // elements of a piece
constexpr int64_t kSegment = 4096;      // longest run that one kernel call sums into one number
constexpr int64_t kColumnBlock = 2048;  // outputs side by side that one task accumulates
constexpr int64_t kMostPieces = 256;
constexpr int64_t kRowsPerCall = 64;   // of the kernel that sums along rows
constexpr int64_t kRowsEnough = 32;    // to keep it busy
constexpr int64_t kSideBySide = 1024;  // elements, of rows of outputs beside each other, that are enough for memory

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
void combine_each(ReduceKind kind, int64_t n, const float* with, double* values) {
  if (kind == ReduceKind::max)
    for (int64_t i = 0; i < n; ++i) values[i] = combine(ReduceKind::max, values[i], (double)with[i]);
  else
    for (int64_t i = 0; i < n; ++i) values[i] += (double)with[i];
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
  const ReduceKernels& kernels = *r.kernels->reduce;
  const int64_t x_stride = p.kept.stride[1][p.kept.rank - 1], y_stride = p.kept.stride[0][p.kept.rank - 1];
  const int64_t x_row = p.reduced.stride[0][p.reduced.rank - 1], all = p.rows * p.segments;
  // A kernel call takes one row each of several outputs or several rows of one: whichever fills it better, else those that lie closer. Bits
  // do not depend on it.
  const int64_t outputs_there = min_of(p.kept.extent[p.kept.rank - 1], kRowsEnough);
  const int64_t rows_there = p.segments > 1 ? 1 : min_of(p.reduced.extent[p.reduced.rank - 1], kRowsEnough);
  const bool beside = outputs_there == rows_there ? x_stride < x_row : outputs_there > rows_there;
  const int64_t least = beside ? max_of(1, min_of(kRowsEnough, kSideBySide / p.length)) : 1;
  const int64_t per_task = max_of(least, p.pieces > 1 ? 1 : kTaskElements / (p.rows * p.length));
  double* partial = reinterpret_cast<double*>(r.workspace);
  const auto add_piece = [&](int64_t n, const float* first, int64_t which, double* values) {
    for (int64_t j = 0; j < n; ++j) values[j] = neutral(kind);
    const Range range = piece(all, p.pieces, which);
    for (int64_t begin = range.begin; begin < range.end;) {
      const int64_t segment = begin % p.segments, row = begin / p.segments, length = min_of(kSegment, p.length - segment * kSegment);
      const int64_t most = p.segments == 1 ? range.end - begin : 1;  // rows that may be taken together
      for_each_run(p.reduced, row, row + most, [&](int64_t rows, const int64_t* at) {
        const float* from = first + at[0] + segment * kSegment;
        const int64_t step = beside ? 1 : kRowsPerCall;
        float sums[kRowsPerCall];
        for (int64_t i = 0; i < rows; i += step, from += step * x_row) {
          const int64_t m = beside ? n : min_of(step, rows - i);
          kernels.rows(kind, m, length, from, beside ? x_stride : x_row, sums);
          if (beside)
            combine_each(kind, m, sums, values);
          else
            for (int64_t j = 0; j < m; ++j) values[0] = combine(kind, values[0], (double)sums[j]);
        }
      });
      begin += most;
    }
  };
  parallel_for(r, div_up(p.outputs, per_task) * p.pieces, 0.3 * (double)x.elements(), [&](int64_t task, int) {
    const int64_t which = task % p.pieces, begin = task / p.pieces * per_task;
    int64_t output = begin;
    for_each_run(p.kept, begin, min_of(p.outputs, begin + per_task), [&](int64_t count_of_run, const int64_t* offset) {
      const float* from = x.f32() + offset[1];
      float* to = y.f32() + offset[0];
      const int64_t step = beside ? kRowsPerCall : 1;
      for (int64_t i = 0; i < count_of_run; i += step, from += step * x_stride, to += step * y_stride, output += step) {
        const int64_t n = min_of(step, count_of_run - i);
        if (all == 1) {
          float sums[kRowsPerCall];
          kernels.rows(kind, n, p.length, from, x_stride, sums);
          const float divisor = kind == ReduceKind::mean ? (float)count : 1.0f;
          for (int64_t j = 0; j < n; ++j) to[j * y_stride] = sums[j] / divisor;
          continue;
        }
        double values[kRowsPerCall];
        add_piece(n, from, which, values);
        if (p.pieces > 1)
          for (int64_t j = 0; j < n; ++j) partial[(output + j) * p.pieces + which] = values[j];
        else
          for (int64_t j = 0; j < n; ++j) to[j * y_stride] = finish(kind, values[j], count);
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
  const int64_t y_group = p.kept.stride[0][p.kept.rank - 1], x_group = p.kept.stride[1][p.kept.rank - 1];
  float* partial = reinterpret_cast<float*>(r.workspace);
  const auto clear = [&](float* acc, int64_t n) {
    for (int64_t i = 0; i < n; ++i) acc[i] = (float)neutral(kind);
  };
  const auto write_row = [&](const float* acc, int64_t n, float* to) {
    const float divisor = kind == ReduceKind::mean ? (float)count : 1.0f;
    for (int64_t i = 0; i < n; ++i) to[i * p.y_stride] = acc[i] / divisor;
  };
  const auto write = [&](const float* acc, int64_t groups, int64_t width, float* to) {
    if (y_group == width * p.y_stride) return write_row(acc, groups * width, to);
    for (int64_t g = 0; g < groups; ++g) write_row(acc + g * width, width, to + g * y_group);
  };
  parallel_for(r, div_up(p.outputs, per_task) * p.pieces * blocks, 0.3 * (double)x.elements(), [&](int64_t task, int) {
    const int64_t column = task % blocks * kColumnBlock, width = min_of(kColumnBlock, c - column);
    const int64_t which = task / blocks % p.pieces, first = task / blocks / p.pieces * per_task;
    const Range range = piece(p.rows, p.pieces, which);
    for_each_run(p.kept, first, min_of(p.outputs, first + per_task), [&](int64_t n, const int64_t* offset) {
      float acc[kColumnBlock];
      const int64_t together = kColumnBlock / width;
      for (int64_t i = 0; i < n; i += together) {
        const int64_t groups = min_of(together, n - i);
        const float* from = x.f32() + offset[1] + i * x_group + column;
        clear(acc, groups * width);
        for_each_run(p.reduced, range.begin, range.end, [&](int64_t rows, const int64_t* at) {
          r.kernels->reduce->columns(kind, groups, rows, width, from + at[0], x_group, p.reduced.stride[0][p.reduced.rank - 1], acc);
        });
        if (p.pieces == 1)
          write(acc, groups, width, y.f32() + offset[0] + i * y_group + column * p.y_stride);
        else  // a task has one output
          memcpy(partial + (first * p.pieces + which) * c + column, acc, (size_t)width * sizeof(float));
      }
    });
  });
  if (p.pieces == 1) return;
  const CombiningTime combining(r);
  parallel_for(r, p.outputs * blocks, 0.3 * (double)(p.outputs * p.pieces * c), [&](int64_t task, int) {
    const int64_t column = task % blocks * kColumnBlock, width = min_of(kColumnBlock, c - column), output = task / blocks;
    for_each_run(p.kept, output, output + 1, [&](int64_t, const int64_t* offset) {
      float acc[kColumnBlock];
      clear(acc, width);
      r.kernels->reduce->columns(kind, 1, p.pieces, width, partial + output * p.pieces * c + column, 0, c, acc);
      write(acc, 1, width, y.f32() + offset[0] + column * p.y_stride);
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
