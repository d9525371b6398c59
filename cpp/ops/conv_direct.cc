#include "ops/conv_direct.h"

#include <stdio.h>
#include <string.h>

#include "kernels/brgemm/brgemm.h"
#include "ops/window.h"

namespace wl {

namespace {

constexpr int64_t kRowsBelow = 64;              // channels below which k runs over kx too: a run of one tap would be too short
constexpr int64_t kInterleaveUpTo = 4;          // channels up to which it runs over ky too
constexpr int64_t kWeightsInCache = 512 << 10;  // bytes of weights per group that stay in the second cache level between tiles
constexpr int64_t kChunkBytes = 384 << 10;      // input and output of a chunk of pixels, to stay in the second cache level
constexpr int64_t kTableBytes = 64 << 10;       // row pointers of a chunk
constexpr int64_t kLeastPixels = 72;            // smallest chunk worth a task
constexpr int64_t kTilesTogether = 4;           // rows of tiles between which the next ones are fetched from memory
constexpr int64_t kCrowded = 1024;              // floats between pixels: multiples of it fall into one set of the first cache level
constexpr int kWays = 8;                        // of that level: so many pixels of a tile have room
constexpr int64_t kLeastUses = 2;               // panels of a task that read a pixel, from which it is worth copying
constexpr int64_t kNormalisedUses = 4;          // those of a task that normalises, at least: each does it again
constexpr double kNanosecondsPerMac = 0.02, kNanosecondsPerPixel = 4;

// How many kernel positions belong to phases before that of `residue` (of k*dilation modulo the stride).
int64_t taps_before(int64_t kernel, int64_t dilation, int64_t stride, int64_t residue) {
  int64_t count = 0;
  for (int64_t k = 0; k < kernel; ++k) count += k * dilation % stride < residue;
  return count;
}

ConvAxis forward_axis(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) {
  return {in, out, stride, -pad, dilation, kernel, 0, 1, 0};
}

// The phase of input positions i = phase + q*stride reads, in the output, positions q + begin + t*gap with the taps in falling order.
ConvAxis backward_axis(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation, int64_t phase) {
  const WindowTaps taps = window_taps(phase, kernel, stride, dilation, pad);
  ConvAxis a;
  a.in = out, a.out = phase < in ? (in - phase - 1) / stride + 1 : 0;
  a.step = 1, a.begin = taps.count ? taps.o_last() : 0, a.gap = taps.o_step, a.taps = taps.count;
  a.out_begin = phase, a.out_step = stride, a.taps_before = taps_before(kernel, dilation, stride, (phase + pad) % stride);
  return a;
}

}  // namespace

ConvAxis ConvView::rows(int64_t phase) const {
  const ConvShape& s = shape;
  return forward() ? forward_axis(s.ih, s.oh, s.kh, s.sh, s.pad_top, s.dilh)
                   : backward_axis(s.ih, s.oh, s.kh, s.sh, s.pad_top, s.dilh, phase);
}

ConvAxis ConvView::cols(int64_t phase) const {
  const ConvShape& s = shape;
  return forward() ? forward_axis(s.iw, s.ow, s.kw, s.sw, s.pad_left, s.dilw)
                   : backward_axis(s.iw, s.ow, s.kw, s.sw, s.pad_left, s.dilw, phase);
}

ConvForm ConvView::form() const {
  const int64_t gap = forward() ? shape.dilw : shape.dilw / gcd(shape.sw, shape.dilw);
  const auto most_taps = [&](int64_t kernel, int64_t stride, int64_t dilation) {  // of a phase
    return forward() ? kernel : div_up(kernel, stride / gcd(stride, dilation));
  };
  const bool single = most_taps(shape.kh, shape.sh, shape.dilh) == 1 && most_taps(shape.kw, shape.sw, shape.dilw) == 1;
  if (gap != 1 || single || k() >= kRowsBelow) return ConvForm::pixels;
  if (k() <= kInterleaveUpTo) return ConvForm::interleaved;
  return shape.kw > 1 ? ConvForm::rows : ConvForm::pixels;
}

int64_t ConvView::tap_place(int64_t ky, int64_t kx) const {
  const bool columns_first = form() == ConvForm::interleaved;
  if (forward()) return columns_first ? kx * shape.kh + ky : ky * shape.kw + kx;
  const int64_t residue_y = ky * shape.dilh % shape.sh, residue_x = kx * shape.dilw % shape.sw;
  const WindowTaps y = window_taps(residue_y, shape.kh, shape.sh, shape.dilh, 0),
                   x = window_taps(residue_x, shape.kw, shape.sw, shape.dilw, 0);
  const int64_t ty = (y.k_last() - ky) / y.k_step, tx = (x.k_last() - kx) / x.k_step;
  const int64_t before =
      taps_before(shape.kh, shape.dilh, shape.sh, residue_y) * shape.kw + y.count * taps_before(shape.kw, shape.dilw, shape.sw, residue_x);
  return before + (columns_first ? tx * y.count + ty : ty * x.count + tx);
}

namespace {

// --- how the work is cut: by shape alone ---------------------------------------------------------------------------------------------

// Tasks are (phase, group, chunk of pixels, block of panels). Output rows are numbered through all pictures; form `pixels` cuts the pixels
// of all rows in chunks that may begin and end inside a row, the other forms cut whole rows, or blocks of columns where rows are long.
struct Cut {
  ConvForm form;
  int64_t width, panels, panel;    // columns of a packed panel, panels per group, floats per panel
  bool panels_inside;              // all panels of a tile before the next tile; else all tiles of a chunk before the next panel
  bool spread;                     // pixels: a 1x1 reads a copy, normalised or for a better distance between its pixels
  int64_t row_chunks, col_blocks;  // pixels: row_chunks counts chunks of pixels
  int64_t panel_blocks;
  int64_t phases, tasks;
  // Per thread, at most: pixels of a chunk, row pointers, floats of copied rows. Bounds that grow with n, so that scratch for the planned
  // batch is enough for smaller ones.
  int64_t pixels, table, copied;
  int64_t bytes;
};

struct Phase {
  ConvAxis y, x;
};

// The input rows that `rows` output rows of one picture read, and the floats of a copied row for `cols` output columns.
int64_t rows_read(const ConvAxis& y, int64_t rows) {
  return y.taps == 0 ? 0 : (rows - 1) * y.step + (y.taps - 1) * y.gap + 1;
}
int64_t cols_read(const ConvAxis& x, int64_t cols) {
  return x.taps == 0 ? 0 : (cols - 1) * x.step + x.taps;
}

// Floats of scratch for copied rows, at most, for a chunk of `rows` output rows by `cols` columns (rows may span pictures).
int64_t copied_floats(ConvForm form, const ConvAxis& y, const ConvAxis& x, int64_t k, int64_t rows, int64_t cols) {
  if (form == ConvForm::pixels) return 0;
  if (form == ConvForm::interleaved) return rows * cols_read(x, cols) * y.taps * k;
  const int64_t pictures = rows < 2 ? 1 : min_of(rows, (rows - 2) / y.out + 2);  // touched, at most
  const int64_t together = rows_read(y, rows), apart = (rows - pictures) * y.step + pictures * rows_read(y, 1);
  return max_of(together, apart) * cols_read(x, cols) * k;
}

// Floats between the pixels of that copy: an odd number of cache lines.
int64_t spread_step(int64_t k) {
  return (div_up(k, 16) | 1) * 16;
}

Cut cut_work(const ConvView& view, bool normalises, const BrgemmKernels& brgemm) {
  const ConvShape& s = view.shape;
  Cut c;
  c.form = view.form();
  const int64_t columns = view.columns(), k = view.k();
  c.width = brgemm.panel_width(columns);
  c.panels = div_up(columns, c.width);
  c.panel = s.taps() * k * c.width;
  c.phases = view.phases_h() * view.phases_w();
  // The largest phase stands for all.
  ConvAxis y = view.rows(0), x = view.cols(0);
  for (int64_t p = 1; p < view.phases_h(); ++p) {
    const ConvAxis other = view.rows(p);
    if (other.taps > y.taps) y.taps = other.taps;
  }
  for (int64_t p = 1; p < view.phases_w(); ++p) {
    const ConvAxis other = view.cols(p);
    if (other.taps > x.taps) x.taps = other.taps;
  }
  const int64_t rows = s.n * y.out, cols = x.out;
  const int64_t weights = y.taps * x.taps * k * columns * 4;
  c.panels_inside = weights <= kWeightsInCache;
  const int64_t per_pixel = 4 * (k * min_of(y.step, y.taps + 1) * min_of(x.step, x.taps + 1) + (c.panels_inside ? columns : c.width));
  const int64_t taps = c.form == ConvForm::pixels ? y.taps * x.taps : c.form == ConvForm::rows ? y.taps : 1;
  const int64_t room = min_of(kChunkBytes / per_pixel, kTableBytes / (8 * max_of(taps, 1)));
  const int64_t most = max_of(kLeastPixels, min_of(room, div_up(rows * cols * c.phases * s.g, kEnoughTasks)));
  c.col_blocks = 1, c.copied = 0;
  if (c.form == ConvForm::pixels) {
    c.row_chunks = div_up(rows * cols, most);
    c.pixels = min_of(rows * cols, max_of(most, min_of(room, 2 * kLeastPixels)));  // of any batch that is no larger
    if (most == kLeastPixels && c.row_chunks < kEnoughTasks) c.row_chunks = few_parts(c.row_chunks, div_up(rows * cols, c.pixels));
  } else {
    const auto fits = [&](int64_t r, int64_t w) { return copied_floats(c.form, y, x, k, r, w) * 4 <= kChunkBytes; };
    int64_t most_cols = cols;
    while (most_cols > kLeastPixels && !(fits(1, most_cols) && most_cols * taps * 8 <= 4 * kTableBytes)) most_cols = div_up(most_cols, 2);
    int64_t low = 1, high = min_of(rows, max_of(most / most_cols, 1));  // the most rows that fit
    while (low < high) {
      const int64_t middle = div_up(low + high, 2);
      if (fits(middle, most_cols))
        low = middle;
      else
        high = middle - 1;
    }
    c.row_chunks = div_up(rows, low);
    c.col_blocks = div_up(cols, most_cols);
    c.pixels = low * most_cols;
    c.copied = copied_floats(c.form, y, x, k, low, most_cols);
    if (c.phases > 1 && y.out > 1) {  // phases whose pictures are a row lower touch more pictures
      ConvAxis lower = y;
      lower.out = y.out - 1;
      c.copied = max_of(c.copied, copied_floats(c.form, lower, x, k, min_of(low, s.n * lower.out), most_cols));
    }
  }
  c.table = taps * c.pixels + (c.form == ConvForm::interleaved ? y.taps : 0);
  const int64_t chunks = c.row_chunks * c.col_blocks * s.g * c.phases;
  c.panel_blocks = min_of(c.panels, max_of(1, div_up(kEnoughTasks, chunks)));
  if (normalises) c.panel_blocks = min_of(c.panel_blocks, div_up(c.panels, kNormalisedUses));
  c.tasks = chunks * c.panel_blocks;
  const bool crowded = brgemm.rows > kWays && c.form == ConvForm::pixels && taps == 1 && k * s.g * x.step % kCrowded == 0;
  c.spread = normalises || (crowded && c.panels >= kLeastUses * c.panel_blocks);
  if (c.spread) c.copied = c.pixels * spread_step(k);
  c.bytes = round_up((c.table + 2 * c.pixels) * 8, kCacheLine) + round_up(k * 4, kCacheLine) + round_up(c.copied * 4, kCacheLine);
  return c;
}

// --- one chunk -----------------------------------------------------------------------------------------------------------------------

// Part of an output row: columns [begin, end) of row `row`, where rows are numbered through all pictures.
struct Chunk {
  int64_t row_begin, row_end, first_begin, last_end, begin, end;
  int64_t col_begin(int64_t row) const { return row == row_begin ? first_begin : begin; }
  int64_t col_end(int64_t row) const { return row == row_end - 1 ? last_end : end; }
};

Chunk chunk_of(const Cut& cut, const Phase& phase, int64_t pictures, int64_t row_chunk, int64_t col_block) {
  const int64_t rows = pictures * phase.y.out, cols = phase.x.out;
  if (cut.form == ConvForm::pixels) {
    const Range p = piece(rows * cols, cut.row_chunks, row_chunk);
    if (p.size() == 0) return {0, 0, 0, 0, 0, 0};
    const int64_t last = p.end - 1;
    return {p.begin / cols, last / cols + 1, p.begin % cols, last % cols + 1, 0, cols};
  }
  const Range r = piece(rows, cut.row_chunks, row_chunk), x = piece(cols, cut.col_blocks, col_block);
  return {r.begin, r.end, x.begin, x.end, x.begin, x.end};
}

// The memory of one thread.
struct Scratch {
  const float** a;  // row pointers [tap][pixel]
  float** c;        // output pixels
  const float** residual;
  float* zeros;  // k of them
  float* copied;
};

// One group's channels of the input pictures.
struct Input {
  const float* data;
  int64_t picture, row, pixel;  // strides in floats
  int64_t k;                    // channels
};

void copy_floats(float* dst, const float* src, int64_t count) {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) memcpy(dst + i, src + i, 16);
  for (; i < count; ++i) dst[i] = src[i];
}

// Pixels [begin, begin + count) of an input row, zeros outside the picture. `row` is null for a row outside.
void copy_row(float* dst, const float* row, const Input& in, int64_t width, int64_t begin, int64_t count) {
  const int64_t low = row ? min_of(max_of(begin, 0), begin + count) : begin + count, high = max_of(low, min_of(width, begin + count));
  memset(dst, 0, (size_t)((low - begin) * in.k) * sizeof(float));
  dst += (low - begin) * in.k;
  if (high > low && in.pixel == in.k) {
    memcpy(dst, row + low * in.pixel, (size_t)((high - low) * in.k) * sizeof(float));
  } else {
    for (int64_t x = low; x < high; ++x) copy_floats(dst + (x - low) * in.k, row + x * in.pixel, in.k);
  }
  memset(dst + (high - low) * in.k, 0, (size_t)((begin + count - high) * in.k) * sizeof(float));
}

// dst[x * dst_pixel + c] = src[x * src_pixel + c], x < count, c < k; zeros where src is null.
template <int64_t k>
void spread(float* dst, int64_t dst_pixel, const float* src, int64_t src_pixel, int64_t count) {
  if (src) {
    for (int64_t x = 0; x < count; ++x, dst += dst_pixel, src += src_pixel) memcpy(dst, src, k * sizeof(float));
  } else {
    for (int64_t x = 0; x < count; ++x, dst += dst_pixel) memset(dst, 0, k * sizeof(float));
  }
}

// dst[x][t][c] = pixel begin + x of the t-th row (a null row gives zeros), x < count.
void copy_interleaved(float* dst, const float* const* rows, int64_t taps, const Input& in, int64_t width, int64_t begin, int64_t count) {
  static_assert(kInterleaveUpTo == 4, "one spread per number of channels");
  const int64_t low = min_of(max_of(begin, 0), begin + count), high = max_of(low, min_of(width, begin + count)), pixel = taps * in.k;
  memset(dst, 0, (size_t)((low - begin) * pixel) * sizeof(float));
  dst += (low - begin) * pixel;
  for (int64_t t = 0; t < taps; ++t) {
    const float* src = rows[t] ? rows[t] + low * in.pixel : nullptr;
    switch (in.k) {
      case 1: spread<1>(dst + t, pixel, src, in.pixel, high - low); break;
      case 2: spread<2>(dst + t * 2, pixel, src, in.pixel, high - low); break;
      case 3: spread<3>(dst + t * 3, pixel, src, in.pixel, high - low); break;
      case 4: spread<4>(dst + t * 4, pixel, src, in.pixel, high - low); break;
    }
  }
  memset(dst + (high - low) * pixel, 0, (size_t)((begin + count - high) * pixel) * sizeof(float));
}

// The taps along an axis that meet the picture somewhere. Those before and after them would only add zeros.
Range taps_inside(const ConvAxis& a) {
  Range taps{0, a.taps};
  while (taps.begin < taps.end && (a.out - 1) * a.step + a.begin + taps.begin * a.gap < 0) ++taps.begin;
  while (taps.begin < taps.end && a.begin + (taps.end - 1) * a.gap >= a.in) --taps.end;
  return taps;
}

// Leaves such taps out of the phase, as far as those that stay follow each other in the packed weights; returns how many places of the
// weights are passed over before the first.
int64_t leave_out(ConvForm form, Phase* phase) {
  if (form == ConvForm::interleaved) return 0;
  const int64_t row = phase->x.taps;
  const auto cut = [](ConvAxis* a, const Range& taps) {
    a->begin += taps.begin * a->gap, a->taps = taps.size();
    return taps.begin;
  };
  const int64_t places = cut(&phase->y, taps_inside(phase->y)) * row;
  return phase->y.taps == 1 ? places + cut(&phase->x, taps_inside(phase->x)) : places;
}

// Row pointers of form `pixels`: a[t][pixel].
void point_at_pixels(const Phase& phase, const Chunk& chunk, const Input& in, int64_t pixels, const float* zeros, const float** a) {
  const ConvAxis &y = phase.y, &x = phase.x;
  for (int64_t ty = 0; ty < y.taps; ++ty)
    for (int64_t tx = 0; tx < x.taps; ++tx, a += pixels) {
      const int64_t shift = x.begin + tx * x.gap;
      const Range valid = conv_valid(x.out, x.in, x.step, -shift, 0);
      const float** to = a;
      for (int64_t row = chunk.row_begin; row < chunk.row_end; ++row) {
        const int64_t picture = row / y.out, iy = (row - picture * y.out) * y.step + y.begin + ty * y.gap;
        const int64_t begin = chunk.col_begin(row), end = chunk.col_end(row);
        const bool inside = iy >= 0 && iy < y.in;
        const int64_t low = inside ? min_of(max_of(valid.begin, begin), end) : end,
                      high = inside ? max_of(min_of(valid.end, end), low) : end;
        for (int64_t o = begin; o < low; ++o) *to++ = zeros;
        const float* src = in.data + picture * in.picture + iy * in.row + (low * x.step + shift) * in.pixel;
        for (int64_t o = low; o < high; ++o, src += x.step * in.pixel) *to++ = src;
        for (int64_t o = high; o < end; ++o) *to++ = zeros;
      }
    }
}

// Whether form `rows` can read the pictures as they stand: nothing outside is read and pixels lie side by side.
bool readable_in_place(const Phase& phase, const Input& in) {
  const ConvAxis &y = phase.y, &x = phase.x;
  return in.pixel == in.k && y.begin >= 0 && x.begin >= 0 && (y.out - 1) * y.step + y.begin + (y.taps - 1) * y.gap < y.in &&
         (x.out - 1) * x.step + x.begin + x.taps - 1 < x.in;
}

// Row pointers of form `rows`: a[ty][pixel], each at taps_x * k floats; copies the input rows unless they can be read in place.
void point_at_rows(const Phase& phase, const Chunk& chunk, const Input& in, int64_t pixels, float* copied, const float** a) {
  const ConvAxis &y = phase.y, &x = phase.x;
  const bool in_place = readable_in_place(phase, in);
  const int64_t x_begin = chunk.begin * x.step + x.begin, count = cols_read(x, chunk.end - chunk.begin);
  const float** to = a;
  for (int64_t row = chunk.row_begin; row < chunk.row_end;) {  // one picture after the other
    const int64_t picture = row / y.out, end = min_of(chunk.row_end, (picture + 1) * y.out);
    const float* src = in.data + picture * in.picture;
    const int64_t y_begin = row % y.out * y.step + y.begin, read = rows_read(y, end - row);
    const float* first = copied;
    int64_t stride = count * in.k;
    if (in_place) {
      first = src + y_begin * in.row + x_begin * in.pixel, stride = in.row;
    } else {
      for (int64_t r = 0; r < read; ++r, copied += stride) {
        const int64_t iy = y_begin + r;
        copy_row(copied, iy >= 0 && iy < y.in ? src + iy * in.row : nullptr, in, x.in, x_begin, count);
      }
    }
    for (; row < end; ++row, first += y.step * stride)
      for (int64_t o = chunk.begin; o < chunk.end; ++o, ++to) {
        const float* at = first + (o - chunk.begin) * x.step * in.k;
        for (int64_t ty = 0; ty < y.taps; ++ty, at += y.gap * stride) to[ty * pixels] = at;
      }
  }
}

// Row pointers of form `interleaved`: a[pixel], each at taps_x * taps_y * k floats.
void point_at_interleaved(const Phase& phase, const Chunk& chunk, const Input& in, float* copied, const float** rows, const float** a) {
  const ConvAxis &y = phase.y, &x = phase.x;
  const int64_t x_begin = chunk.begin * x.step + x.begin, count = cols_read(x, chunk.end - chunk.begin), pixel = y.taps * in.k;
  for (int64_t row = chunk.row_begin; row < chunk.row_end; ++row, copied += count * pixel) {
    const int64_t picture = row / y.out, y_begin = (row - picture * y.out) * y.step + y.begin;
    for (int64_t ty = 0; ty < y.taps; ++ty) {
      const int64_t iy = y_begin + ty * y.gap;
      rows[ty] = iy >= 0 && iy < y.in ? in.data + picture * in.picture + iy * in.row : nullptr;
    }
    copy_interleaved(copied, rows, y.taps, in, x.in, x_begin, count);
    const float* at = copied;
    for (int64_t o = chunk.begin; o < chunk.end; ++o, at += x.step * pixel) *a++ = at;
  }
}

// Addresses of the output pixels of a chunk in `t`; returns how many.
template <class T>
int64_t point_at_outputs(const Phase& phase, const Chunk& chunk, const Tensor& t, T** to) {
  const ConvAxis &y = phase.y, &x = phase.x;
  T** const first = to;
  for (int64_t row = chunk.row_begin; row < chunk.row_end; ++row) {
    const int64_t picture = row / y.out, iy = y.out_begin + (row - picture * y.out) * y.out_step, begin = chunk.col_begin(row);
    T* at = t.f32() + picture * t.strides[0] + iy * t.strides[1] + (x.out_begin + begin * x.out_step) * t.strides[2];
    for (int64_t o = begin; o < chunk.col_end(row); ++o, at += x.out_step * t.strides[2]) *to++ = at;
  }
  return to - first;
}

// Copies the k floats at each pointer, but for those at `zeros`, to where pixels lie spread_step apart, and points there.
void spread_pixels(const Input& in, int64_t pixels, const float* zeros, float* copied, const float** a) {
  for (const int64_t step = spread_step(in.k); pixels > 0; --pixels, ++a, copied += step)
    if (*a != zeros) {
      memcpy(copied, *a, (size_t)in.k * sizeof(float));
      *a = copied;
    }
}

// Normalises `pixels` of all pictures, of the k channels of a 1x1, into the same kind of copy.
void normalise_pixels(const EltwiseKernels& kernels, const BatchNorm& norm, const Input& in, Range pixels, float* copied, const float** a) {
  const int64_t step = spread_step(in.k);
  norm.apply(kernels, pixels.size(), {0, in.k}, in.data + pixels.begin * in.k, in.k, copied, step);
  for (int64_t i = 0; i < pixels.size(); ++i) a[i] = copied + i * step;
}

// The memory from the first pointer to `count` floats behind the last, where they are `step` floats apart; else nothing.
template <class T>
Ahead in_a_row(T* const* at, Range range, int64_t step, int64_t count) {
  const T *first = at[range.begin], *last = at[range.end - 1];
  if (last - first != (range.size() - 1) * step) return {};
  return {first, (last - first + count) * (int64_t)sizeof(float)};
}

}  // namespace

int64_t conv_direct_packed_bytes(const ConvShape& s, ConvDirection direction) {
  const ConvView view{s, direction};
  return s.g * s.taps() * view.k() * round_up(view.columns(), 32) * (int64_t)sizeof(float);
}

void conv_direct_choose(const ConvShape& s, ConvDirection direction, bool normalises, const Kernels& kernels, int threads, Choice* choice) {
  const Cut cut = cut_work({s, direction}, normalises, *kernels.brgemm);
  static const char* const kForms[] = {"pixels", "rows", "interleaved"};
  choice->workspace += threads * cut.bytes;
  choice->packed = conv_direct_packed_bytes(s, direction);
  snprintf(choice->kernel, sizeof choice->kernel, "brgemm %s", kernels.brgemm->tile);
  snprintf(choice->blocking, sizeof choice->blocking,
           "%s%s, %lld tasks: chunks of up to %lld pixels x %lld of %lld panels of %lld, %s outside", kForms[(int)cut.form],
           normalises   ? " normalised"
           : cut.spread ? " copied"
                        : "",
           (long long)cut.tasks, (long long)cut.pixels, (long long)div_up(cut.panels, cut.panel_blocks), (long long)cut.panels,
           (long long)cut.width, cut.panels_inside ? "tiles" : "panels");
}

int64_t conv_direct_parts(const ConvShape& s, ConvDirection direction, const Kernels& kernels) {
  const Cut cut = cut_work({s, direction}, false, *kernels.brgemm);  // which changes no part
  return cut.col_blocks == 1 && cut.phases == 1 ? cut.row_chunks : 0;
}

void conv_direct(const Run& run, const Kernels& kernels, const ConvShape& s, ConvDirection direction, const Tensor& x,
                 const BatchNorm* norm, const float* packed, const Tensor& y, const ConvEpilogueOperands& epilogue, char* scratch) {
  const ConvView view{s, direction};
  const BrgemmKernels& brgemm = *kernels.brgemm;
  const Cut cut = cut_work(view, norm, brgemm);
  const int64_t k = view.k(), columns = view.columns();
  const int64_t phases_w = view.phases_w();
  const auto pixels_of = [&](int64_t row_chunk) {  // of all pixels of y
    const int64_t height = s.n * y.dims[1], width = y.dims[2];
    if (cut.form == ConvForm::pixels) return piece(height * width, cut.row_chunks, row_chunk);
    const Range rows = piece(height, cut.row_chunks, row_chunk);
    return Range{rows.begin * width, rows.end * width};
  };

  const auto body = [&](int64_t task, int thread) {
    const int64_t panel_block = task % cut.panel_blocks;
    task /= cut.panel_blocks;
    const int64_t col_block = task % cut.col_blocks;
    task /= cut.col_blocks;
    const int64_t row_chunk = task % cut.row_chunks;
    task /= cut.row_chunks;
    const int64_t group = task % s.g, phase_index = task / s.g;
    Phase phase{view.rows(phase_index / phases_w), view.cols(phase_index % phases_w)};
    int64_t first_tap = phase.y.taps_before * s.kw + phase.y.taps * phase.x.taps_before;
    first_tap += leave_out(cut.form, &phase);
    const Chunk chunk = chunk_of(cut, phase, s.n, row_chunk, col_block);

    char* memory = scratch + thread * cut.bytes;
    Scratch m;
    m.a = (const float**)memory, m.c = (float**)(m.a + cut.table), m.residual = (const float**)(m.c + cut.pixels);
    memory += round_up((cut.table + 2 * cut.pixels) * 8, kCacheLine);
    m.zeros = (float*)memory, m.copied = (float*)(memory + round_up(k * 4, kCacheLine));

    BrgemmArgs g;
    g.m = point_at_outputs(phase, chunk, y, m.c);
    if (g.m == 0) return;
    const Input in{x.f32() + group * k, x.strides[0], x.strides[1], x.strides[2], k};
    const int64_t taps = phase.y.taps * phase.x.taps;
    if (taps > 0) {
      switch (cut.form) {
        case ConvForm::pixels:
          memset(m.zeros, 0, (size_t)k * sizeof(float));
          point_at_pixels(phase, chunk, in, g.m, m.zeros, m.a);
          if (norm)
            normalise_pixels(*kernels.eltwise, *norm, in, pixels_of(row_chunk), m.copied, m.a);
          else if (cut.spread)
            spread_pixels(in, g.m, m.zeros, m.copied, m.a);
          g.taps = taps, g.k = k;
          break;
        case ConvForm::rows:
          point_at_rows(phase, chunk, in, g.m, m.copied, m.a);
          g.taps = phase.y.taps, g.k = phase.x.taps * k;
          break;
        case ConvForm::interleaved:
          point_at_interleaved(phase, chunk, in, m.copied, m.a + cut.table - phase.y.taps, m.a);
          g.taps = 1, g.k = taps * k;
          break;
      }
    } else {
      g.taps = 0;
    }
    g.a = m.a, g.a_rows = g.m;
    g.b_stride = cut.width, g.b_panel = cut.panel;
    g.out.c = m.c;
    g.out.activation = epilogue.activation, g.out.alpha = epilogue.alpha, g.out.beta = epilogue.beta;
    if (epilogue.residual) {
      point_at_outputs(phase, chunk, *epilogue.residual, m.residual);
      g.out.residual = m.residual;
    }
    const float* b = packed + group * cut.panels * cut.panel + first_tap * k * cut.width;
    const Range panels = piece(cut.panels, cut.panel_blocks, panel_block);
    const auto multiply = [&](Range pixels, Range some_panels) {
      BrgemmArgs part = g;
      const int64_t column = some_panels.begin * cut.width;
      part.m = pixels.size(), part.n = min_of(columns - column, some_panels.size() * cut.width);
      part.a += pixels.begin, part.out.c += pixels.begin;
      if (part.out.residual) part.out.residual += pixels.begin;
      part.b = b + some_panels.begin * cut.panel;
      part.out.c_offset = group * columns + column;
      part.out.bias = epilogue.bias ? epilogue.bias + group * columns + column : nullptr;
      if (s.g == 1 && panels.size() == cut.panels && pixels.end < g.m) {
        const Range next{pixels.end, min_of(g.m, pixels.end + pixels.size())};
        if (g.taps > 0) part.ahead[0] = in_a_row(m.a + (g.taps - 1) * g.m, next, in.pixel, g.k);
        part.ahead[1] = in_a_row(m.c, next, y.strides[2], columns);
      }
      brgemm.run(part);
    };
    if (cut.panels_inside) {
      const int64_t together = kTilesTogether * brgemm.rows;
      for (int64_t p = 0; p < g.m; p += together) multiply({p, min_of(p + together, g.m)}, panels);
    } else {
      for (int64_t p = panels.begin; p < panels.end; ++p) multiply({0, g.m}, {p, p + 1});
    }
    if (epilogue.gathering) {
      const int64_t first = group * columns;
      epilogue.gathering->add(row_chunk, pixels_of(row_chunk),
                              {first + panels.begin * cut.width, first + min_of(columns, panels.end * cut.width)});
    }
  };
  const double pixels = double(y.dims[0] * y.dims[1] * y.dims[2] * s.g);
  parallel_for(run, cut.tasks, s.macs() * kNanosecondsPerMac + pixels * kNanosecondsPerPixel, body);
}

}  // namespace wl
