// Backward-weights: both pictures are transformed, products are summed over the tiles, and the sums transformed once at the end.
//
// Three schedules, chosen by the size of the sums and the number of tiles. By tiles: each part of the tiles has sums of its own, and a task
// takes it through all phases in pieces that stay in its cache. Where the sums are too large for that, many tiles are transformed first.
// By places: then a task adds the products of one place, for a part of the rows and columns, to the one set of sums, which pass through the
// caches once for so many tiles. By blocks, where there are few tiles: it sums a block of rows and columns over all places in its cache,
// and transforms it there, so that the sums are never written.
#include <stdio.h>
#include <string.h>

#include "ops/partial_sums.h"
#include "ops/winograd_tiles.h"

namespace wl {
namespace {

// Bytes; measured, see docs/decisions/0002-winograd.md.
constexpr int64_t kLargeSums = 1 << 20;                            // sums that stay in no core's cache
constexpr int64_t kOwnTiles = 560 << 10;                           // transformed tiles of a piece, by tiles
constexpr int64_t kLeastShared = 6 << 20, kMostShared = 24 << 20;  // transformed tiles of a block of tiles, by places

constexpr int64_t kLeastTiles = 48;                    // of a piece, by tiles: the sums pass by once for so many
constexpr int64_t kFewTiles = 128;                     // up to so many, by blocks
constexpr int64_t kBlock = 64;                         // rows, and columns, of a block
constexpr int64_t kTaskRows = 64, kTaskColumns = 128;  // of a task, by places

enum class Schedule { tiles, places, blocks };

// The sums of all rows and columns: [place][row][column], floats between rows, between places, and in all.
int64_t sum_row(const Correlation& g) {
  return round_up(g.c, kPanel);
}
int64_t sum_place(const Correlation& g) {
  return g.k * sum_row(g);
}
int64_t sum_floats(const Correlation& g) {
  return g.places() * sum_place(g);
}

Schedule schedule_of(const Correlation& g) {
  if (sum_floats(g) * 4 <= kLargeSums) return Schedule::tiles;
  return g.tiles() <= kFewTiles ? Schedule::blocks : Schedule::places;
}

// Both transformed pictures of some tiles, in panels: [place][panel][tile][width].
struct TilePair {
  int64_t v_place, z_place;  // floats between places
  static TilePair of(const Correlation& g, int64_t tiles) {
    return {skewed(tiles * round_up(g.k, kPanel)), skewed(tiles * round_up(g.c, kPanel))};
  }
  int64_t floats(const Correlation& g) const { return g.places() * (v_place + z_place); }
};

struct Products {
  const Correlation& g;
  const Kernels& kernels;
  const Tensor &x, &dy;
  float* zeros;
  int64_t panel;  // floats between panels of transformed tiles
  bool far;       // these are shared, outside a core's own caches

  void transform(const TilePair& pair, int64_t tile, float* v, float* z) const {
    transform_input(kernels, g, x, tile, {0, g.k}, zeros, {v, pair.v_place, panel, far});
    const WinogradTile at = tile_at(g, tile);
    float* d[kMaxTiles];
    tile_pixels(dy, g.oh, g.ow, at.image, at.y, at.x, g.m(), g.out_channel, zeros, d);
    kernels.winograd->output_bwd[g.size]({d, next_tile(g, dy)}, {z, pair.z_place, panel, far}, g.c);
  }

  // sums[row - rows.begin][column - columns.begin] (+)= Σ_tiles v[row] z[column]; v and z are those of one place and of the first tile.
  void add(Range rows, Range columns, int64_t tiles, const float* v, const float* z, float* sums, int64_t stride, bool accumulate) const {
    const int64_t width = kernels.brgemm->width;
    for (int64_t row = rows.begin; row < rows.end; row += width) {
      const BrgemmSegment segment{v + row / width * panel, z + columns.begin / width * panel, tiles};
      float* to[kPanel];
      BrgemmTransposedArgs args;
      args.m = min_of(width, rows.end - row);
      args.n = columns.size();
      args.count = 1;
      args.segments = &segment;
      args.a_stride = width;
      args.b_stride = width;
      args.b_panel = panel;
      row_pointers(sums + (row - rows.begin) * stride, args.m, stride, to);
      args.out.c = to;
      if (accumulate) args.out.residual = to;
      kernels.brgemm->run_transposed(args);
    }
  }
};

// dw from the sums of all rows and columns.
void transform_sums(const Run& run, const Products& products, const float* sums, float* dw) {
  const Correlation& g = products.g;
  parallel_for(run, g.k, double(g.places() * g.k * g.c), [&](int64_t i, int) {
    products.kernels.winograd->weights_bwd[g.size](sums + i * sum_row(g), sum_place(g), dw + i * g.w_row, g.w_tap, g.c);
  });
}

// --- by tiles -------------------------------------------------------------------------------------------------------------------------

struct TiledSums {
  int64_t tiles, parts;  // of a piece; of the tiles
  TilePair pair;
};

TiledSums tiled_sums(const Correlation& g) {
  const int64_t k = round_up(g.k, kPanel), c = round_up(g.c, kPanel);
  const int64_t tiles = max_of(kLeastTiles, kOwnTiles / (g.places() * (k + c) * 4) / 8 * 8);
  return {tiles, max_of(1, min_of(16, g.tiles() / (2 * tiles))), TilePair::of(g, tiles)};
}

void sum_by_tiles(const Run& run, const Products& products, float* memory, float* dw) {
  const Correlation& g = products.g;
  const TiledSums cut = tiled_sums(g);
  const int64_t width = products.kernels.brgemm->width, own = cut.pair.floats(g);
  float *sums = memory, *tiles = sums + cut.parts * sum_floats(g);
  parallel_for(run, cut.parts, 1e9, [&](int64_t part, int thread) {
    float *v = tiles + thread * own, *z = v + g.places() * cut.pair.v_place, *to = sums + part * sum_floats(g);
    const Range mine = piece(g.tiles(), cut.parts, part);
    for (int64_t first = mine.begin; first < mine.end; first += cut.tiles) {
      const int64_t count = min_of(cut.tiles, mine.end - first);
      for (int64_t r = 0; r < count; ++r) products.transform(cut.pair, first + r, v + r * width, z + r * width);
      for (int64_t place = 0; place < g.places(); ++place)
        products.add({0, g.k}, {0, g.c}, count, v + place * cut.pair.v_place, z + place * cut.pair.z_place, to + place * sum_place(g),
                     sum_row(g), first > mine.begin);
    }
  });
  if (cut.parts > 1) combine_parts(run, products.kernels, cut.parts - 1, sum_floats(g), sums + sum_floats(g), sums, true);
  transform_sums(run, products, sums, dw);
}

// --- by places and by blocks ------------------------------------------------------------------------------------------------------------

struct SharedTiles {
  int64_t tiles;  // that are transformed together, at most
  TilePair pair;
};

SharedTiles shared_tiles(const Correlation& g, Schedule schedule) {
  if (schedule == Schedule::blocks) {
    const int64_t tiles = min_of(g.tiles(), kFewTiles);
    return {tiles, TilePair::of(g, tiles)};
  }
  const int64_t c = round_up(g.c, kPanel), tile = g.places() * (g.k + c) * 4;
  // As many floats as the sums have, where that can be.
  const int64_t tiles = round_up(max_of(kLeastShared / tile, min_of(kMostShared / tile, g.k * c / (g.k + c))), 24);
  return {tiles, TilePair::of(g, tiles)};
}

void transform_tiles(const Run& run, const Products& products, const SharedTiles& cut, Range tiles, float* v, float* z) {
  const int64_t width = products.kernels.brgemm->width;
  parallel_for(run, tiles.size(), 1e9,
               [&](int64_t r, int) { products.transform(cut.pair, tiles.begin + r, v + r * width, z + r * width); });
}

void sum_by_places(const Run& run, const Products& products, float* memory, float* dw) {
  const Correlation& g = products.g;
  const SharedTiles cut = shared_tiles(g, Schedule::places);
  const int64_t row_blocks = div_up(g.k, kTaskRows), column_blocks = div_up(g.c, kTaskColumns);
  float *sums = memory, *v = sums + sum_floats(g), *z = v + g.places() * cut.pair.v_place;
  for (int64_t first = 0; first < g.tiles(); first += cut.tiles) {
    const Range tiles{first, min_of(g.tiles(), first + cut.tiles)};
    transform_tiles(run, products, cut, tiles, v, z);
    parallel_for(run, g.places() * row_blocks * column_blocks, 1e9, [&](int64_t task, int) {
      const int64_t column = task % column_blocks * kTaskColumns, row = task / column_blocks % row_blocks * kTaskRows;
      const int64_t place = task / (column_blocks * row_blocks);
      products.add({row, min_of(row + kTaskRows, g.k)}, {column, min_of(column + kTaskColumns, g.c)}, tiles.size(),
                   v + place * cut.pair.v_place, z + place * cut.pair.z_place, sums + place * sum_place(g) + row * sum_row(g) + column,
                   sum_row(g), first > 0);
    });
  }
  transform_sums(run, products, sums, dw);
}

constexpr int64_t kBlockPlace = kBlock * kBlock + 16;  // floats between places of a block, not a multiple of a page

void sum_by_blocks(const Run& run, const Products& products, float* memory, float* dw) {
  const Correlation& g = products.g;
  const SharedTiles cut = shared_tiles(g, Schedule::blocks);
  const int64_t column_blocks = div_up(g.c, kBlock);
  float *v = memory, *z = v + g.places() * cut.pair.v_place, *sums = memory + cut.pair.floats(g);
  transform_tiles(run, products, cut, {0, g.tiles()}, v, z);
  parallel_for(run, div_up(g.k, kBlock) * column_blocks, 1e9, [&](int64_t block, int thread) {
    const int64_t row = block / column_blocks * kBlock, column = block % column_blocks * kBlock;
    const Range rows{row, min_of(g.k, row + kBlock)}, columns{column, min_of(g.c, column + kBlock)};
    float* own = sums + thread * g.places() * kBlockPlace;
    for (int64_t place = 0; place < g.places(); ++place)
      products.add(rows, columns, g.tiles(), v + place * cut.pair.v_place, z + place * cut.pair.z_place, own + place * kBlockPlace, kBlock,
                   false);
    for (int64_t i = 0; i < rows.size(); ++i)
      products.kernels.winograd->weights_bwd[g.size](own + i * kBlock, kBlockPlace, dw + (row + i) * g.w_row + column, g.w_tap,
                                                     columns.size());
  });
}

// --- all ------------------------------------------------------------------------------------------------------------------------------

int64_t tiles_together(const Correlation& g, Schedule schedule) {
  return schedule == Schedule::tiles ? tiled_sums(g).tiles : shared_tiles(g, schedule).tiles;
}

int64_t schedule_floats(const Correlation& g, Schedule schedule, int threads) {
  if (schedule == Schedule::tiles) {
    const TiledSums cut = tiled_sums(g);
    return cut.parts * sum_floats(g) + threads * cut.pair.floats(g);
  }
  const int64_t tiles = shared_tiles(g, schedule).pair.floats(g);
  return tiles + (schedule == Schedule::places ? sum_floats(g) : threads * g.places() * kBlockPlace);
}

int64_t zero_floats(const Correlation& g) {
  return round_up(max_of(g.k, g.c), 16);
}

}  // namespace

void winograd_bwd_weights_choose(const ConvShape& s, Algorithm algorithm, int threads, Choice* choice) {
  const Correlation g = Correlation::of(s, ConvDirection::bwd_weights, algorithm);
  const Schedule schedule = schedule_of(g);
  int64_t floats = schedule_floats(g, schedule, threads);
  if (schedule == Schedule::places) floats = max_of(floats, schedule_floats(g, Schedule::blocks, threads));  // for a smaller batch
  choice->workspace = (zero_floats(g) + floats) * 4;
  const char* names[] = {"tiles", "places", "blocks"};
  snprintf(choice->blocking, sizeof choice->blocking, "by %s: %lld tiles, %lld together", names[int(schedule)], (long long)g.tiles(),
           (long long)tiles_together(g, schedule));
}

void winograd_bwd_weights(const Run& run, const Kernels& kernels, const ConvShape& s, Algorithm algorithm, const Tensor& x,
                          const Tensor& dy, float* dw) {
  constexpr void (*kSums[])(const Run&, const Products&, float*, float*) = {sum_by_tiles, sum_by_places, sum_by_blocks};
  const Correlation first = Correlation::of(s, ConvDirection::bwd_weights, algorithm);
  float* zeros = reinterpret_cast<float*>(run.workspace);
  memset(zeros, 0, size_t(zero_floats(first)) * 4);
  const Schedule schedule = schedule_of(first);
  const bool far = schedule != Schedule::tiles && shared_tiles(first, schedule).pair.floats(first) * 4 > kNearBytes;
  for (int64_t group = 0; group < s.g; ++group) {
    const Correlation g = Correlation::of(s, ConvDirection::bwd_weights, algorithm, group);
    const Products products{g, kernels, x, dy, zeros, tiles_together(g, schedule) * kernels.brgemm->width, far};
    kSums[int(schedule)](run, products, zeros + zero_floats(g), dw + g.w_first);
  }
}

}  // namespace wl
