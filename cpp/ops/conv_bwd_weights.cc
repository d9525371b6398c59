// Backward-weights: dw[ky][kx][i][o] = Σ_{n,oy,ox} x[n][oy*sh - pad_top + ky*dilh][ox*sw - pad_left + kx*dilw][i] * dy[n][oy][ox][o].
//
// The sum runs over pixels, in chunks of about kChunkPixels: inside a chunk a tile of dw stays in registers, a run per row of pixels that
// lies inside the picture (so padding costs nothing), and is added to memory at the chunk's end, which keeps chains of additions short. The
// panel of dy that a chunk needs (one block of output channels) stays in L1 while all taps and input channels sweep over it.
//
// Thin inputs take their taps together, so that tiles are filled: `merged` sees (kx, i) as one run of kw*ic rows, `patch` the whole filter
// as one run of kw*kh*ic rows on a copy in which the kh rows of a picture are interleaved.
//
// Tasks are blocks of dw (input channels, filter rows, output channels) times parts of the pixels. Parts and chunks decide the order of
// the sum and depend on the shape alone; the blocks change no bit.
#include <stdio.h>
#include <string.h>

#include <initializer_list>

#include "kernels/outer/outer.h"
#include "ops/conv_planar.h"
#include "ops/depthwise.h"
#include "ops/partial_sums.h"
#include "ops/winograd.h"

namespace wl {

namespace {

constexpr int64_t kChunkPixels = 192, kMostPixels = kChunkPixels * 3 / 2;  // of a chunk: what is aimed at, and the most
constexpr int64_t kBlockElements = 1 << 17;                                // of dw per task: stays in L2 while the pixels pass by

// Floats between pixels from which on the first cache level keeps too few of them: multiples fall into four sets or fewer.
constexpr int64_t kCrowded = 256;

enum class Form { direct, merged, patch };

// One direct backward-weights pass, decided from shape, strides and the widths of the kernel.
struct Sweep {
  ConvShape s;  // with pictures of a plain 1x1, and those that have one output pixel, flattened to one row of pixels
  int64_t x_image, x_row, x_col, dy_image, dy_row, dy_col;
  bool single = false;  // each picture has one output pixel
  Form form;
  bool copy;     // x goes through a padded copy
  bool swapped;  // patch form: output channels are the rows of a tile, the patch its columns

  int64_t taps_y, taps_x, run;  // rows of the product: taps_y * taps_x groups of `run`
  int64_t pieces;               // of a row of pixels
  int64_t chunk_rows, row_chunks, chunks;
  int64_t parts;
  int64_t blocks_m, blocks_y, blocks_n;  // of the product per group: cuts of `run`, of taps_y, of the output channels
  bool pack;                             // dy through a packed panel
  bool dy_gapless;                       // all rows of a chunk of dy are one row of pixels
  bool spread_x;  // x through a copy, normalised or with a better distance between its pixels where each is read several times

  int64_t product_rows() const { return taps_y * taps_x * run; }
  int64_t elements() const { return product_rows() * s.oc; }
  int64_t tasks() const { return parts * s.g * blocks_m * blocks_y * blocks_n; }
  int64_t piece_columns() const { return div_up(s.ow, pieces); }
  int64_t copy_columns() const { return (piece_columns() - 1) * s.sw + s.kw; }
  int64_t copy_step() const { return s.ic * (form == Form::patch ? s.kh : 1); }  // between input columns of the copy
  int64_t block_rows() const { return div_up(run, blocks_m); }
  int64_t x_step() const { return single ? x_image : s.sw * (copy ? copy_step() : x_col); }  // between the inputs of neighbouring pixels
  int64_t spread_step() const { return (div_up(block_rows(), 16) | 1) * 16; }  // the same in the copy of x: an odd number of cache lines
  bool own_layout() const { return form == Form::patch; }                      // partial sums are not in dw's order
};

int64_t tile_rows(const OuterKernels& k, int64_t columns) {
  return columns * 2 > k.columns ? k.rows : k.rows_thin;
}

bool flat(const ConvShape& s, const Tensor& x, const Tensor& dy) {
  const auto gapless = [](const Tensor& t) {
    return (t.dims[1] == 1 || t.strides[1] == t.dims[2] * t.strides[2]) &&
           (t.dims[0] == 1 || t.strides[0] == t.dims[1] * t.dims[2] * t.strides[2]);
  };
  return s.taps() == 1 && s.sh == 1 && s.sw == 1 && s.ih == s.oh && s.iw == s.ow && s.pad_top == 0 && s.pad_left == 0 && gapless(x) &&
         gapless(dy);
}

Sweep sweep_of(const ConvShape& shape, const Tensor& x, const Tensor& dy, bool normalises, const OuterKernels& k) {
  Sweep w;
  w.s = shape;
  ConvShape& s = w.s;
  w.x_image = x.strides[0], w.x_row = x.strides[1], w.x_col = x.strides[2];
  w.dy_image = dy.strides[0], w.dy_row = dy.strides[1], w.dy_col = dy.strides[2];
  if (flat(s, x, dy)) {
    s.ow = s.iw = s.n * s.oh * s.ow;
    s.n = s.ih = s.oh = 1;
  } else if (s.oh == 1 && s.ow == 1) {
    w.single = true;
    w.dy_col = w.dy_image;
    s.ow = s.n, s.n = 1;
  }

  constexpr int64_t kThinChannels = 16, kShortRun = 8;
  const bool mergeable = !w.single && s.g == 1 && s.dilw == 1 && s.kw > 1 && s.ic <= kThinChannels;
  w.form = !mergeable ? Form::direct : s.kw * s.ic < kShortRun && s.kh > 1 ? Form::patch : Form::merged;
  const bool inside = s.pad_left == 0 && (s.ow - 1) * s.sw + s.kw <= s.iw;
  w.copy = w.form == Form::patch || (w.form == Form::merged && !(inside && w.x_col == s.ic));
  w.taps_y = w.form == Form::patch ? 1 : s.kh;
  w.taps_x = w.form == Form::direct ? s.kw : 1;
  w.run = w.form == Form::direct ? s.icg() : w.form == Form::merged ? s.kw * s.ic : s.kh * s.kw * s.ic;
  const int64_t lanes = k.columns / 2;
  w.swapped = w.form == Form::patch && s.oc * div_up(w.run, lanes) < w.run * div_up(s.oc, lanes);

  // The order of the sum: shape alone.
  w.pieces = s.ow <= kMostPixels ? 1 : div_up(s.ow, kChunkPixels);
  const int64_t rows = w.form == Form::direct ? s.n * s.oh : s.oh;  // copies of x are made per picture
  w.chunk_rows = w.pieces > 1 ? 1 : min_of(rows, max_of(1, kChunkPixels / s.ow));
  w.row_chunks = div_up(rows, w.chunk_rows) * w.pieces;
  w.chunks = w.form == Form::direct ? w.row_chunks : s.n * w.row_chunks;
  const int64_t group_elements = w.product_rows() * s.ocg();
  const int64_t forced = div_up(group_elements, kBlockElements);
  const int64_t most_parts = max_of(1, min_of(w.chunks, s.n * s.oh * s.ow / 512));
  w.parts = min_of(most_parts, div_up(kEnoughTasks, s.g * forced));

  // Blocks of dw: no larger than stays in L2, and enough tasks in all; nearly square, as each block reads its channels of x and dy again.
  const int64_t wanted = max_of(forced, div_up(kEnoughTasks, s.g * w.parts));
  const int64_t least_m = 4 * k.rows, least_n = 2 * k.columns;
  w.blocks_m = w.blocks_y = w.blocks_n = 1;
  while (!w.own_layout() && w.blocks_m * w.blocks_y * w.blocks_n < wanted) {
    const int64_t m = w.run / w.blocks_m, n = s.ocg() / w.blocks_n;
    if (n >= m && n >= 2 * least_n)
      w.blocks_n *= 2;
    else if (m >= 2 * least_m)
      w.blocks_m *= 2;
    else if (n >= 2 * k.columns)
      w.blocks_n *= 2;
    else if (w.blocks_y < w.taps_y)
      w.blocks_y = min_of(w.taps_y, w.blocks_y * 2);
    else
      break;
  }
  const int64_t uses = div_up(w.run, w.blocks_m * k.rows) * div_up(w.taps_y, w.blocks_y) * w.taps_x;  // of a panel of dy
  w.dy_gapless = w.pieces == 1 && (s.oh == 1 || w.dy_row == s.ow * w.dy_col) && (s.n == 1 || w.dy_image == s.oh * s.ow * w.dy_col);
  w.pack = !w.swapped && (s.ocg() % lanes != 0 || uses >= 8);
  const bool crowded = w.x_step() % kCrowded == 0 && w.x_step() > kCrowded && w.form == Form::direct && s.taps() == 1 && s.ow > 1;
  w.spread_x = normalises || (crowded && w.block_rows() > k.rows && s.ocg() / w.blocks_n >= 2 * k.columns);
  return w;
}

// --- scratch, in floats -----------------------------------------------------------------------------------------------------------------
// A row of pixels of a chunk: where column 0 of dy and (for the first tap) of x would be, and the row of x that the first tap reads.
struct Row {
  int64_t x, dy, top;
};

int64_t floats_of(int64_t bytes) {
  return round_up(div_up(bytes, int64_t(sizeof(float))), 16);
}
// Every size grows with the batch extent, so that workspace planned for N pictures serves n of them.
int64_t panel_elements(const Sweep& w, const OuterKernels& k) {
  return w.pack ? min_of(kMostPixels, w.s.n * w.s.oh * w.s.ow) * round_up(k.columns, 16) : 0;
}
int64_t spread_elements(const Sweep& w) {
  return w.spread_x ? min_of(kMostPixels, w.s.n * w.s.oh * w.s.ow) * w.spread_step() : 0;
}
int64_t copy_rows(const Sweep& w) {
  return w.form == Form::patch ? w.chunk_rows : (w.chunk_rows - 1) * w.s.sh + (w.s.kh - 1) * w.s.dilh + 1;
}
int64_t copy_row_elements(const Sweep& w) {
  return w.copy_columns() * w.copy_step();
}
int64_t copy_elements(const Sweep& w, const OuterKernels& k) {
  return w.copy ? round_up(copy_rows(w) * copy_row_elements(w) + k.columns, 16) : 0;
}
int64_t rows_elements(const Sweep& w) {
  return floats_of(w.chunk_rows * int64_t(sizeof(Row)));
}
int64_t runs_elements(const Sweep& w) {
  return floats_of(w.chunk_rows * int64_t(sizeof(OuterRun)));
}
int64_t thread_elements(const Sweep& w, const OuterKernels& k) {
  return panel_elements(w, k) + spread_elements(w) + copy_elements(w, k) + rows_elements(w) + runs_elements(w);
}

struct Scratch {
  float *panel, *spread, *copy;
  Row* rows;
  OuterRun* runs;
};
Scratch scratch_of(const Sweep& w, const OuterKernels& k, float* at) {
  Scratch t;
  t.panel = at;
  t.spread = t.panel + panel_elements(w, k);
  t.copy = t.spread + spread_elements(w);
  t.rows = reinterpret_cast<Row*>(t.copy + copy_elements(w, k));
  t.runs = reinterpret_cast<OuterRun*>(t.copy + copy_elements(w, k) + rows_elements(w));
  return t;
}

// Partial sums: the first part is added up in dw itself where the order is dw's.
int64_t parts_elsewhere(const Sweep& w) {
  return w.own_layout() ? w.parts : w.parts - 1;
}
int64_t sums_elements(const Sweep& w) {
  return round_up(parts_elsewhere(w) * w.elements(), 16);
}

// --- one chunk --------------------------------------------------------------------------------------------------------------------------
// Rows [begin, end) of all rows of dy, and columns [left, right) of each.
struct Chunk {
  int64_t begin, end, left, right;
  int64_t rows() const { return end - begin; }
  int64_t columns() const { return right - left; }
};

Chunk chunk_of(const Sweep& w, int64_t i) {
  const int64_t rows = w.form == Form::direct ? w.s.n * w.s.oh : w.s.oh;
  const int64_t image = i / w.row_chunks, in_image = i % w.row_chunks;
  const int64_t begin = in_image / w.pieces * w.chunk_rows;
  const Range columns = piece(w.s.ow, w.pieces, in_image % w.pieces);
  return {image * rows + begin, image * rows + min_of(rows, begin + w.chunk_rows), columns.begin, columns.end};
}

// Copies `count` pixels of a row of x, from column `first` on, to steps of `step`; zeros outside the picture, and everywhere where `row` is
// null.
void copy_padded(const Sweep& w, const float* row, int64_t first, int64_t count, float* to, int64_t step) {
  const int64_t ic = w.s.ic, begin = row ? min_of(count, max_of(0, -first)) : count;
  const int64_t end = row ? max_of(begin, min_of(count, w.s.iw - first)) : count;
  const auto clear = [&](int64_t from, int64_t until) {
    for (int64_t p = from; p < until; ++p)
      for (int64_t i = 0; i < ic; ++i) to[p * step + i] = 0;
  };
  clear(0, begin);
  clear(end, count);
  if (begin == end) return;
  const float* from = row + (first + begin) * w.x_col;
  to += begin * step;
  if (step == ic && w.x_col == ic) {
    memcpy(to, from, size_t((end - begin) * ic) * sizeof(float));
  } else if (ic == 1) {
    for (int64_t p = 0; p < end - begin; ++p) to[p * step] = from[p * w.x_col];
  } else {
    for (int64_t p = 0; p < end - begin; ++p)
      for (int64_t i = 0; i < ic; ++i) to[p * step + i] = from[p * w.x_col + i];
  }
}

// The padded copy of x that a chunk (of one picture) reads.
void copy_chunk(const Sweep& w, const Chunk& c, const float* x, float* to) {
  const ConvShape& s = w.s;
  const int64_t image = c.begin / s.oh, top = c.begin % s.oh * s.sh - s.pad_top;
  const int64_t first = c.left * s.sw - s.pad_left, columns = (c.columns() - 1) * s.sw + s.kw;
  const auto row_of = [&](int64_t iy) { return iy < 0 || iy >= s.ih ? nullptr : x + image * w.x_image + iy * w.x_row; };
  if (w.form == Form::merged) {
    const int64_t rows = (c.rows() - 1) * s.sh + (s.kh - 1) * s.dilh + 1;
    for (int64_t r = 0; r < rows; ++r) copy_padded(w, row_of(top + r), first, columns, to + r * copy_row_elements(w), w.copy_step());
    return;
  }
  for (int64_t r = 0; r < c.rows(); ++r)
    for (int64_t ky = 0; ky < s.kh; ++ky)
      copy_padded(w, row_of(top + r * s.sh + ky * s.dilh), first, columns, to + r * copy_row_elements(w) + ky * s.ic, w.copy_step());
}

void fill_rows(const Sweep& w, const Chunk& c, Row* rows) {
  const ConvShape& s = w.s;
  int64_t image = c.begin / s.oh, oy = c.begin % s.oh;
  for (int64_t r = 0; r < c.rows(); ++r, ++oy) {
    if (oy == s.oh) ++image, oy = 0;
    const int64_t top = oy * s.sh - s.pad_top;
    rows[r].top = top;
    rows[r].dy = image * w.dy_image + oy * w.dy_row;
    if (!w.copy)
      rows[r].x = image * w.x_image + top * w.x_row - s.pad_left * w.x_col;
    else
      rows[r].x = r * (w.form == Form::merged ? s.sh : 1) * copy_row_elements(w) - c.left * w.x_step();
  }
}

// Fills `t` and `runs` with the pixels that one tap sees. Addresses of dy count from column 0 of each row of pixels, or (packed) of the
// chunk.
void fill_runs(const Sweep& w, const Chunk& c, const Row* rows, int64_t ky, int64_t kx, const float* x, const float* dy, OuterTile* t,
               OuterRun* runs) {
  const ConvShape& s = w.s;
  Range columns{c.left, c.right};
  if (w.single) {
    const int64_t ix = kx * s.dilw - s.pad_left;
    if (ix < 0 || ix >= s.iw) columns.end = columns.begin;
  } else if (w.form == Form::direct) {
    const Range valid = conv_valid(s.ow, s.iw, s.sw, s.pad_left, kx * s.dilw);
    columns = {max_of(c.left, valid.begin), max_of(max_of(c.left, valid.begin), min_of(c.right, valid.end))};
  }
  const int64_t x_at = ky * s.dilh * (w.copy ? copy_row_elements(w) : w.x_row) + kx * s.dilw * w.x_col + columns.begin * w.x_step();
  t->runs = 0, t->count = columns.size();
  if (t->count == 0) return;
  for (int64_t r = 0; r < c.rows(); ++r) {
    const int64_t iy = rows[r].top + ky * s.dilh;
    if (w.form != Form::patch && (iy < 0 || iy >= s.ih)) continue;
    const int64_t dy_at = w.pack ? (r * c.columns() + columns.begin - c.left) * t->b_step : rows[r].dy + columns.begin * w.dy_col;
    runs[t->runs++] = {x + rows[r].x + x_at, dy + dy_at};
  }
}

// Makes one run of those that follow each other in both operands: the start of a run takes as long as several pixels.
void join_runs(OuterTile* t, OuterRun* runs) {
  for (int64_t r = 1; r < t->runs; ++r)
    if (runs[r].a != runs[r - 1].a + t->count * t->a_step || runs[r].b != runs[r - 1].b + t->count * t->b_step) return;
  t->count *= t->runs, t->runs = 1;
}

// What one task adds up: ranges of `run`, of taps_y and of the group's output channels; x, dy and sum start at the group's first channels.
struct Block {
  Range m, y, n;
  const float *x, *dy;
  float* sum;
};

// Copies the block's channels of every pixel that a 1x1 sees, through the batch normalisation if there is one.
void spread_x(const Sweep& w, const Kernels& kernels, const BatchNorm* norm, const Chunk& c, const Block& b, const Scratch& t) {
  OuterTile tile{};
  fill_runs(w, c, t.rows, 0, 0, b.x, b.dy, &tile, t.runs);
  const int64_t channels = b.m.size(), step = w.spread_step();
  for (int64_t r = 0; r < tile.runs; ++r) {
    const float* from = t.runs[r].a + b.m.begin;
    float* to = t.spread + r * tile.count * step;
    if (norm)
      norm->apply(*kernels.eltwise, tile.count, b.m, from, w.x_step(), to, step);
    else
      kernels.outer->pack(tile.count, int(channels), int(channels), from, w.x_step(), to, step);
  }
}

// What the next chunk reads, if it is memory in a row: a 1x1 with all channels of its pixels. Elsewhere each pixel is used often enough for
// the time that it takes to come.
void point_ahead(const Sweep& w, const Block& b, const Chunk& next, Ahead (&ahead)[2]) {
  if (w.s.taps() > 1 || w.copy || w.single || w.s.sw > 1 || w.s.g > 1 || next.rows() > 1) return;
  const auto pixels = [&](const float* from, int64_t row, int64_t col) {
    return Ahead{from + next.begin * row + next.left * col, next.columns() * col * int64_t(sizeof(float))};
  };
  if (w.blocks_m == 1) ahead[0] = pixels(b.x, w.x_row, w.x_col);
  if (w.blocks_n == 1) ahead[1] = pixels(b.dy, w.dy_row, w.dy_col);
}

void add_chunk(const Sweep& w, const Kernels& kernels, const BatchNorm* norm, const Chunk& c, const Chunk* next, const Block& b,
               const Scratch& t, bool add) {
  const OuterKernels& k = *kernels.outer;
  const float* x = w.copy ? t.copy : b.x;
  if (w.spread_x) spread_x(w, kernels, norm, c, b, t);
  Ahead ahead[2];
  if (next) point_ahead(w, b, *next, ahead);
  Streams streams(ahead, div_up(b.m.size(), k.rows) * div_up(b.n.size(), k.columns) * c.rows() * c.columns());
  for (int64_t o = b.n.begin; o < b.n.end; o += k.columns) {
    const int n = int(min_of(k.columns, b.n.end - o));
    if (w.pack) {
      const int64_t together = w.dy_gapless ? c.rows() : 1;  // rows
      for (int64_t r = 0; r < c.rows(); r += together)
        k.pack(together * c.columns(), n, k.columns, b.dy + o + t.rows[r].dy + c.left * w.dy_col, w.dy_col,
               t.panel + r * c.columns() * k.columns, k.columns);
    }
    OuterTile tile{};
    tile.a_step = w.spread_x ? w.spread_step() : w.x_step();
    tile.b_step = w.pack ? k.columns : w.dy_col;
    tile.ldc = w.s.oc;
    const int64_t tiles = div_up(b.m.size(), tile_rows(k, n));
    for (int64_t ky = b.y.begin; ky < b.y.end; ++ky)
      for (int64_t kx = 0; kx < w.taps_x; ++kx) {
        fill_runs(w, c, t.rows, ky, kx, x, w.pack ? t.panel : b.dy + o, &tile, t.runs);
        float* sum = b.sum + (ky * w.taps_x + kx) * w.run * w.s.oc + o;
        if (tile.runs == 0) {  // a tap that meets no pixel: whole rows of zeros
          for (int64_t i = b.m.begin; i < b.m.end && !add && o == b.n.begin; ++i)
            memset(sum + i * w.s.oc, 0, size_t(b.n.size()) * sizeof(float));
          continue;
        }
        if (w.spread_x)
          for (int64_t r = 0; r < tile.runs; ++r) t.runs[r].a = t.spread + r * tile.count * w.spread_step() - b.m.begin;
        join_runs(&tile, t.runs);
        for (int64_t i = 0; i < tiles; ++i) {
          const Range m = piece(b.m.size(), tiles, i);
          tile.a_offset = b.m.begin + m.begin;
          tile.ahead = streams.next(tile.runs * tile.count);
          k.tile(tile, t.runs, int(m.size()), n, sum + (b.m.begin + m.begin) * w.s.oc, add);
        }
      }
  }
}

// The same with the roles exchanged: rows of a tile are output channels, its columns the patch. Sums are [oc][run].
void add_chunk_swapped(const Sweep& w, const OuterKernels& k, const Chunk& c, const Block& b, const Scratch& t, bool add) {
  OuterTile tile{};
  fill_runs(w, c, t.rows, 0, 0, t.copy, b.dy, &tile, t.runs);
  for (int64_t r = 0; r < tile.runs; ++r) t.runs[r] = {t.runs[r].b, t.runs[r].a};
  tile.a_step = w.dy_col;
  tile.b_step = w.x_step();
  tile.ldc = w.run;
  join_runs(&tile, t.runs);
  for (int64_t j = 0; j < w.run; j += k.columns) {
    const int n = int(min_of(k.columns, w.run - j));
    const int64_t tiles = div_up(w.s.oc, tile_rows(k, n));
    for (int64_t i = 0; i < tiles; ++i) {
      const Range m = piece(w.s.oc, tiles, i);
      tile.a_offset = m.begin;
      k.tile(tile, t.runs, int(m.size()), n, b.sum + m.begin * w.run + j, add);
    }
    for (int64_t r = 0; r < tile.runs; ++r) t.runs[r].b += k.columns;
  }
}

// Adds the parts of a patch product and puts its rows, [kx][ky][i], into dw's order.
void combine_patches(const Run& r, const Sweep& w, const float* sums, float* dw) {
  const ConvShape& s = w.s;
  const CombiningTime combining(r);
  parallel_for(r, w.run, 1.0 * double(w.parts * w.elements()), [&](int64_t row, int) {
    const int64_t i = row % s.ic, kx = row / s.ic % s.kw, ky = row / s.ic / s.kw, from = (kx * s.kh + ky) * s.ic + i;
    for (int64_t o = 0; o < s.oc; ++o) {
      float sum = 0;
      for (int64_t part = 0; part < w.parts; ++part) {
        const float* p = sums + part * w.elements();
        sum = part == 0 ? p[w.swapped ? o * w.run + from : from * s.oc + o] : sum + p[w.swapped ? o * w.run + from : from * s.oc + o];
      }
      dw[row * s.oc + o] = sum;
    }
  });
}

void run_direct(const Run& r, const Kernels& kernels, const ConvShape& shape, const Tensor& x, const BatchNorm* norm, const Tensor& dy,
                float* dw) {
  const OuterKernels& k = *kernels.outer;
  const Sweep w = sweep_of(shape, x, dy, norm, k);
  const ConvShape& s = w.s;
  float* sums = reinterpret_cast<float*>(r.workspace);
  float* scratch = sums + sums_elements(w);
  parallel_for(r, w.tasks(), 0.03 * shape.macs() + 0.3 * double(w.parts * w.elements()), [&](int64_t task, int thread) {
    const int64_t ni = task % w.blocks_n, yi = task / w.blocks_n % w.blocks_y, mi = task / (w.blocks_n * w.blocks_y) % w.blocks_m;
    const int64_t group = task / (w.blocks_n * w.blocks_y * w.blocks_m) % s.g, part = task / (w.blocks_n * w.blocks_y * w.blocks_m * s.g);
    // Blocks of output channels are cut between tiles.
    const Range tiles = piece(div_up(s.ocg(), k.columns), w.blocks_n, ni);
    Block b;
    b.m = piece(w.run, w.blocks_m, mi);
    b.y = piece(w.taps_y, w.blocks_y, yi);
    b.n = {tiles.begin * k.columns, min_of(s.ocg(), tiles.end * k.columns)};
    b.x = x.f32() + group * s.icg();
    b.dy = dy.f32() + group * s.ocg();
    const bool in_dw = part == 0 && !w.own_layout();
    b.sum = (in_dw ? dw : sums + (part - (w.parts - parts_elsewhere(w))) * w.elements()) + group * s.ocg();
    const Scratch t = scratch_of(w, k, scratch + thread * thread_elements(w, k));
    const Range chunks = piece(w.chunks, w.parts, part);
    for (int64_t i = chunks.begin; i < chunks.end; ++i) {
      const Chunk c = chunk_of(w, i);
      if (w.copy) copy_chunk(w, c, b.x, t.copy);
      fill_rows(w, c, t.rows);
      if (w.swapped) {
        add_chunk_swapped(w, k, c, b, t, i > chunks.begin);
        continue;
      }
      const Chunk next = chunk_of(w, min_of(i + 1, w.chunks - 1));
      add_chunk(w, kernels, norm, c, i + 1 < chunks.end ? &next : nullptr, b, t, i > chunks.begin);
    }
  });
  if (w.own_layout())
    combine_patches(r, w, sums, dw);
  else if (w.parts > 1)
    combine_parts(r, kernels, w.parts - 1, w.elements(), sums, dw, true);
}

// --- the op -----------------------------------------------------------------------------------------------------------------------
Status verify(const Step& step) {
  WL_CHECK(step.n_in >= 2 && step.n_in <= 6 && step.n_in != 3 && step.in[0] && step.in[1],
           "%s: conv_bwd_weights takes x, dy and a batch normalisation", step.path);
  WL_CHECK(step.n_out == 1 && step.out[0], "%s: conv_bwd_weights has one output", step.path);
  const Tensor &x = *step.in[0], &dy = *step.in[1], &dw = *step.out[0];
  WL_TRY(conv_verify(step, x, dy, &dw));
  const ConvShape s = conv_shape(step, x, dy, &dw);
  if (conv_normalises(step, ConvDirection::bwd_weights)) WL_TRY(conv_verify_norm(step, s, ConvDirection::bwd_weights, x));
  return conv_verify_weights(step, s, dw);
}

void choose_direct(const ConvShape& s, const Tensor& x, const Tensor& dy, bool normalises, const Kernels& kernels, int threads,
                   Choice* choice) {
  const OuterKernels& k = *kernels.outer;
  const Sweep w = sweep_of(s, x, dy, normalises, k);
  choice->workspace = (sums_elements(w) + threads * thread_elements(w, k)) * int64_t(sizeof(float));
  const char* forms[] = {"direct", "(kw, ic) merged", "patches"};
  const char *read = normalises ? ", x normalised" : w.spread_x ? ", x spread" : "", *packed = w.pack ? ", dy packed" : "";
  snprintf(choice->kernel, sizeof choice->kernel, "outer %dx%d", k.rows, k.columns);
  snprintf(choice->blocking, sizeof choice->blocking,
           "%s%s: %lld parts of the pixels x %lld blocks of dw, chunks of %lld x %lld pixels%s%s", forms[int(w.form)],
           w.swapped ? ", exchanged" : "", (long long)w.parts, (long long)(w.tasks() / w.parts), (long long)w.chunk_rows,
           (long long)w.piece_columns(), read, packed);
}

void choose(const Step& step, const Kernels& active, int threads, Choice* choice) {
  const Tensor &x = *step.in[0], &dy = *step.in[1], &dw = *step.out[0];
  const ConvShape s = conv_shape(step, x, dy, &dw);
  const Kernels& kernels = conv_kernels(step, active);
  const bool normalises = conv_normalises(step, ConvDirection::bwd_weights);
  const auto choose_as = [&](Algorithm a, Choice* c) {
    if (a == Algorithm::depthwise)
      depthwise_choose(s, ConvDirection::bwd_weights, normalises, kernels, threads, c);
    else if (a == Algorithm::planar)
      planar_choose(s, ConvDirection::bwd_weights, kernels, threads, c);
    else if (is_winograd(a))
      winograd_choose(s, ConvDirection::bwd_weights, a, kernels, threads, c);
    else
      choose_direct(s, x, dy, normalises, kernels, threads, c);
  };
  choice->algorithm = conv_algorithm(step, s, ConvDirection::bwd_weights, dw, kernels, choice);
  choose_as(choice->algorithm, choice);
  if (normalises) choice->workspace += conv_norm_bytes(s);
  // Left to itself, the op may decide otherwise for fewer pictures than planned: there is scratch for each algorithm.
  if (Algorithm(step.i(AttrKey::algorithm)) != Algorithm::automatic || !winograd_applies(s)) return;
  for (const Algorithm a : {Algorithm::direct, Algorithm::winograd2, Algorithm::winograd4}) {
    Choice other;
    choose_as(a, &other);
    choice->workspace = max_of(choice->workspace, other.workspace);
  }
}

void run(const Step& step, const Run& run) {
  const Tensor &x = *step.in[0], &dy = *step.in[1], &dw = *step.out[0];
  const ConvShape s = conv_shape(step, x, dy, &dw);
  const Kernels& kernels = conv_kernels(step, *run.kernels);
  const Algorithm algorithm = conv_algorithm(step, s, ConvDirection::bwd_weights, dw, kernels, nullptr);
  Run r = run;
  BatchNorm through{};
  const bool normalises = conv_normalises(step, ConvDirection::bwd_weights);
  if (normalises) through = conv_batch_norm(step, s, ConvDirection::bwd_weights, &r.workspace);
  const BatchNorm* norm = normalises ? &through : nullptr;
  if (algorithm == Algorithm::depthwise)
    depthwise_bwd_weights(r, kernels, s, x, norm, dy, dw.f32());
  else if (algorithm == Algorithm::planar)
    planar_bwd_weights(r, kernels, s, x, dy, dw.f32());
  else if (is_winograd(algorithm))
    winograd_bwd_weights(r, kernels, s, algorithm, x, dy, dw.f32());
  else
    run_direct(r, kernels, s, x, norm, dy, dw.f32());
}

}  // namespace

extern const Op op_conv_bwd_weights;
const Op op_conv_bwd_weights = {"conv_bwd_weights", verify, choose, run};

}  // namespace wl
