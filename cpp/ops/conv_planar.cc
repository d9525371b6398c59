#include "ops/conv_planar.h"

#include <stdio.h>
#include <string.h>

#include "kernels/brgemm/brgemm.h"
#include "kernels/planar/planar.h"
#include "ops/combining_time.h"
#include "ops/conv_direct.h"
#include "ops/window.h"

namespace wl {

namespace {

constexpr int64_t kPlaneFloats = 48 << 10;        // planes of a task: they stay in the second cache level
constexpr int64_t kWeightsPlaneFloats = 8 << 10;  // with the planes of dy: each tile passes over all of them, so in the first
constexpr int64_t kLeastColumns = 64;             // of a chunk, before long rows are cut
constexpr double kChunkNanoseconds = 300;         // what a chunk costs whatever its size
constexpr double kMargin = 0.9;                   // planar must be this much cheaper than direct
constexpr int64_t kAddressable = int64_t(1) << 30;

// How the input positions under one axis stand in planes: position step*i + residue of the input that a chunk reads is number i of slot
// `residue`. Only residues that some tap meets have a slot.
struct Slots {
  int64_t step, gap, taps, period, count, reach;
  explicit Slots(const ConvAxis& a) : step(a.step), gap(a.gap), taps(a.taps) {
    period = step / gcd(step, gap);
    count = min_of(period, taps);
    reach = taps == 0 ? 0 : (taps - 1) * gap / step;
  }
  int64_t slot(int64_t tap) const { return tap % period; }
  int64_t shift(int64_t tap) const { return tap * gap / step; }
  int64_t residue(int64_t slot) const { return slot * gap % step; }
};

// Chunks are blocks of output rows and columns of one picture and one phase; by shape alone, and not by n: a picture's bits are its own.
struct Cut {
  int64_t rows, columns;                // of a chunk, at most
  int64_t row_chunks, col_chunks;       // of the largest phase
  int64_t planes, x_floats, dy_floats;  // planes of x, at most; floats of them, and of the planes of dy
  int64_t vectors;                      // of a chunk, at most
};

// The planes of x for chunks of one phase.
struct Layout {
  ConvAxis y, x;
  Slots sy, sx;
  int64_t k;                   // channels
  int64_t pitch, rows, plane;  // floats between rows; rows; floats between planes
  Layout(const ConvAxis& rows_axis, const ConvAxis& cols_axis, int64_t channels, const Cut& cut)
      : y(rows_axis), x(cols_axis), sy(y), sx(x), k(channels) {
    pitch = cut.columns + sx.reach;
    rows = cut.rows + sy.reach;
    plane = plane_floats(rows, pitch);
  }
  // An odd number of cache lines: planes do not fall into one set of L1.
  static int64_t plane_floats(int64_t rows, int64_t pitch) { return round_up(rows * pitch, 16) | 16; }
  int64_t planes() const { return k * sy.count * sx.count; }
  int64_t terms() const { return y.taps * x.taps * k; }
  // Of a tap in the planes of channel 0.
  int64_t offset(int64_t ty, int64_t tx) const {
    return (sy.slot(ty) * sx.count + sx.slot(tx)) * plane + sy.shift(ty) * pitch + sx.shift(tx);
  }
};

// The largest phase of an axis stands for all: the first has the most outputs.
template <class Axis>
ConvAxis largest(int64_t phases, Axis axis) {
  ConvAxis a = axis(0);
  for (int64_t p = 1; p < phases; ++p) a.taps = max_of(a.taps, axis(p).taps);
  return a;
}

// `dy_planes` are brought along with those of x (backward-weights); `budget` is in floats.
Cut cut_of(const ConvView& view, int64_t dy_planes, int64_t budget, int64_t lanes) {
  const ConvAxis y = largest(view.phases_h(), [&](int64_t p) { return view.rows(p); });
  const ConvAxis x = largest(view.phases_w(), [&](int64_t p) { return view.cols(p); });
  const Slots sy(y), sx(x);
  const int64_t planes = view.k() * sy.count * sx.count;
  const auto x_floats = [&](int64_t r, int64_t c) { return planes * Layout::plane_floats(r + sy.reach, c + sx.reach); };
  const auto dy_floats = [&](int64_t r, int64_t c) { return dy_planes * Layout::plane_floats(r, c + sx.reach); };
  const auto fits = [&](int64_t r, int64_t c) { return x_floats(r, c) + dy_floats(r, c) <= budget; };
  Cut cut;
  const int64_t wanted = min_of(y.out, 4 * max_of(sy.reach, 1));  // rows, so that few are brought into planes twice
  cut.columns = x.out;
  while (cut.columns >= 2 * kLeastColumns && !fits(wanted, cut.columns)) cut.columns = round_up(div_up(cut.columns, 2), lanes);
  cut.col_chunks = div_up(x.out, cut.columns);
  int64_t most = y.out;
  while (most > 1 && !fits(most, cut.columns)) most = div_up(most, 2);
  cut.row_chunks = div_up(y.out, most);
  cut.rows = div_up(y.out, cut.row_chunks);
  cut.planes = planes;
  cut.x_floats = round_up(x_floats(cut.rows, cut.columns) + sx.reach + lanes, 16);  // whole vectors are read, in gaps too
  cut.dy_floats = dy_floats(cut.rows, cut.columns);
  cut.vectors = max_of(cut.rows * div_up(cut.columns, lanes), div_up(cut.rows * (cut.columns + sx.reach), lanes));
  return cut;
}

struct Chunk {
  int64_t image, row, column, rows, columns;  // output positions of the phase; none where rows or columns is not positive
};
Chunk chunk_of(const Cut& cut, const ConvAxis& y, const ConvAxis& x, int64_t i) {
  Chunk c;
  c.column = i % cut.col_chunks * cut.columns;
  i /= cut.col_chunks;
  c.row = i % cut.row_chunks * cut.rows;
  c.image = i / cut.row_chunks;
  c.rows = min_of(cut.rows, y.out - c.row), c.columns = min_of(cut.columns, x.out - c.column);
  return c;
}

// Output pixels of a chunk in vectors: row by row, or, where rows are short, running on through the gaps between them.
int64_t flat_vectors(int64_t rows, int64_t columns, int64_t pitch, int64_t lanes) {
  return div_up((rows - 1) * pitch + columns, lanes);
}
bool run_on(int64_t rows, int64_t columns, int64_t pitch, int64_t lanes) {
  return flat_vectors(rows, columns, pitch, lanes) * 10 < rows * div_up(columns, lanes) * 9;
}

// The taps of output position o that read inside the input. Most positions are inner ones: division takes longer than a vector's sum.
Range taps_inside(const ConvAxis& a, int64_t o) {
  const int64_t at = o * a.step + a.begin;
  if (at >= 0 && at + (a.taps - 1) * a.gap < a.in) return {0, a.taps};
  return window_inside(o, a.taps, a.step, a.gap, -a.begin, a.in);
}

int64_t fill_vectors(const Layout& l, const Chunk& c, int64_t lanes, PlanarVector* to) {
  PlanarVector* const first = to;
  const int64_t per_row = l.x.taps * l.k;
  // From the first row on that a vector touches, to its last one.
  const auto put = [&](int64_t row, int64_t column, int64_t count, const Range& top, const Range& bottom) {
    *to++ = {int32_t(row), int32_t(column), int32_t(count), int32_t(bottom.begin * per_row),
             int32_t(max_of(bottom.begin, top.end) * per_row)};
  };
  if (!run_on(c.rows, c.columns, l.pitch, lanes)) {
    for (int64_t row = 0; row < c.rows; ++row) {
      const Range taps = taps_inside(l.y, c.row + row);
      for (int64_t column = 0; column < c.columns; column += lanes) put(row, column, min_of(lanes, c.columns - column), taps, taps);
    }
    return to - first;
  }
  int64_t row = 0, column = 0;
  for (int64_t left = (c.rows - 1) * l.pitch + c.columns; left > 0; left -= lanes) {
    const int64_t count = min_of(lanes, left);
    int64_t last_row = row, end = column + lanes, last = column + count - 1;
    for (; last >= l.pitch; last -= l.pitch) ++last_row;
    put(row, column, count, taps_inside(l.y, c.row + row), taps_inside(l.y, c.row + last_row));
    for (; end >= l.pitch; end -= l.pitch) ++row;
    column = end;
  }
  return to - first;
}

// The rows of x that a chunk reads, into planes; zeros outside the picture.
void x_to_planes(const PlanarKernels& k, const Layout& l, const Chunk& c, const float* x, const int64_t* strides, float* planes) {
  const int64_t rows = c.rows + l.sy.reach, columns = c.columns + l.sx.reach;
  const auto rows_of = [&](int64_t slot) { return conv_valid(rows, l.y.in, l.y.step, -l.y.begin - c.row * l.y.step, l.sy.residue(slot)); };
  const auto columns_of = [&](int64_t slot) {
    return conv_valid(columns, l.x.in, l.x.step, -l.x.begin - c.column * l.x.step, l.sx.residue(slot));
  };
  bool all_inside = true;
  for (int64_t slot = 0; slot < l.sy.count; ++slot) all_inside = all_inside && rows_of(slot).size() == rows;
  for (int64_t slot = 0; slot < l.sx.count; ++slot) all_inside = all_inside && columns_of(slot).size() == columns;
  if (!all_inside) memset(planes, 0, size_t(l.planes() * l.plane) * sizeof(float));
  for (int64_t sx = 0; sx < l.sx.count; ++sx) {
    const Range cols = columns_of(sx);
    if (cols.size() == 0) continue;
    const int64_t ix = l.x.begin + (c.column + cols.begin) * l.x.step + l.sx.residue(sx);
    for (int64_t sy = 0; sy < l.sy.count; ++sy) {
      const Range inner = rows_of(sy);
      float* plane = planes + (sy * l.sx.count + sx) * l.plane + cols.begin;
      for (int64_t r = inner.begin; r < inner.end; ++r) {
        const int64_t iy = l.y.begin + (c.row + r) * l.y.step + l.sy.residue(sy);
        k.to_planes(l.k, cols.size(), x + iy * strides[1] + ix * strides[2], l.x.step * strides[2], plane + r * l.pitch,
                    l.sy.count * l.sx.count * l.plane);
      }
    }
  }
}

// Output channels in blocks of nearly equal height.
struct Blocks {
  int64_t columns, count;
  Blocks(int64_t columns_, const PlanarKernels& k) : columns(columns_), count(div_up(columns, k.rows)) {}
  Range operator[](int64_t i) const { return piece(columns, count, i); }
};

int64_t floats_of(int64_t bytes) {
  return round_up(div_up(bytes, int64_t(sizeof(float))), 16);
}

// Terms run over (ky, channel, kx).
void fill_offsets(const Layout& l, int32_t* to) {
  const int64_t per_channel = l.sy.count * l.sx.count * l.plane;
  for (int64_t ty = 0; ty < l.y.taps; ++ty)
    for (int64_t tx = 0; tx < l.x.taps; ++tx) {
      const int64_t first = l.offset(ty, tx);  // divides: once per tap, for there may be many channels and few pixels
      for (int64_t c = 0; c < l.k; ++c) to[(ty * l.k + c) * l.x.taps + tx] = int32_t(first + c * per_channel);
    }
}

// --- forward and backward-data ----------------------------------------------------------------------------------------------------------
// The kernel position that tap t of an axis stands for.
int64_t kernel_position(bool forward, const ConvAxis& a, int64_t t, int64_t pad, int64_t dilation) {
  return forward ? t : (a.out_begin + pad - (a.begin + t * a.gap) * a.out_step) / dilation;
}

// The weights of one phase and group, [block][term][row].
void fill_weights(const ConvView& view, const Layout& l, const Blocks& blocks, const float* w, float* to) {
  const ConvShape& s = view.shape;
  const int64_t c_step = view.forward() ? s.oc : 1, r_step = view.forward() ? 1 : s.oc;
  for (int64_t b = 0; b < blocks.count; ++b) {
    const Range rows = blocks[b];
    for (int64_t ty = 0; ty < l.y.taps; ++ty) {
      const int64_t ky = kernel_position(view.forward(), l.y, ty, s.pad_top, s.dilh);
      for (int64_t tx = 0; tx < l.x.taps; ++tx) {
        const int64_t kx = kernel_position(view.forward(), l.x, tx, s.pad_left, s.dilw);
        const float* from = w + (ky * s.kw + kx) * s.icg() * s.oc;
        float* term = to + (ty * l.k * l.x.taps + tx) * rows.size();
        for (int64_t c = 0; c < l.k; ++c, from += c_step, term += l.x.taps * rows.size())
          for (int64_t r = 0; r < rows.size(); ++r) term[r] = from[(rows.begin + r) * r_step];
      }
    }
    to += l.terms() * rows.size();
  }
}

// Workspace in floats: offsets and weights of all phases, then the threads' own.
struct Memory {
  int64_t offsets, weights, vectors, planes;
  Memory(const ConvShape& s, const ConvView& view, const Cut& cut) {
    offsets = floats_of(s.taps() * view.k() * int64_t(sizeof(int32_t)));
    weights = round_up(s.taps() * s.icg() * s.oc, 16);
    vectors = floats_of(cut.vectors * int64_t(sizeof(PlanarVector)));
    planes = cut.x_floats;
  }
  int64_t shared() const { return offsets + weights; }
  int64_t per_thread() const { return vectors + planes; }
};

Cut conv_cut(const ConvView& view, const PlanarKernels& k) {
  return cut_of(view, 0, kPlaneFloats, k.lanes);
}

// --- backward-weights -------------------------------------------------------------------------------------------------------------------
struct WeightsPlan {
  ConvView view;
  Cut cut;
  Layout layout;
  int64_t dy_plane, chunks, parts;
  WeightsPlan(const ConvShape& s, const PlanarKernels& k)
      : view{s, ConvDirection::fwd},
        cut(cut_of(view, s.ocg(), kWeightsPlaneFloats, k.lanes)),
        layout(view.rows(0), view.cols(0), s.icg(), cut) {
    dy_plane = Layout::plane_floats(cut.rows, layout.pitch);
    chunks = s.n * cut.row_chunks * cut.col_chunks;
    parts = min_of(chunks, div_up(kEnoughTasks, s.g));
  }
  int64_t elements() const { return view.shape.taps() * view.shape.icg() * view.shape.ocg(); }  // of a group
  int64_t offsets_floats() const { return floats_of(layout.terms() * int64_t(sizeof(int32_t))); }
  int64_t sums_floats(const PlanarKernels& k) const { return round_up(elements() * k.lanes, 16); }
  int64_t parts_floats() const { return round_up(parts * view.shape.g * elements(), 16); }
  int64_t per_thread(const PlanarKernels& k) const { return cut.x_floats + cut.dy_floats + sums_floats(k); }
};

}  // namespace

bool planar_possible(const ConvShape& s) {
  // The planes of one row of the smallest chunk, and a vector of sums per weight, on any ISA and in any direction.
  const double k = double(max_of(s.icg(), s.ocg())), taps = double(s.taps());
  const double reach_h = double(s.kh) * double(s.dilh), reach_w = double(s.kw) * double(s.dilw);
  return taps * k * (1 + reach_h) * (2 * kLeastColumns + 16 + reach_w) + taps * k * 16 * double(min_of(s.icg(), s.ocg())) < kAddressable;
}

bool planar_pays(const ConvShape& s, ConvDirection direction, const Kernels& kernels) {
  if (min_of(s.icg(), s.ocg()) > kThinChannels || !planar_possible(s)) return false;
  const PlanarKernels& k = *kernels.planar;
  const bool weights = direction == ConvDirection::bwd_weights;
  const ConvView view{s, weights ? ConvDirection::fwd : direction};
  const Cut cut = weights ? cut_of(view, s.ocg(), kWeightsPlaneFloats, k.lanes) : conv_cut(view, k);
  const Slots sy(largest(view.phases_h(), [&](int64_t p) { return view.rows(p); }));
  const Slots sx(largest(view.phases_w(), [&](int64_t p) { return view.cols(p); }));
  const int64_t pitch = cut.columns + sx.reach;
  int64_t per_chunk = cut.rows * div_up(cut.columns, k.lanes);
  if (weights || run_on(cut.rows, cut.columns, pitch, k.lanes)) per_chunk = flat_vectors(cut.rows, cut.columns, pitch, k.lanes);
  // Nanoseconds for one picture and phase: a vector's way into planes, its sums and its way out, against pixels in tiles of brgemm or
  // outer.
  const double chunks = double(cut.row_chunks * cut.col_chunks), vectors = chunks * double(per_chunk);
  const double pixels = chunks * double(cut.rows * cut.columns);
  // Rows go their ways one by one, so a part of a vector takes as long as a whole one; and a stride reads what it does not write.
  const double vectors_in = chunks * double((cut.rows + sy.reach) * sy.count * sx.count * div_up(pitch, k.lanes));
  const double vectors_out = chunks * double(cut.rows * div_up(cut.columns, k.lanes));
  const double in = double(view.k()), out = double(view.columns());
  const double terms = double(s.taps()) * in / double(view.phases_h() * view.phases_w());  // a phase has its share of the taps
  const double columns = double(div_up(view.columns(), kernels.brgemm->lanes));
  const double way = 60.0 * k.lanes / 16;  // of a vector's pixels, 16 channels in or a block out
  // Per vector: blocks of channels, each of which costs as much as three channels more.
  const auto by_blocks = [&](int64_t channels, int64_t block) {
    return way * double(channels + 3 * div_up(channels, block)) / double(block + 3);
  };
  const auto transposing = [&](int64_t channels) { return by_blocks(channels, 16); };
  const double wide = columns > 1 ? 0.3 : weights ? 0.45 : 0.42;  // a multiply-add of brgemm and outer, in tiles of one vector or two
  const bool apart = !weights && view.form() == ConvForm::pixels && s.taps() > 1;
  const double taps = apart ? terms / in : 0;  // that each pixel takes one by one
  const double direct = pixels * (wide * terms * columns + 4 * taps + (weights ? 8 : 12));
  double planar = chunks * kChunkNanoseconds + vectors_in * transposing(view.k());
  if (weights)
    planar += vectors_out * transposing(view.columns()) + vectors * 0.5 * terms * out + chunks * 4 * terms * out;
  else
    planar += vectors_out * by_blocks(view.columns(), k.rows) + vectors * 0.35 * terms * out;
  return planar < kMargin * direct;
}

void planar_choose(const ConvShape& s, ConvDirection direction, const Kernels& kernels, int threads, Choice* choice) {
  const PlanarKernels& k = *kernels.planar;
  snprintf(choice->kernel, sizeof choice->kernel, "planar %s", k.tile);
  if (direction == ConvDirection::bwd_weights) {
    const WeightsPlan p(s, k);
    choice->workspace = (p.offsets_floats() + p.parts_floats() + threads * p.per_thread(k)) * int64_t(sizeof(float));
    snprintf(choice->blocking, sizeof choice->blocking, "%lld parts of the pixels x %lld groups, chunks of %lld x %lld pixels",
             (long long)p.parts, (long long)s.g, (long long)p.cut.rows, (long long)p.cut.columns);
    return;
  }
  const ConvView view{s, direction};
  const Cut cut = conv_cut(view, k);
  const Memory m(s, view, cut);
  choice->workspace = (m.shared() + threads * m.per_thread()) * int64_t(sizeof(float));
  const Blocks blocks(view.columns(), k);
  snprintf(choice->blocking, sizeof choice->blocking, "chunks of %lld x %lld pixels in %lld planes, %lld blocks of %lld channels",
           (long long)cut.rows, (long long)cut.columns, (long long)cut.planes, (long long)blocks.count, (long long)blocks[0].size());
}

void planar_conv(const Run& run, const Kernels& kernels, const ConvShape& s, ConvDirection direction, const Tensor& x, const float* w,
                 const Tensor& y, const ConvEpilogueOperands& epilogue) {
  const PlanarKernels& k = *kernels.planar;
  const ConvView view{s, direction};
  const Cut cut = conv_cut(view, k);
  const Memory m(s, view, cut);
  const Blocks blocks(view.columns(), k);
  float* memory = reinterpret_cast<float*>(run.workspace);
  int32_t* offsets = reinterpret_cast<int32_t*>(memory);
  float* weights = memory + m.offsets;
  const int64_t phases = view.phases_h() * view.phases_w(), phases_w = view.phases_w(), columns = view.columns();
  const auto layout_of = [&](int64_t phase) { return Layout(view.rows(phase / phases_w), view.cols(phase % phases_w), view.k(), cut); };
  const auto taps_before = [&](const Layout& l) { return l.y.taps_before * s.kw + l.y.taps * l.x.taps_before; };
  const auto weights_at = [&](const Layout& l, int64_t group) {
    return weights + (taps_before(l) * s.g * view.k() + group * l.terms()) * columns;
  };

  parallel_for(run, phases * s.g, 2.0 * double(s.taps()) * double(s.icg()) * double(s.oc), [&](int64_t task, int) {
    const int64_t group = task % s.g;
    const Layout l = layout_of(task / s.g);
    if (group == 0) fill_offsets(l, offsets + taps_before(l) * view.k());
    fill_weights(view, l, blocks, w + group * s.ocg(), weights_at(l, group));
  });

  const int64_t tasks = phases * s.n * cut.row_chunks * cut.col_chunks * s.g;
  const double cost = 0.02 * s.macs() + 4.0 * double(y.dims[0] * y.dims[1] * y.dims[2] * s.g);
  parallel_for(run, tasks, cost, [&](int64_t task, int thread) {
    const int64_t group = task % s.g, i = task / s.g, per_phase = s.n * cut.row_chunks * cut.col_chunks;
    const Layout l = layout_of(i / per_phase);
    const Chunk c = chunk_of(cut, l.y, l.x, i % per_phase);
    if (c.rows <= 0 || c.columns <= 0) return;
    PlanarVector* vectors = reinterpret_cast<PlanarVector*>(memory + m.shared() + thread * m.per_thread());
    float* planes = memory + m.shared() + thread * m.per_thread() + m.vectors;
    x_to_planes(k, l, c, x.f32() + c.image * x.strides[0] + group * view.k(), x.strides, planes);

    PlanarArgs g;
    g.count = fill_vectors(l, c, k.lanes, vectors);
    g.vectors = vectors, g.x = planes, g.pitch = l.pitch, g.columns = c.columns;
    g.offsets = offsets + taps_before(l) * view.k();
    g.out.activation = epilogue.activation, g.out.alpha = epilogue.alpha, g.out.beta = epilogue.beta;
    const int64_t oy = l.y.out_begin + c.row * l.y.out_step, ox = l.x.out_begin + c.column * l.x.out_step;
    const auto at = [&](const Tensor& t) { return t.f32() + c.image * t.strides[0] + oy * t.strides[1] + ox * t.strides[2]; };
    g.out.y_row = l.y.out_step * y.strides[1], g.out.y_col = l.x.out_step * y.strides[2];
    const float* block_weights = weights_at(l, group);
    for (int64_t b = 0; b < blocks.count; ++b) {
      const Range rows = blocks[b];
      const int64_t channel = group * columns + rows.begin;
      g.rows = int(rows.size());
      g.w = block_weights + l.terms() * rows.begin;
      g.out.y = at(y) + channel;
      g.out.bias = epilogue.bias ? epilogue.bias + channel : nullptr;
      if (epilogue.residual) {
        g.out.residual = at(*epilogue.residual) + channel;
        g.out.residual_row = l.y.out_step * epilogue.residual->strides[1],
        g.out.residual_col = l.x.out_step * epilogue.residual->strides[2];
      }
      k.run(g);
    }
  });
}

void planar_bwd_weights(const Run& run, const Kernels& kernels, const ConvShape& s, const Tensor& x, const Tensor& dy, float* dw) {
  const PlanarKernels& k = *kernels.planar;
  const WeightsPlan p(s, k);
  const Layout& l = p.layout;
  const Blocks blocks(s.ocg(), k);
  float* memory = reinterpret_cast<float*>(run.workspace);
  int32_t* offsets = reinterpret_cast<int32_t*>(memory);
  float* parts = memory + p.offsets_floats();
  float* scratch = parts + p.parts_floats();
  fill_offsets(l, offsets);

  parallel_for(run, p.parts * s.g, 0.03 * s.macs(), [&](int64_t task, int thread) {
    const int64_t group = task % s.g, part = task / s.g;
    float* x_planes = scratch + thread * p.per_thread(k);
    float* dy_planes = x_planes + p.cut.x_floats;
    float* sums = dy_planes + p.cut.dy_floats;
    // Lanes in gaps are multiplied by zeros of dy: they must hold numbers.
    memset(x_planes, 0, size_t(p.cut.x_floats + p.cut.dy_floats) * sizeof(float));
    const Range chunks = piece(p.chunks, p.parts, part);
    for (int64_t i = chunks.begin; i < chunks.end; ++i) {
      const Chunk c = chunk_of(p.cut, l.y, l.x, i);
      x_to_planes(k, l, c, x.f32() + c.image * x.strides[0] + group * s.icg(), x.strides, x_planes);
      const float* from = dy.f32() + c.image * dy.strides[0] + group * s.ocg();
      // Earlier chunks wrote no column past the widest; a narrower one leaves something of them.
      if (c.columns < p.cut.columns) memset(dy_planes, 0, size_t(p.cut.dy_floats) * sizeof(float));
      for (int64_t r = 0; r < c.rows; ++r)
        k.to_planes(s.ocg(), c.columns, from + (c.row + r) * dy.strides[1] + c.column * dy.strides[2], dy.strides[2],
                    dy_planes + r * l.pitch, p.dy_plane);
      const int64_t places = c.rows * l.pitch, pixels = round_up(places, k.lanes);
      for (int64_t o = 0; o < s.ocg(); ++o)
        for (int64_t j = places; j < pixels; ++j) dy_planes[o * p.dy_plane + j] = 0;
      for (int64_t b = 0; b < blocks.count; ++b) {
        const Range rows = blocks[b];
        PlanarWeightsArgs g;
        g.rows = int(rows.size()), g.terms = l.terms(), g.pixels = pixels;
        g.x = x_planes, g.dy = dy_planes + rows.begin * p.dy_plane, g.dy_plane = p.dy_plane;
        g.offsets = offsets, g.add = i > chunks.begin;
        g.sums = sums + l.terms() * rows.begin * k.lanes;
        k.weights(g);
      }
    }
    k.add_lanes(p.elements(), sums, parts + (part * s.g + group) * p.elements());
  });

  // The parts' sums, [part][group][block][ky][c][kx][row], in order into dw.
  const CombiningTime combining(run);
  parallel_for(run, s.g * s.kh, 1.0 * double(p.parts * s.g * p.elements()), [&](int64_t task, int) {
    const int64_t group = task % s.g, ky = task / s.g;
    for (int64_t b = 0; b < blocks.count; ++b) {
      const Range rows = blocks[b];
      for (int64_t c = 0; c < s.icg(); ++c)
        for (int64_t kx = 0; kx < s.kw; ++kx) {
          const int64_t term = (ky * s.icg() + c) * s.kw + kx;
          float* to = dw + ((ky * s.kw + kx) * s.icg() + c) * s.oc + group * s.ocg() + rows.begin;
          const float* from = parts + group * p.elements() + l.terms() * rows.begin + term * rows.size();
          for (int64_t r = 0; r < rows.size(); ++r) {
            float sum = from[r];
            for (int64_t part = 1; part < p.parts; ++part) sum = sum + from[part * s.g * p.elements() + r];
            to[r] = sum;
          }
        }
    }
  });
}

}  // namespace wl
