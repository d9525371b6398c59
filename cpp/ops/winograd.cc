// Forward, backward-data and the weights of both.
#include <stdio.h>
#include <string.h>

#include "ops/winograd_tiles.h"

namespace wl {
namespace {

// Bytes; measured, see docs/decisions/0002-winograd.md.
constexpr int64_t kLargeWeights = 16 << 20;  // transformed weights that stay in no cache
constexpr int64_t kTiledBlock = 512 << 10;   // transformed tiles of a task of the tiled schedule
constexpr int64_t kColumnSums = 1 << 20;     // products of a task of the column schedule
constexpr int64_t kColumnInput = 16 << 20;   // transformed tiles that its tasks share

constexpr int64_t kTerms = kBrgemmFlush;              // of the sum, whose weights are transformed at a time: a cut there changes no bit
constexpr int64_t kLeastRows = 28, kMostRows = 1024;  // tiles of a task
constexpr int64_t kTasks = 8;
constexpr int64_t kTransformRows = 16;  // of the weights
constexpr int64_t kLeastChannels = 32;

int64_t weight_place(const Correlation& g) {  // floats between places of packed weights
  return skewed(g.k * round_up(g.c, kPanel));
}
int64_t packed_floats(const Correlation& g) {
  return (g.places() - 1) * weight_place(g) + g.k * round_up(g.c, kPanel);
}
bool by_columns(const Correlation& g) {
  return packed_floats(g) * 4 >= kLargeWeights;
}

// --- weights ------------------------------------------------------------------------------------------------------------------------

// Row p of place e and panel q goes to u[e*place + q*panel + p*width].
struct WeightPanels {
  float* u;
  int64_t place, panel;
};

// Row by row: k is the row of a tap's matrix, its columns lie side by side.
void transform_rows(const Kernels& kernels, const Correlation& g, const float* w, Range rows, int64_t column, const WeightPanels& to) {
  const int64_t width = kernels.brgemm->width;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const float* from = w + row * g.w_row + column;
    for (int64_t t = 0; t < 9; ++t)  // the row after next is on its way meanwhile
      for (int64_t byte = 0; byte < kPanel * 4; byte += kCacheLine)
        __builtin_prefetch(reinterpret_cast<const char*>(from + t * g.w_tap + 2 * g.w_row) + byte);
    for (int64_t offset = 0; offset < kPanel; offset += width) {
      const int64_t there = max_of(0, min_of(width, g.c - column - offset));
      float* u = to.u + offset / width * to.panel + (row - rows.begin) * width;
      if (there > 0) kernels.winograd->weights[g.size](from + offset, g.w_tap, u, to.place, there);
      if (there < width)
        for (int64_t e = 0; e < g.places(); ++e) memset(u + e * to.place + there, 0, size_t(width - there) * 4);
    }
  }
}

// Blocks of each tap's matrix are transposed first, the taps taken in reverse.
void transform_turned(const Kernels& kernels, const Correlation& g, const float* w, Range rows, int64_t column, const WeightPanels& to) {
  const int64_t width = kernels.brgemm->width;
  float turned[9 * kTransformRows * kPanel];  // [tap][row][column]
  for (int64_t row = rows.begin; row < rows.end; row += kTransformRows) {
    const int64_t count = min_of(kTransformRows, rows.end - row);
    for (int64_t offset = 0; offset < kPanel; offset += width) {
      BrgemmPackArgs block;
      block.stride = g.w_row;
      block.k = count;
      block.n = max_of(0, min_of(width, g.c - column - offset));
      block.width = width;
      for (int64_t t = 0; t < 9; ++t) {
        block.src = w + (8 - t) * g.w_tap + (column + offset) * g.w_row + row;
        block.dst = turned + t * kTransformRows * width;
        for (int64_t j = 0; j < block.n; ++j) __builtin_prefetch(block.src + j * g.w_row + kTransformRows);
        if (block.n > 0)
          kernels.brgemm->pack_transposed(block);
        else
          memset(block.dst, 0, size_t(count * width) * 4);
      }
      float* u = to.u + offset / width * to.panel + (row - rows.begin) * width;
      for (int64_t r = 0; r < count; ++r)
        kernels.winograd->weights[g.size](turned + r * width, kTransformRows * width, u + r * width, to.place, width);
    }
  }
}

// The transformed weights (canonical `w`) of `rows` of the sum and of kPanel columns from `column` on, zeros past the last.
void transform_weights(const Kernels& kernels, const Correlation& g, const float* w, Range rows, int64_t column, const WeightPanels& to) {
  (g.turned ? transform_turned : transform_rows)(kernels, g, w + g.w_first, rows, column, to);
}

// --- products and outputs -----------------------------------------------------------------------------------------------------------

void transform_output(const Kernels& kernels, const Correlation& g, const Tensor& out, const ConvEpilogueOperands& epilogue, int64_t tile,
                      const float* m, int64_t place, int64_t channel, int64_t channels) {
  const WinogradTile at = tile_at(g, tile);
  channel += g.out_channel;
  float *y[kMaxTiles], *residual[kMaxTiles];
  tile_pixels(out, g.oh, g.ow, at.image, at.y, at.x, g.m(), channel, nullptr, y);
  if (epilogue.residual) tile_pixels(*epilogue.residual, g.oh, g.ow, at.image, at.y, at.x, g.m(), channel, nullptr, residual);
  WinogradOutput to;
  to.y = y;
  to.next = next_tile(g, out);
  to.bias = epilogue.bias ? epilogue.bias + channel : nullptr;
  to.residual = epilogue.residual ? residual : nullptr;
  to.activation = epilogue.activation;
  to.alpha = epilogue.alpha;
  to.beta = epilogue.beta;
  kernels.winograd->output[g.size](m, place, to, channels);
}

// A task's share of the tiles: whole rows of tiles where these are short enough, so that it writes pixels that follow each other.
struct Share {
  int64_t unit, tasks;  // tiles that stay together; tasks among which such units are dealt out
  int64_t most;         // tiles of a task; grows with the batch extent, as memory must
  Range tiles(const Correlation& g, int64_t task) const {
    const Range units = piece(g.tiles() / unit, tasks, task);
    return {units.begin * unit, units.end * unit};
  }
  bool in_rows(const Correlation& g) const { return unit == g.tiles_w(); }
};

// About `tiles` each, at least `least` tasks if that leaves each a dozen.
Share share_of(const Correlation& g, int64_t tiles, int64_t least) {
  const int64_t unit = g.tiles_w() <= kMostRows / 2 && g.tiles_w() <= 2 * tiles ? g.tiles_w() : 1;
  const int64_t units = g.tiles() / unit, most = min_of(units, max_of(1, (tiles + unit / 2) / unit));
  return {unit, max_of(div_up(units, most), min_of(units, min_of(least, g.tiles() / 12))), most * unit};
}

// Pixels of all pictures of `out` that whole rows of tiles cover.
Range pixels_of(const Correlation& g, Range tiles) {
  const auto first = [&](int64_t tile) {
    const int64_t row = tile / g.tiles_w(), in_image = row % g.tiles_h();
    return (row / g.tiles_h() * g.oh + in_image * g.m()) * g.ow;
  };
  return {first(tiles.begin), first(tiles.end)};
}

// What is gathered of the columns of a task's tiles, which are whole rows.
void gather(const Correlation& g, const ConvEpilogueOperands& epilogue, int64_t task, Range tiles, Range columns) {
  if (!epilogue.gathering) return;
  epilogue.gathering->add(task, pixels_of(g, tiles), {g.out_channel + columns.begin, g.out_channel + columns.end});
}

// --- by tiles -----------------------------------------------------------------------------------------------------------------------
// A task takes a few tiles through all phases in its cache, and packed weights pass by.

struct TiledCut {
  Share share;
  int64_t groups;  // of column panels, where there are too few tiles for all threads: each transforms its tiles again
  int64_t v_row, v_place, m_place;
};

TiledCut tiled_cut(const Correlation& g) {
  const int64_t wanted = max_of(kLeastRows, min_of(96, kTiledBlock / (g.places() * (g.k + kPanel) * 4)));
  const Share share = share_of(g, wanted, kTasks);
  const int64_t k = round_up(g.k, 16);  // the longest vector
  const int64_t groups = share.tasks >= kTasks / 2 ? 1 : min_of(div_up(g.c, kPanel), div_up(kTasks, share.tasks));
  return {share, groups, k, skewed(share.most * k), skewed(share.most * kPanel)};
}

int64_t tiled_floats(const Correlation& g) {
  const TiledCut cut = tiled_cut(g);
  return g.places() * (cut.v_place + cut.m_place);
}

void correlate_tiled(const Run& run, const Kernels& kernels, const Correlation& g, const Tensor& in, const float* packed, const Tensor& out,
                     const ConvEpilogueOperands& epilogue, float* zeros, char* scratch) {
  const BrgemmKernels& brgemm = *kernels.brgemm;
  const TiledCut cut = tiled_cut(g);
  const int64_t per_thread = round_up(tiled_floats(g) * 4, kCacheLine), panel = g.k * brgemm.width;
  parallel_for(run, cut.share.tasks * cut.groups, 1e9, [&](int64_t task, int thread) {
    FloatMemory memory{scratch + thread * per_thread};
    float *v = memory.take(g.places() * cut.v_place), *m = memory.take(g.places() * cut.m_place);
    float *v_rows[kMostRows], *m_rows[kMostRows];
    const int64_t block = task / cut.groups;
    const Range tiles = cut.share.tiles(g, block), panels = piece(div_up(g.c, kPanel), cut.groups, task % cut.groups);
    const Range columns{panels.begin * kPanel, min_of(g.c, panels.end * kPanel)};
    row_pointers(v, tiles.size(), cut.v_row, v_rows);
    row_pointers(m, tiles.size(), kPanel, m_rows);
    for (int64_t r = 0; r < tiles.size(); ++r)
      transform_input(kernels, g, in, tiles.begin + r, {0, g.k}, zeros, {v_rows[r], cut.v_place, brgemm.width, false});
    for (int64_t column = columns.begin; column < columns.end; column += kPanel) {
      BrgemmArgs product;
      product.m = product.a_rows = tiles.size();
      product.n = min_of(kPanel, g.c - column);
      product.k = g.k;
      product.a = v_rows;
      product.b_stride = brgemm.width;
      product.b_panel = panel;
      product.out.c = m_rows;
      for (int64_t place = 0; place < g.places(); ++place) {
        product.a_offset = place * cut.v_place;
        product.b = packed + place * weight_place(g) + column / brgemm.width * panel;
        product.out.c_offset = place * cut.m_place;
        brgemm.run(product);
      }
      for (int64_t r = 0; r < tiles.size(); ++r)
        transform_output(kernels, g, out, epilogue, tiles.begin + r, m_rows[r], cut.m_place, column, product.n);
    }
    gather(g, epilogue, block, tiles, columns);
  });
}

// --- by columns ---------------------------------------------------------------------------------------------------------------------
// Tiles are transformed first; a task takes a panel of columns through the phases that are left, its weights transformed where they are
// used and never written to memory.

struct ColumnCut {
  Share share;
  int64_t together;  // tasks along the tiles whose input is transformed together
  int64_t chunks;    // of the sum
  int64_t v_place, v_chunk, m_place, u_place;
};

ColumnCut column_cut(const Correlation& g) {
  const Share share = share_of(g, min_of(kMostRows / 2, kColumnSums / (g.places() * kPanel * 4) / 12 * 12), 1);
  const int64_t together = max_of(1, min_of(share.tasks, kColumnInput / (g.places() * g.k * 4) / share.most));
  const int64_t v_place = skewed(together * share.most * kTerms);
  return {share, together, div_up(g.k, kTerms), v_place, g.places() * v_place, skewed(share.most * kPanel), skewed(kTerms * kPanel)};
}

int64_t column_input_floats(const ColumnCut& cut) {
  return cut.chunks * cut.v_chunk;
}
int64_t column_task_floats(const Correlation& g, const ColumnCut& cut) {
  return g.places() * (cut.m_place + cut.u_place);
}

void correlate_columns(const Run& run, const Kernels& kernels, const Correlation& g, const Tensor& in, const float* w, const Tensor& out,
                       const ConvEpilogueOperands& epilogue, float* zeros, char* scratch) {
  const BrgemmKernels& brgemm = *kernels.brgemm;
  const ColumnCut cut = column_cut(g);
  const int64_t per_thread = round_up(column_task_floats(g, cut) * 4, kCacheLine), panels = div_up(g.c, kPanel);
  FloatMemory shared{scratch};
  float* v = shared.take(column_input_floats(cut));
  const auto terms = [&](int64_t chunk) { return Range{chunk * kTerms, min_of(g.k, (chunk + 1) * kTerms)}; };
  for (int64_t first = 0; first < cut.share.tasks; first += cut.together) {
    const int64_t blocks = min_of(cut.together, cut.share.tasks - first);
    const int64_t begin = cut.share.tiles(g, first).begin, end = cut.share.tiles(g, first + blocks - 1).end;
    parallel_for(run, end - begin, 1e9, [&](int64_t r, int) {
      for (int64_t chunk = 0; chunk < cut.chunks; ++chunk)
        transform_input(kernels, g, in, begin + r, terms(chunk), zeros,
                        {v + chunk * cut.v_chunk + r * kTerms, cut.v_place, brgemm.width, true});
    });
    parallel_for(run, blocks * panels, 1e9, [&](int64_t task, int thread) {
      FloatMemory memory{shared.next + thread * per_thread};
      float *m = memory.take(g.places() * cut.m_place), *u = memory.take(g.places() * cut.u_place);
      float *v_rows[kMostRows], *m_rows[kMostRows];
      const int64_t column = task % panels * kPanel, block = first + task / panels;
      const Range tiles = cut.share.tiles(g, block);
      row_pointers(v + (tiles.begin - begin) * kTerms, tiles.size(), kTerms, v_rows);
      row_pointers(m, tiles.size(), kPanel, m_rows);
      BrgemmArgs product;
      product.m = product.a_rows = tiles.size();
      product.n = min_of(kPanel, g.c - column);
      product.a = v_rows;
      product.b_stride = brgemm.width;
      product.b_panel = kTerms * brgemm.width;
      product.out.c = m_rows;
      for (int64_t chunk = 0; chunk < cut.chunks; ++chunk) {
        transform_weights(kernels, g, w, terms(chunk), column, {u, cut.u_place, product.b_panel});
        product.k = terms(chunk).size();
        if (chunk > 0) product.out.residual = m_rows;
        for (int64_t place = 0; place < g.places(); ++place) {
          product.a_offset = chunk * cut.v_chunk + place * cut.v_place;
          product.b = u + place * cut.u_place;
          product.out.c_offset = place * cut.m_place;
          product.ahead[0] = {v_rows[0] + product.a_offset + cut.v_place, product.m * kTerms * 4};
          brgemm.run(product);
        }
      }
      for (int64_t r = 0; r < tiles.size(); ++r)
        transform_output(kernels, g, out, epilogue, tiles.begin + r, m_rows[r], cut.m_place, column, product.n);
      gather(g, epilogue, block, tiles, {column, column + product.n});
    });
  }
}

// --- both ---------------------------------------------------------------------------------------------------------------------------

int64_t correlate_workspace(const Correlation& g, int threads) {
  const int64_t zeros = round_up(g.k * 4, kCacheLine);
  if (!by_columns(g)) return zeros + threads * round_up(tiled_floats(g) * 4, kCacheLine);
  const ColumnCut cut = column_cut(g);
  return zeros + round_up(column_input_floats(cut) * 4, kCacheLine) + threads * round_up(column_task_floats(g, cut) * 4, kCacheLine);
}

// `w`: packed weights of all groups if the algorithm has such, else the canonical ones.
void correlate(const Run& run, const Kernels& kernels, const ConvShape& s, ConvDirection direction, Algorithm algorithm, const Tensor& in,
               const float* w, const Tensor& out, const ConvEpilogueOperands& epilogue, char* scratch) {
  const int64_t zero_bytes = Correlation::of(s, direction, algorithm).k * 4;
  float* zeros = reinterpret_cast<float*>(scratch);
  memset(zeros, 0, size_t(zero_bytes));
  char* rest = scratch + round_up(zero_bytes, kCacheLine);
  for (int64_t group = 0; group < s.g; ++group) {
    const Correlation g = Correlation::of(s, direction, algorithm, group);
    if (by_columns(g))
      correlate_columns(run, kernels, g, in, w, out, epilogue, zeros, rest);
    else
      correlate_tiled(run, kernels, g, in, w + group * packed_floats(g), out, epilogue, zeros, rest);
  }
}

}  // namespace

bool winograd_possible(const ConvShape& s) {
  return s.kh == 3 && s.kw == 3 && s.sh == 1 && s.sw == 1 && s.dilh == 1 && s.dilw == 1 && s.pad_top <= 2 && s.pad_left <= 2 &&
         s.pad_bottom <= 2 && s.pad_right <= 2;
}

bool winograd_applies(const ConvShape& s) {
  return winograd_possible(s) && min_of(s.icg(), s.ocg()) >= kLeastChannels;
}

double conv_direct_cost(const ConvShape& s, ConvDirection direction) {
  return s.macs() * (direction == ConvDirection::bwd_weights ? 1.2 : 1.08);
}

double winograd_cost(const ConvShape& s, ConvDirection direction, Algorithm algorithm) {
  const Correlation g = Correlation::of(s, direction, algorithm);
  const double places = double(g.places()), tiles = double(g.tiles()), k = double(g.k), c = double(g.c);
  const double products = places * tiles * k * c, transforms = 21 * places * tiles * (k + c), weights = 22 * places * k * c;
  return double(s.g) * ((direction == ConvDirection::bwd_weights ? 1.15 : 1.0) * products + transforms + weights);
}

void winograd_choose(const ConvShape& s, ConvDirection direction, Algorithm algorithm, const Kernels& kernels, int threads,
                     Choice* choice) {
  const Correlation g = Correlation::of(s, direction, algorithm);
  choice->algorithm = algorithm;
  snprintf(choice->kernel, sizeof choice->kernel, "F(%dx%d,3x3) on brgemm %s", int(g.m()), int(g.m()), kernels.brgemm->tile);
  if (direction == ConvDirection::bwd_weights) return winograd_bwd_weights_choose(s, algorithm, threads, choice);
  choice->packed = winograd_packed_bytes(s, direction, algorithm);
  choice->workspace = correlate_workspace(g, threads);
  snprintf(choice->blocking, sizeof choice->blocking, "%s: %lld tiles, blocks of %lld", by_columns(g) ? "by columns" : "by tiles",
           (long long)g.tiles(), (long long)(by_columns(g) ? column_cut(g).share : tiled_cut(g).share).most);
}

int64_t winograd_parts(const ConvShape& s, ConvDirection direction, Algorithm algorithm) {
  const Correlation g = Correlation::of(s, direction, algorithm);
  const Share share = by_columns(g) ? column_cut(g).share : tiled_cut(g).share;
  return share.in_rows(g) ? share.tasks : 0;
}

int64_t winograd_packed_bytes(const ConvShape& s, ConvDirection direction, Algorithm algorithm) {
  const Correlation g = Correlation::of(s, direction, algorithm);
  return by_columns(g) ? 0 : s.g * packed_floats(g) * 4;
}

void winograd_pack(const Run& run, const Kernels& kernels, const ConvShape& s, ConvDirection direction, Algorithm algorithm, const float* w,
                   float* packed) {
  const Correlation first = Correlation::of(s, direction, algorithm);
  const int64_t width = kernels.brgemm->width, panels = div_up(first.c, kPanel), tasks = panels * div_up(first.k, kTransformRows);
  parallel_for(run, s.g * tasks, double(s.g * first.k * panels * kPanel) * 10, [&](int64_t task, int) {
    const int64_t group = task / tasks, column = task % panels * kPanel, row = task % tasks / panels * kTransformRows;
    const Correlation g = Correlation::of(s, direction, algorithm, group);
    transform_weights(kernels, g, w, {row, min_of(g.k, row + kTransformRows)}, column,
                      {packed + group * packed_floats(g) + column * g.k + row * width, weight_place(g), g.k * width});
  });
}

void winograd_fwd(const Run& run, const Kernels& kernels, const ConvShape& s, Algorithm algorithm, const Tensor& x, const float* w,
                  const Tensor& y, const ConvEpilogueOperands& epilogue, char* scratch) {
  correlate(run, kernels, s, ConvDirection::fwd, algorithm, x, w, y, epilogue, scratch);
}

void winograd_bwd_data(const Run& run, const Kernels& kernels, const ConvShape& s, Algorithm algorithm, const Tensor& dy, const float* w,
                       const Tensor& dx, const ConvEpilogueOperands& epilogue, char* scratch) {
  correlate(run, kernels, s, ConvDirection::bwd_data, algorithm, dy, w, dx, epilogue, scratch);
}

}  // namespace wl
