#include "ops/winograd.h"

#include <stdio.h>
#include <string.h>

#include "kernels/brgemm/brgemm.h"
#include "kernels/winograd/winograd.h"
#include "ops/partial_sums.h"

namespace wl {
namespace {

constexpr int64_t kPanel = 32;      // packed columns are rounded up to this on every ISA; every panel width divides it
constexpr int64_t kLongest = 16;    // rows of transformed channels are rounded up to this: the longest vector
constexpr int64_t kMaxTiles = 16;   // pixels per tile: m*m at most
constexpr int64_t kMaxPlaces = 36;  // t*t at most

// Bytes; measured, see docs/decisions/0002-winograd.md.
constexpr int64_t kTeamWeights = 3 << 20;                      // transformed weights from which the team schedule is used
constexpr int64_t kTeamSums = 1 << 20;                         // the same for the sums of backward-weights
constexpr int64_t kFusedBlock = 640 << 10;                     // transformed tiles of a block of the fused schedule
constexpr int64_t kFusedWeights = 560 << 10;                   // the same in backward-weights
constexpr int64_t kTeamLeast = 6 << 20, kTeamMost = 24 << 20;  // transformed tiles of a block of the team schedule

int size_of(Algorithm a) {
  return a == Algorithm::winograd4 ? 1 : 0;
}

// A stride between two t*t matrices that is not a multiple of a page, so that 36 streams do not meet in one cache set.
int64_t skewed(int64_t floats) {
  return round_up(floats, 16) + 16;
}

// One correlation: `in` (ih x iw x k) to `out` (oh x ow x c). Forward takes it from the shape; backward-data exchanges the pictures.
struct Correlation {
  int size;
  int64_t n, ih, iw, k, oh, ow, c, pad_top, pad_left;

  int64_t m() const { return winograd_m(size); }
  int64_t t() const { return winograd_t(size); }
  int64_t places() const { return t() * t(); }
  int64_t tiles_h() const { return div_up(oh, m()); }
  int64_t tiles_w() const { return div_up(ow, m()); }
  int64_t tiles() const { return n * tiles_h() * tiles_w(); }
  int64_t weight_place() const { return skewed(k * round_up(c, kPanel)); }  // floats between places of the transformed weights
  int64_t weight_bytes() const { return ((places() - 1) * weight_place() + k * round_up(c, kPanel)) * 4; }
  bool team() const { return weight_bytes() >= kTeamWeights; }
};

Correlation correlation(const ConvShape& s, ConvDirection direction, Algorithm algorithm) {
  const int size = size_of(algorithm);
  if (direction == ConvDirection::bwd_data) return {size, s.n, s.oh, s.ow, s.oc, s.ih, s.iw, s.ic, 2 - s.pad_top, 2 - s.pad_left};
  return {size, s.n, s.ih, s.iw, s.ic, s.oh, s.ow, s.oc, s.pad_top, s.pad_left};
}

// How tiles are blocked: a function of channels and size alone (never of n), so that sums over tiles do not depend on a thread count.
struct Blocking {
  int64_t tiles;           // per block
  int64_t v_row, v_place;  // floats between tiles and between places of the transformed input
  int64_t u_row, u_place;  // the same of the products (forward) or of the transformed dy (backward-weights)
};

Blocking fused_blocking(const Correlation& g, int64_t width) {
  const int64_t tiles = max_of(12, min_of(96, kFusedBlock / (g.places() * (g.k + width) * 4) / 12 * 12));
  const int64_t k = round_up(g.k, kLongest);
  return {tiles, k, skewed(tiles * k), width, skewed(tiles * width)};
}

// A block of the team passes all weights (or all sums) through the cache once: it should hold as many floats as they do, where it can.
int64_t team_tiles(const Correlation& g) {
  const int64_t c = round_up(g.c, kPanel), tile = g.places() * (g.k + c) * 4;
  return round_up(max_of(kTeamLeast / tile, min_of(kTeamMost / tile, g.k * c / (g.k + c))), 24);
}

Blocking team_blocking(const Correlation& g) {
  const int64_t c = round_up(g.c, kPanel), k = round_up(g.k, kLongest), tiles = min_of(team_tiles(g), 1536);
  return {tiles, k, skewed(tiles * k), c, skewed(tiles * c)};
}

struct Tile {
  int64_t image, y, x;  // first output pixel
};
Tile tile_at(const Correlation& g, int64_t index) {
  const int64_t per_image = g.tiles_h() * g.tiles_w(), rest = index % per_image;
  return {index / per_image, rest / g.tiles_w() * g.m(), rest % g.tiles_w() * g.m()};
}

// Pointers to channel `channel` of the extent x extent pixels of `picture` (h x w) from (top, left) on; `outside` stands for the pixels
// that are not there.
void pixels(const Tensor& picture, int64_t h, int64_t w, int64_t image, int64_t top, int64_t left, int64_t extent, int64_t channel,
            float* outside, float** out) {
  const int64_t row = picture.strides[1], column = picture.strides[2];
  float* first = picture.f32() + image * picture.strides[0] + top * row + left * column + channel;
  const bool whole = top >= 0 && left >= 0 && top + extent <= h && left + extent <= w;
  for (int64_t i = 0; i < extent; ++i, first += row)
    for (int64_t j = 0; j < extent; ++j)
      *out++ = whole || (top + i >= 0 && top + i < h && left + j >= 0 && left + j < w) ? first + j * column : outside;
}

struct Scratch {
  char* next;
  float* floats(int64_t count) {
    float* p = reinterpret_cast<float*>(next);
    next += round_up(count * 4, kCacheLine);
    return p;
  }
};

void transform_input(const Kernels& kernels, const Correlation& g, const Tensor& in, int64_t tile, float* zeros, const WinogradPlaces& to) {
  const Tile at = tile_at(g, tile);
  float* d[kMaxPlaces];
  pixels(in, g.ih, g.iw, at.image, at.y - g.pad_top, at.x - g.pad_left, g.t(), 0, zeros, d);
  kernels.winograd->input[g.size](d, to, g.k);
}

void transform_output(const Kernels& kernels, const Correlation& g, const Tensor& out, const ConvEpilogueOperands& epilogue, int64_t tile,
                      const float* m, int64_t place, int64_t channel, int64_t channels) {
  const Tile at = tile_at(g, tile);
  float *y[kMaxTiles], *residual[kMaxTiles];
  pixels(out, g.oh, g.ow, at.image, at.y, at.x, g.m(), channel, nullptr, y);
  if (epilogue.residual) pixels(*epilogue.residual, g.oh, g.ow, at.image, at.y, at.x, g.m(), channel, nullptr, residual);
  WinogradOutput to;
  to.y = y;
  to.bias = epilogue.bias ? epilogue.bias + channel : nullptr;
  to.residual = epilogue.residual ? residual : nullptr;
  to.activation = epilogue.activation;
  to.alpha = epilogue.alpha;
  to.beta = epilogue.beta;
  kernels.winograd->output[g.size](m, place, to, channels);
}

// One place's product: rows of v times one or more panels of the transformed weights.
void product(const BrgemmKernels& brgemm, const Correlation& g, int64_t rows, const float* const* v, int64_t v_offset, const float* packed,
             int64_t place, int64_t column, int64_t columns, float* const* m, int64_t m_offset) {
  const int64_t width = brgemm.width, panel = g.k * width;
  BrgemmArgs args;
  args.m = rows;
  args.n = columns;
  args.k = g.k;
  args.a = v;
  args.a_rows = rows;
  args.a_offset = v_offset;
  args.b = packed + place * g.weight_place() + column / width * panel;
  args.b_stride = width;
  args.b_panel = panel;
  args.out.c = m;
  args.out.c_offset = m_offset;
  brgemm.run(args);
}

void row_pointers(float* base, int64_t rows, int64_t stride, float** out) {
  for (int64_t r = 0; r < rows; ++r) out[r] = base + r * stride;
}

int64_t fused_floats(const Correlation& g, int64_t width) {
  const Blocking b = fused_blocking(g, width);
  return g.places() * (b.v_place + b.u_place) + 4 * b.tiles;
}

void correlate_fused(const Run& run, const Kernels& kernels, const Correlation& g, const Tensor& in, const float* packed, const Tensor& out,
                     const ConvEpilogueOperands& epilogue, float* zeros, char* scratch) {
  const BrgemmKernels& brgemm = *kernels.brgemm;
  const int64_t width = kPanel;
  const Blocking b = fused_blocking(g, width);
  const int64_t per_thread = round_up(fused_floats(g, width) * 4, kCacheLine);
  // Enough tasks to share out evenly, but not so small that the weights are read too often.
  const int64_t tasks = max_of(div_up(g.tiles(), b.tiles), min_of(8, g.tiles() / 12));
  parallel_for(run, tasks, 1e9, [&](int64_t task, int thread) {
    Scratch memory{scratch + thread * per_thread};
    float* v = memory.floats(g.places() * b.v_place);
    float* m = memory.floats(g.places() * b.u_place);
    float *v_rows[96], *m_rows[96];
    const Range block = piece(g.tiles(), tasks, task);
    const int64_t rows = block.size();
    row_pointers(v, rows, b.v_row, v_rows);
    row_pointers(m, rows, b.u_row, m_rows);
    for (int64_t r = 0; r < rows; ++r) transform_input(kernels, g, in, block.begin + r, zeros, {v_rows[r], b.v_place, brgemm.width});
    for (int64_t column = 0; column < g.c; column += width) {
      const int64_t columns = min_of(width, g.c - column);
      for (int64_t place = 0; place < g.places(); ++place)
        product(brgemm, g, rows, v_rows, place * b.v_place, packed, place, column, columns, m_rows, place * b.u_place);
      for (int64_t r = 0; r < rows; ++r)
        transform_output(kernels, g, out, epilogue, block.begin + r, m_rows[r], b.u_place, column, columns);
    }
  });
}

int64_t team_floats(const Correlation& g) {
  const Blocking b = team_blocking(g);
  return g.places() * (b.v_place + b.u_place) + 4 * b.tiles + 64;
}

void correlate_team(const Run& run, const Kernels& kernels, const Correlation& g, const Tensor& in, const float* packed, const Tensor& out,
                    const ConvEpilogueOperands& epilogue, float* zeros, char* scratch) {
  const BrgemmKernels& brgemm = *kernels.brgemm;
  const Blocking b = team_blocking(g);
  Scratch memory{scratch};
  float* v = memory.floats(g.places() * b.v_place);
  float* m = memory.floats(g.places() * b.u_place);
  float** v_rows = reinterpret_cast<float**>(memory.floats(2 * b.tiles));
  float** m_rows = reinterpret_cast<float**>(memory.floats(2 * b.tiles));
  row_pointers(v, b.tiles, b.v_row, v_rows);
  row_pointers(m, b.tiles, b.u_row, m_rows);
  const int64_t column_block = 4 * kPanel, column_blocks = div_up(g.c, column_block);
  for (int64_t first = 0; first < g.tiles(); first += b.tiles) {
    const int64_t rows = min_of(b.tiles, g.tiles() - first);
    parallel_for(run, rows, 1e9, [&](int64_t r, int) {
      transform_input(kernels, g, in, first + r, zeros, {v_rows[r], b.v_place, brgemm.width});
    });
    parallel_for(run, g.places() * column_blocks, 1e9, [&](int64_t task, int) {
      const int64_t place = task / column_blocks, column = task % column_blocks * column_block;
      product(brgemm, g, rows, v_rows, place * b.v_place, packed, place, column, min_of(column_block, g.c - column), m_rows,
              place * b.u_place + column);
    });
    parallel_for(run, rows, 1e9,
                 [&](int64_t r, int) { transform_output(kernels, g, out, epilogue, first + r, m_rows[r], b.u_place, 0, g.c); });
  }
}

int64_t correlate_workspace(const Correlation& g, int threads) {
  const int64_t zeros = round_up(g.k * 4, kCacheLine);
  return zeros + (g.team() ? round_up(team_floats(g) * 4, kCacheLine) : threads * round_up(fused_floats(g, kPanel) * 4, kCacheLine));
}

void correlate(const Run& run, const Kernels& kernels, const Correlation& g, const Tensor& in, const float* packed, const Tensor& out,
               const ConvEpilogueOperands& epilogue, char* scratch) {
  float* zeros = reinterpret_cast<float*>(scratch);
  memset(zeros, 0, size_t(g.k) * 4);
  (g.team() ? correlate_team : correlate_fused)(run, kernels, g, in, packed, out, epilogue, zeros, scratch + round_up(g.k * 4, kCacheLine));
}

// --- backward-weights ---------------------------------------------------------------------------------------------------------------

// Both transformed operands lie in panels, [place][panel][tile][width]. Fused: each part of the tiles has sums of its own, and a thread
// takes it in blocks that stay in its cache. Team: all threads share a large block and one set of sums.
struct WeightsBlocking {
  bool team;
  int64_t parts, tiles;               // tiles per block
  int64_t v_place, z_place, s_place;  // floats between places
};

WeightsBlocking weights_blocking(const Correlation& g) {
  const int64_t k = round_up(g.k, kPanel), c = round_up(g.c, kPanel), pair = g.places() * (k + c) * 4, sums = g.places() * g.k * c * 4;
  const bool team = sums > kTeamSums;
  const int64_t tiles = team ? team_tiles(g) : max_of(16, kFusedWeights / pair / 8 * 8);
  const int64_t parts = team ? 1 : max_of(1, min_of(16, g.tiles() / (4 * tiles)));
  return {team, parts, tiles, skewed(tiles * k), skewed(tiles * c), g.k * c};
}

// Floats of the blocks of one thread (or of the team).
int64_t weights_block_floats(const Correlation& g, const WeightsBlocking& b) {
  return g.places() * (b.v_place + b.z_place);
}

int64_t weights_floats(const Correlation& g, int threads) {
  const WeightsBlocking b = weights_blocking(g);
  return (b.team ? 1 : threads) * weights_block_floats(g, b) + b.parts * g.places() * b.s_place + max_of(g.k, g.c) + 64;
}

struct WeightsOperands {
  const Correlation& g;
  const WeightsBlocking& b;
  const Tensor &x, &dy;
  float* zeros;

  void transform(const Kernels& kernels, int64_t tile, float* v, float* z) const {
    const int64_t panel = b.tiles * kernels.brgemm->width;
    transform_input(kernels, g, x, tile, zeros, {v, b.v_place, panel});
    const Tile at = tile_at(g, tile);
    float* d[kMaxTiles];
    pixels(dy, g.oh, g.ow, at.image, at.y, at.x, g.m(), 0, zeros, d);
    kernels.winograd->output_bwd[g.size](d, {z, b.z_place, panel}, g.c);
  }

  // sums[row][column] (+)= Σ_tiles v[row] z[column] of one place, rows and columns in the ranges.
  void multiply(const BrgemmKernels& brgemm, int64_t place, Range rows, Range columns, int64_t tiles, const float* v, const float* z,
                float* sums, bool accumulate) const {
    const int64_t width = brgemm.width, panel = b.tiles * width, c = round_up(g.c, kPanel);
    for (int64_t row = rows.begin; row < rows.end; row += width) {
      const BrgemmSegment segment{v + place * b.v_place + row / width * panel, z + place * b.z_place + columns.begin / width * panel,
                                  tiles};
      float* to[kPanel];
      BrgemmTransposedArgs args;
      args.m = min_of(width, rows.end - row);
      args.n = columns.size();
      args.count = 1;
      args.segments = &segment;
      args.a_stride = width;
      args.b_stride = width;
      args.b_panel = panel;
      row_pointers(sums + place * b.s_place + row * c + columns.begin, args.m, c, to);
      args.out.c = to;
      args.out.accumulate = accumulate;
      brgemm.run_transposed(args);
    }
  }
};

}  // namespace

bool winograd_possible(const ConvShape& s) {
  return s.kh == 3 && s.kw == 3 && s.sh == 1 && s.sw == 1 && s.dilh == 1 && s.dilw == 1 && s.g == 1 && s.pad_top <= 2 && s.pad_left <= 2 &&
         s.pad_bottom <= 2 && s.pad_right <= 2;
}

double conv_direct_cost(const ConvShape& s, ConvDirection direction) {
  return s.macs() * (direction == ConvDirection::bwd_weights ? 1.2 : 1.08);
}

double winograd_cost(const ConvShape& s, ConvDirection direction, Algorithm algorithm) {
  const Correlation g = correlation(s, direction, algorithm);
  const double places = double(g.places()), tiles = double(g.tiles()), k = double(g.k), c = double(g.c);
  const double products = places * tiles * k * c, transforms = 21 * places * tiles * (k + c), weights = 22 * places * k * c;
  return (direction == ConvDirection::bwd_weights ? 1.15 : 1.0) * products + transforms + weights;
}

void winograd_choose(const ConvShape& s, ConvDirection direction, Algorithm algorithm, const Kernels& kernels, int threads,
                     Choice* choice) {
  const Correlation g = correlation(s, direction, algorithm);
  choice->algorithm = algorithm;
  snprintf(choice->kernel, sizeof choice->kernel, "F(%dx%d,3x3) on brgemm %s", int(g.m()), int(g.m()), kernels.brgemm->tile);
  if (direction == ConvDirection::bwd_weights) {
    choice->workspace = weights_floats(g, threads) * 4;
    snprintf(choice->blocking, sizeof choice->blocking, "%lld tiles, blocks of %lld", (long long)g.tiles(),
             (long long)weights_blocking(g).tiles);
    return;
  }
  choice->packed = winograd_packed_bytes(s, direction, algorithm);
  choice->workspace = correlate_workspace(g, threads);
  snprintf(choice->blocking, sizeof choice->blocking, "%s: %lld tiles, blocks of %lld", g.team() ? "team" : "fused", (long long)g.tiles(),
           (long long)(g.team() ? team_blocking(g) : fused_blocking(g, kPanel)).tiles);
}

int64_t winograd_packed_bytes(const ConvShape& s, ConvDirection direction, Algorithm algorithm) {
  return correlation(s, direction, algorithm).weight_bytes();
}

void winograd_pack(const Run& run, const Kernels& kernels, const ConvShape& s, ConvDirection direction, Algorithm algorithm, const float* w,
                   float* packed) {
  const Correlation g = correlation(s, direction, algorithm);
  const WinogradKernels& winograd = *kernels.winograd;
  const int64_t width = kernels.brgemm->width, columns = round_up(g.c, kPanel), panels = columns / width;
  const int64_t panel = g.k * width, place = g.weight_place(), tap = s.ic * s.oc;
  if (direction == ConvDirection::fwd) {
    // Row i of w holds the output channels side by side: each panel's piece is transformed in place of its copy.
    parallel_for(run, g.k, double(g.k) * double(columns) * 9, [&](int64_t i, int) {
      for (int64_t p = 0; p < panels; ++p) {
        const int64_t o = p * width, there = max_of(0, min_of(width, g.c - o));
        float* u = packed + p * panel + i * width;
        if (there > 0) winograd.weights[g.size](w + i * s.oc + o, tap, u, place, there);
        if (there < width)
          for (int64_t e = 0; e < g.places(); ++e) memset(u + e * place + there, 0, size_t(width - there) * 4);
      }
    });
    return;
  }
  // Backward-data reads w turned by half a turn and transposed: blocks are transposed first (taps reversed), then transformed.
  const int64_t rows = 16;
  parallel_for(run, panels * div_up(g.k, rows), double(g.k) * double(columns) * 12, [&](int64_t task, int) {
    float turned[9 * 16 * 32];  // [tap][o][i]
    const int64_t p = task % panels, first = task / panels * rows, count = min_of(rows, g.k - first), i0 = p * width;
    BrgemmPackArgs block;
    block.stride = s.oc;
    block.k = count;
    block.n = max_of(0, min_of(width, s.ic - i0));
    block.width = width;
    for (int64_t t = 0; t < 9; ++t) {
      block.src = w + (8 - t) * tap + i0 * s.oc + first;
      block.dst = turned + t * rows * width;
      if (block.n > 0)
        kernels.brgemm->pack_transposed(block);
      else
        memset(block.dst, 0, size_t(count * width) * 4);
    }
    for (int64_t o = 0; o < count; ++o)
      winograd.weights[g.size](turned + o * width, rows * width, packed + p * panel + (first + o) * width, place, width);
  });
}

void winograd_fwd(const Run& run, const Kernels& kernels, const ConvShape& s, Algorithm algorithm, const Tensor& x, const float* packed,
                  const Tensor& y, const ConvEpilogueOperands& epilogue, char* scratch) {
  correlate(run, kernels, correlation(s, ConvDirection::fwd, algorithm), x, packed, y, epilogue, scratch);
}

void winograd_bwd_data(const Run& run, const Kernels& kernels, const ConvShape& s, Algorithm algorithm, const Tensor& dy,
                       const float* packed, const Tensor& dx, char* scratch) {
  correlate(run, kernels, correlation(s, ConvDirection::bwd_data, algorithm), dy, packed, dx, {}, scratch);
}

void winograd_bwd_weights(const Run& run, const Kernels& kernels, const ConvShape& s, Algorithm algorithm, const Tensor& x,
                          const Tensor& dy, float* dw) {
  const Correlation g = correlation(s, ConvDirection::bwd_weights, algorithm);
  const WeightsBlocking b = weights_blocking(g);
  const BrgemmKernels& brgemm = *kernels.brgemm;
  const int64_t columns = round_up(g.c, kPanel), block_floats = weights_block_floats(g, b), sum_floats = g.places() * b.s_place;
  Scratch memory{run.workspace};
  float* sums = memory.floats(b.parts * sum_floats);
  float* zeros = memory.floats(max_of(g.k, g.c));
  float* blocks = memory.floats(0);
  memset(zeros, 0, size_t(max_of(g.k, g.c)) * 4);
  const WeightsOperands operands{g, b, x, dy, zeros};

  if (b.team) {
    float *v = blocks, *z = v + g.places() * b.v_place;
    const int64_t row_block = 2 * kPanel, row_blocks = div_up(g.k, row_block), column_block = 4 * kPanel,
                  column_blocks = div_up(g.c, column_block);
    for (int64_t first = 0; first < g.tiles(); first += b.tiles) {
      const int64_t tiles = min_of(b.tiles, g.tiles() - first);
      parallel_for(run, tiles, 1e9,
                   [&](int64_t r, int) { operands.transform(kernels, first + r, v + r * brgemm.width, z + r * brgemm.width); });
      parallel_for(run, g.places() * row_blocks * column_blocks, 1e9, [&](int64_t task, int) {
        const int64_t column = task % column_blocks * column_block, row = task / column_blocks % row_blocks * row_block;
        operands.multiply(brgemm, task / (column_blocks * row_blocks), {row, min_of(row + row_block, g.k)},
                          {column, min_of(column + column_block, g.c)}, tiles, v, z, sums, first > 0);
      });
    }
  } else {
    parallel_for(run, b.parts, 1e9, [&](int64_t part, int thread) {
      float *v = blocks + thread * block_floats, *z = v + g.places() * b.v_place;
      const Range mine = piece(g.tiles(), b.parts, part);
      for (int64_t first = mine.begin; first < mine.end; first += b.tiles) {
        const int64_t tiles = min_of(b.tiles, mine.end - first);
        for (int64_t r = 0; r < tiles; ++r) operands.transform(kernels, first + r, v + r * brgemm.width, z + r * brgemm.width);
        for (int64_t place = 0; place < g.places(); ++place)
          operands.multiply(brgemm, place, {0, g.k}, {0, g.c}, tiles, v, z, sums + part * sum_floats, first > mine.begin);
      }
    });
    if (b.parts > 1) combine_parts(run, kernels, b.parts - 1, sum_floats, sums + sum_floats, sums, true);
  }
  parallel_for(run, g.k, double(g.places() * g.k * g.c), [&](int64_t i, int) {
    kernels.winograd->weights_bwd[g.size](sums + i * columns, b.s_place, dw + i * s.oc, s.ic * s.oc, g.c);
  });
}

}  // namespace wl
