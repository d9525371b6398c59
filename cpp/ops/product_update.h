// Updates of a dense weight from a gradient xᵀ dy that is never written: some rows of it at a time are made in scratch and handed over
// while they are in cache. Their bits are those of matmul (trans_a).
#pragma once
#include <stdio.h>

#include "kernels/brgemm/brgemm.h"
#include "ops/flat.h"

namespace wl {

// x (m, k), dy (m, n) as inputs 0 and 1, and k * n parameters in a row as output 0.
inline Status check_product(const Step& s) {
  const Tensor &x = *s.in[0], &dy = *s.in[1], &param = *s.out[0];
  WL_CHECK(x.rank == 2 && dy.rank == 2 && x.dims[0] == dy.dims[0] && x.batch == dy.batch,
           "%s: x and dy are not two matrices of equally many rows", s.path);
  WL_CHECK(unit_channels(x) && unit_channels(dy), "%s: the last axis of x or dy has gaps", s.path);
  WL_CHECK(param.rank == 1 && param.dims[0] / dy.dims[1] == x.dims[1] && param.dims[0] % dy.dims[1] == 0,
           "%s: %lld parameters are not %lld x %lld", s.path, (long long)param.dims[0], (long long)x.dims[1], (long long)dy.dims[1]);
  return Status::good();
}

class ProductUpdate {
 public:
  explicit ProductUpdate(const Step& s) : x_(*s.in[0]), dy_(*s.in[1]), m_(x_.dims[0]), k_(x_.dims[1]), n_(dy_.dims[1]) {
    column_blocks_ = div_up(n_, kColumns);
    columns_ = round_up(div_up(n_, column_blocks_), kStrip);
    strips_ = div_up(k_, kStrip);
    strip_blocks_ = min_of(strips_, max_of(1, kTasks / column_blocks_));
  }

  void choose(const Kernels& kernels, int threads, Choice* choice) const {
    choice->workspace = threads * scratch_bytes();
    snprintf(choice->kernel, sizeof choice->kernel, "brgemm %s", kernels.brgemm->tile);
    snprintf(choice->blocking, sizeof choice->blocking, "%lld tasks: %lld columns, %lld rows at a time", (long long)tasks(),
             (long long)columns_, (long long)kStrip);
  }

  // update(count, grad, at) for pieces of rows of the gradient: parameters [at, at + count).
  template <class Update>
  void run(const Run& r, Update&& update) const {
    const BrgemmKernels& brgemm = *r.kernels->brgemm;
    const int64_t width = brgemm.width, panel = (m_ + 1) * width;  // panels a power of two apart would share cache sets
    parallel_for(r, tasks(), double(k_) * double(n_) * (0.6 + 0.02 * double(m_)), [&](int64_t task, int thread) {
      const int64_t column = task % column_blocks_ * columns_, columns = min_of(columns_, n_ - column);
      const Range strips = piece(strips_, strip_blocks_, task / column_blocks_);
      float* panels = reinterpret_cast<float*>(r.workspace + thread * scratch_bytes());
      float *strip = panels + (m_ + 1) * columns_, *sums = strip + (m_ + 1) * kStrip, *rows[kStrip];
      for (int64_t i = 0; i < kStrip; ++i) rows[i] = sums + i * (columns_ + kGap);
      pack(brgemm, dy_, column, columns, panel, panels);
      for (int64_t first = strips.begin * kStrip; first < min_of(strips.end * kStrip, k_); first += kStrip) {
        const int64_t count = min_of(kStrip, k_ - first);
        pack(brgemm, x_, first, count, panel, strip);
        for (int64_t row = 0; row < count; row += width) {
          const BrgemmSegment segment{strip + row / width * panel, panels, m_};
          BrgemmTransposedArgs g;
          g.m = min_of(width, count - row), g.n = columns, g.count = 1, g.segments = &segment;
          g.a_stride = g.b_stride = width, g.b_panel = panel;
          g.out.c = rows + row;
          brgemm.run_transposed(g);
        }
        for (int64_t i = 0; i < count; ++i) update(columns, rows[i], (first + i) * n_ + column);
      }
    });
  }

 private:
  static constexpr int64_t kStrip = 32;      // rows of the gradient at a time
  static constexpr int64_t kColumns = 1024;  // of a block: it and dy's share stay in the second cache level
  static constexpr int64_t kTasks = 16;
  static constexpr int64_t kGap = 16;  // floats between rows, which shall not lie a power of two apart

  int64_t tasks() const { return column_blocks_ * strip_blocks_; }
  // Panels of dy, of a strip of x, and the gradient of a strip.
  int64_t scratch_bytes() const {
    return round_up(((m_ + 1) * (columns_ + kStrip) + kStrip * (columns_ + kGap)) * (int64_t)sizeof(float), kCacheLine);
  }

  static void pack(const BrgemmKernels& brgemm, const Tensor& t, int64_t first, int64_t n, int64_t panel, float* to) {
    BrgemmPackArgs g;
    g.src = t.f32() + first, g.stride = t.strides[0], g.k = t.dims[0], g.n = n;
    g.dst = to, g.panel = panel, g.width = brgemm.width;
    brgemm.pack(g);
  }

  const Tensor &x_, &dy_;
  int64_t m_, k_, n_;
  int64_t columns_, column_blocks_, strips_, strip_blocks_;  // tasks are rectangles of the parameters
};

inline void choose_product(const Step& s, const Kernels& kernels, int threads, Choice* choice) {
  ProductUpdate(s).choose(kernels, threads, choice);
}

}  // namespace wl
