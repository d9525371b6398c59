#include "ops/depthwise.h"

#include <stdio.h>
#include <string.h>

#include "kernels/depthwise/depthwise.h"
#include "ops/partial_sums.h"
#include "ops/window.h"

namespace wl {

namespace {

// Channels per block: their weights (or sums) take at most half of a 32 KB L1 cache. A multiple of every vector length.
int64_t channel_block(const ConvShape& s) {
  return min_of(round_up(s.oc, 64), max_of(64, 4096 / s.taps() / 64 * 64));
}

// A block of channels of output side and input side; the input side has 1/m of them.
struct Channels {
  int64_t begin, count;
};
Channels channels_of(const ConvShape& s, int64_t block, int64_t size) {
  const int64_t begin = block * size;
  return {begin, min_of(size, s.oc - begin)};
}
Channels channels_of(const ConvShape& s, int64_t block) {
  return channels_of(s, block, channel_block(s));
}

// Rows per task: enough work to pay for its start, as few halo rows read twice as balance allows.
int64_t rows_per_task(int64_t n, int64_t rows, int64_t row_elements) {
  const int64_t least = div_up(16384, row_elements);
  return min_of(rows, max_of(least, min_of(16, n * rows / 64)));
}

// One thread's time, roughly: of the multiply-adds, and of the elements of so many swept positions of each picture, loaded or stored once.
double cost_ns(const ConvShape& s, int64_t swept) {
  return double(s.n * s.oc) * (0.05 * double(s.oh * s.ow * s.taps()) + 0.4 * double(swept));
}

// Whether the pictures of both sides are too large for the caches.
constexpr int64_t kColdBytes = 4 << 20;
bool cold(const ConvShape& s) {
  return 4 * s.n * (s.ih * s.iw * s.ic + s.oh * s.ow * s.oc) >= kColdBytes;
}

// With a multiplier m > 1, the input rows that output rows [begin, end) read, as a range clipped to the picture.
Range input_rows(const ConvShape& s, int64_t begin, int64_t end) {
  const int64_t first = max_of(0, begin * s.sh - s.pad_top);
  const int64_t last = min_of(s.ih, (end - 1) * s.sh - s.pad_top + (s.kh - 1) * s.dilh + 1);
  return {first, max_of(first, last)};
}

// How input rows reach the kernel: as they lie, or through scratch: widened by a multiplier m > 1, or (without one) normalised.
constexpr int64_t kNormalisedElements = 96 << 10;  // of scratch, about: they stay in the second cache level

// Rows that are normalised together: at least `rows`.
int64_t normalised_rows(const ConvShape& s, int64_t rows) {
  return min_of(s.ih, max_of(rows, kNormalisedElements / (s.iw * min_of(channel_block(s), s.ic))));
}
int64_t rows_read(const ConvShape& s, int64_t rows) {  // by so many output rows, at most
  return min_of(s.ih, (rows - 1) * s.sh + (s.kh - 1) * s.dilh + 1);
}
int64_t scratch_elements(const ConvShape& s, int64_t rows, bool normalises) {
  const int64_t m = s.ocg();
  if (m > 1) return round_up(rows_read(s, rows) * s.iw * (channel_block(s) + 2 * m), 16);
  return normalises ? round_up(normalised_rows(s, rows_read(s, rows)) * s.iw * min_of(channel_block(s), s.ic), 16) : 0;
}

// Input rows [rows.begin, rows.end) of a picture in a block of channels of the output side.
struct InputRows {
  const float* data = nullptr;  // channel `channels.begin` of row `rows.begin`, column 0
  int64_t image = -1;
  Range rows{0, 0};
  int64_t row = 0, col = 0;  // steps
  bool in_scratch = false;
  const float* at(int64_t iy) const { return data + (iy - rows.begin) * row; }
  bool hold(int64_t picture, Range r) const { return image == picture && rows.begin <= r.begin && r.end <= rows.end; }
};

// A multiplier cuts blocks of channels anywhere; widening then starts inside an input channel, so whole input channels are widened and the
// first few skipped.
InputRows read_rows(const Kernels& kernels, const ConvShape& s, const Tensor& x, const BatchNorm* norm, int64_t image, Range rows,
                    Channels channels, float* scratch) {
  const float* picture = x.f32() + image * x.strides[0];
  const int64_t m = s.ocg(), count = channels.count;
  const float* first = picture + rows.begin * x.strides[1] + channels.begin;
  if (norm) {
    norm->apply(*kernels.eltwise, rows.size() * s.iw, {channels.begin, channels.begin + count}, first, s.ic, scratch, count);
    return {scratch, image, rows, s.iw * count, count, true};
  }
  if (m == 1) return {first, image, rows, x.strides[1], x.strides[2], false};
  const int64_t c0 = channels.begin / m, c1 = div_up(channels.begin + count, m), wide = (c1 - c0) * m;
  for (int64_t iy = rows.begin; iy < rows.end; ++iy)
    kernels.depthwise->widen(s.iw, c1 - c0, m, picture + iy * x.strides[1] + c0, x.strides[2], scratch + (iy - rows.begin) * s.iw * wide,
                             wide);
  return {scratch + channels.begin - c0 * m, image, rows, s.iw * wide, wide, true};
}

// The row of a forward or backward-weights sweep over output row oy; `in` holds its input rows. False when no filter row lies inside.
bool sweep_row(const ConvShape& s, const InputRows& in, int64_t oy, int64_t channels, int lanes, DepthwiseRow* row, const float** x,
               int64_t* ky) {
  const Range k = window_inside(oy, s.kh, s.sh, s.dilh, s.pad_top, s.ih);
  row->channels = channels;
  row->columns = s.ow, row->width = s.iw;
  row->rows = k.size(), row->taps = s.kw;
  row->stride = s.sw, row->dilation = s.dilw, row->start = -s.pad_left;
  row->x_row = s.dilh * in.row, row->x_col = in.col;
  row->w_row = s.kw * lanes, row->w_vector = s.taps() * lanes;
  row->y_step = 1;
  row->y_cold = cold(s), row->x_cold = row->y_cold && !in.in_scratch;
  *ky = k.begin;
  *x = k.size() ? in.at(oy * s.sh - s.pad_top + k.begin * s.dilh) : in.data;
  return k.size() > 0;
}

// --- backward-weights: how the sum is cut, by shape alone ---
constexpr int64_t kChunkPixels = 192;  // products added in one chain before they are added to the running sum
constexpr int64_t kMostPartials = 16;

int64_t chunk_rows(const ConvShape& s) {
  return min_of(s.oh, max_of(1, kChunkPixels / s.ow));
}
int64_t chunks(const ConvShape& s) {
  return s.n * div_up(s.oh, chunk_rows(s));
}
// Partial sums cost memory and time to add: at most an eighth of what reading the pictures costs.
int64_t partials(const ConvShape& s) {
  return max_of(1, min_of(min_of(kMostPartials, chunks(s)), s.n * s.oh * s.ow / (8 * s.taps())));
}

int64_t data_rows(const ConvShape& s) {
  return s.ocg() == 1 ? rows_per_task(s.n, s.ih, s.iw * s.oc) : min_of(s.ih, 4);
}

// How the forward direction is cut, by shape alone. Few blocks of rows are cut by channels too: then a thread reads the channels that it
// wrote, where a 1x1 of few pixels comes before.
constexpr int64_t kLeastElements = 4096;  // of a block
struct ForwardCut {
  int64_t row_blocks, channels, channel_blocks;  // of a picture; of a block; of a picture
  int64_t parts;                                 // that tasks of the same rows share the blocks of channels in

  Range rows(const ConvShape& s, int64_t block) const { return {block * s.oh / row_blocks, (block + 1) * s.oh / row_blocks}; }
  int64_t most_rows(const ConvShape& s) const { return div_up(s.oh, row_blocks); }
};
ForwardCut forward_cut(const ConvShape& s, bool normalises) {
  ForwardCut cut{div_up(s.oh, min_of(s.oh, 4)), channel_block(s), div_up(s.oc, channel_block(s)), 1};
  if (s.ocg() > 1) return cut;
  int64_t rows = rows_per_task(s.n, s.oh, s.ow * s.oc);
  if (normalises) rows = max_of(1, min_of(rows, (normalised_rows(s, 1) - (s.kh - 1) * s.dilh - 1) / s.sh + 1));
  cut.row_blocks = div_up(s.oh, rows);
  if (normalises || s.n * cut.row_blocks >= kEnoughTasks) return cut;
  cut.row_blocks = few_parts(cut.row_blocks, 1);
  const int64_t wanted = div_up(s.oc, div_up(kEnoughTasks, s.n * cut.row_blocks)), least = kLeastElements / (cut.most_rows(s) * s.ow);
  cut.channels = min_of(cut.channels, round_up(max_of(max_of(wanted, least), 1), 64));
  cut.parts = cut.channel_blocks = div_up(s.oc, cut.channels);
  return cut;
}

// Packed weights, or sums, of a block of channels.
int64_t packed_elements(const ConvShape& s) {
  return round_up(s.taps() * channel_block(s), 16);
}

int64_t thread_elements(const ConvShape& s, ConvDirection direction, bool normalises) {
  switch (direction) {
    case ConvDirection::fwd: return packed_elements(s) + scratch_elements(s, forward_cut(s, normalises).most_rows(s), normalises);
    case ConvDirection::bwd_data: return packed_elements(s) + (s.ocg() == 1 ? 0 : round_up(s.iw * s.oc, 16));
    case ConvDirection::bwd_weights: return packed_elements(s) + scratch_elements(s, chunk_rows(s), normalises);
  }
  return 0;
}

int64_t partial_elements(const ConvShape& s) {
  return partials(s) == 1 ? 0 : round_up(partials(s) * s.taps() * s.oc, 16);
}

// --- backward-data: the inputs of one phase, i = phase + p*stride along both axes, see the same taps ---
WindowTaps row_taps(const ConvShape& s, int64_t phase) {
  return window_taps(phase, s.kh, s.sh, s.dilh, s.pad_top);
}
WindowTaps column_taps(const ConvShape& s, int64_t phase) {
  return window_taps(phase, s.kw, s.sw, s.dilw, s.pad_left);
}

// Packs the weights of every phase one behind the other, taps by rising outputs.
void pack_phases(const Kernels& kernels, const ConvShape& s, const float* w, Channels channels, float* packed) {
  const int64_t width = round_up(channels.count, kernels.lanes);
  for (int64_t py = 0; py < min_of(s.sh, s.ih); ++py)
    for (int64_t px = 0; px < min_of(s.sw, s.iw); ++px) {
      const WindowTaps ty = row_taps(s, py), tx = column_taps(s, px);
      if (ty.count == 0 || tx.count == 0) continue;
      const float* from = w + (ty.k_last() * s.kw + tx.k_last()) * s.oc + channels.begin;
      kernels.depthwise->pack(ty.count, tx.count, channels.count, from, -ty.k_step * s.kw * s.oc, -tx.k_step * s.oc, packed);
      packed += ty.count * tx.count * width;
    }
}

// One row of dx, or of its wide form: a block of channels at steps of to_col.
void data_row(const Kernels& kernels, const ConvShape& s, const Tensor& dy, int64_t image, int64_t iy, Channels channels,
              const float* packed, float* to, int64_t to_col) {
  const int64_t width = round_up(channels.count, kernels.lanes), phases_x = min_of(s.sw, s.iw);
  int64_t taps_x = 0;
  for (int64_t px = 0; px < phases_x; ++px) taps_x += column_taps(s, px).count;
  for (int64_t py = 0; py < iy % s.sh; ++py) packed += row_taps(s, py).count * taps_x * width;
  const WindowTaps all = row_taps(s, iy % s.sh), ty = window_taps_inside(iy, s.kh, s.sh, s.dilh, s.pad_top, s.oh);
  const int64_t skipped = ty.count ? (all.k_last() - ty.k_last()) / ty.k_step : 0;  // filter rows that would read above the first row of dy
  for (int64_t px = 0; px < phases_x; ++px) {
    const WindowTaps tx = column_taps(s, px);
    DepthwiseRow row{};
    row.channels = channels.count;
    row.columns = div_up(s.iw - px, s.sw), row.width = s.ow;
    row.rows = ty.count, row.taps = tx.count;
    row.stride = 1, row.dilation = tx.o_step, row.start = tx.count ? tx.o_last() : 0;
    row.x_row = ty.o_step * dy.strides[1], row.x_col = dy.strides[2];
    row.w_row = tx.count * kernels.lanes, row.w_vector = all.count * row.w_row;
    row.y_step = s.sw, row.y_col = s.sw * to_col;
    row.x_cold = px == 0 && cold(s);          // the other phases meet the same lines
    row.y_cold = row.x_cold && s.ocg() == 1;  // the wide form is scratch
    const float* from = dy.f32() + image * dy.strides[0] + (ty.count ? ty.o_last() * dy.strides[1] : 0) + channels.begin;
    kernels.depthwise->convolve_row(row, from, packed + skipped * row.w_row, to + px * to_col + channels.begin, nullptr);
    packed += all.count * tx.count * width;
  }
}

}  // namespace

void depthwise_choose(const ConvShape& s, ConvDirection direction, bool normalises, const Kernels& kernels, int threads, Choice* choice) {
  choice->algorithm = Algorithm::depthwise;
  choice->packed = 0;
  choice->workspace = threads * thread_elements(s, direction, normalises) * int64_t(sizeof(float));
  snprintf(choice->kernel, sizeof choice->kernel, "depthwise, vectors of %d channels", kernels.lanes);
  const ForwardCut cut = forward_cut(s, normalises);
  const bool forward = direction == ConvDirection::fwd;
  const int64_t rows = forward ? cut.most_rows(s) : data_rows(s), channels = forward ? cut.channels : channel_block(s);
  const char* read = normalises ? "normalised, " : "";
  if (direction == ConvDirection::bwd_weights) {
    choice->workspace += partial_elements(s) * int64_t(sizeof(float));
    snprintf(choice->blocking, sizeof choice->blocking, "%s%lld channels x %lld rows per chunk, %lld partial sums", read,
             (long long)channel_block(s), (long long)chunk_rows(s), (long long)partials(s));
  } else {
    snprintf(choice->blocking, sizeof choice->blocking, "%s%lld channels, %lld rows per task", read, (long long)channels, (long long)rows);
  }
}

int64_t depthwise_parts(const ConvShape& s, ConvDirection direction, bool normalises) {
  if (direction == ConvDirection::fwd) return s.n * forward_cut(s, normalises).row_blocks;
  return s.ocg() == 1 ? s.n * div_up(s.ih, data_rows(s)) : 0;
}

void depthwise_fwd(const Run& run, const Kernels& kernels, const ConvShape& s, const Tensor& x, const BatchNorm* norm, const float* w,
                   const Tensor& y, const ConvEpilogueOperands& e) {
  const ForwardCut cut = forward_cut(s, norm);
  const int64_t scratch = thread_elements(s, ConvDirection::fwd, norm), parts = cut.parts;
  const bool plain = !e.bias && !e.residual && e.activation == UnaryKind::none;
  parallel_for(run, s.n * cut.row_blocks * parts, cost_ns(s, s.oh * s.ow), [&](int64_t task, int thread) {
    const int64_t rows = task / parts, image = rows / cut.row_blocks;  // of all pictures
    const Range blocks = piece(cut.channel_blocks, parts, task % parts);
    const auto [begin, end] = cut.rows(s, rows % cut.row_blocks);
    float* packed = reinterpret_cast<float*>(run.workspace) + thread * scratch;
    float* rows_scratch = packed + packed_elements(s);
    for (int64_t block = blocks.begin; block < blocks.end; ++block) {
      const Channels channels = channels_of(s, block, cut.channels);
      kernels.depthwise->pack(s.kh, s.kw, channels.count, w + channels.begin, s.kw * s.oc, s.oc, packed);
      const InputRows in = read_rows(kernels, s, x, norm, image, input_rows(s, begin, end), channels, rows_scratch);
      for (int64_t oy = begin; oy < end; ++oy) {
        DepthwiseRow row{};
        const float* from = nullptr;
        int64_t ky = 0;
        sweep_row(s, in, oy, channels.count, kernels.lanes, &row, &from, &ky);
        row.y_col = y.strides[2];
        const int64_t at = image * y.strides[0] + oy * y.strides[1] + channels.begin;
        DepthwiseEpilogue epilogue{};
        epilogue.bias = e.bias ? e.bias + channels.begin : nullptr;
        if (e.residual) {
          const Tensor& r = *e.residual;
          epilogue.residual = r.f32() + image * r.strides[0] + oy * r.strides[1] + channels.begin;
          epilogue.residual_col = r.strides[2];
        }
        epilogue.activation = e.activation, epilogue.alpha = e.alpha, epilogue.beta = e.beta;
        kernels.depthwise->convolve_row(row, from, packed + ky * row.w_row, y.f32() + at, plain ? nullptr : &epilogue);
      }
    }
    if (e.gathering)
      e.gathering->add(rows, {(image * s.oh + begin) * s.ow, (image * s.oh + end) * s.ow},
                       {blocks.begin * cut.channels, min_of(s.oc, blocks.end * cut.channels)});
  });
}

void depthwise_bwd_data(const Run& run, const Kernels& kernels, const ConvShape& s, const Tensor& dy, const float* w, const Tensor& dx,
                        const Gathering* gathering) {
  const int64_t block_rows = data_rows(s), row_blocks = div_up(s.ih, block_rows), channel_blocks = div_up(s.oc, channel_block(s));
  const int64_t m = s.ocg(), scratch = thread_elements(s, ConvDirection::bwd_data, false);
  parallel_for(run, s.n * row_blocks, cost_ns(s, s.ih * s.iw), [&](int64_t task, int thread) {
    const int64_t image = task / row_blocks, begin = task % row_blocks * block_rows, end = min_of(s.ih, begin + block_rows);
    float* packed = reinterpret_cast<float*>(run.workspace) + thread * scratch;
    float* wide = packed + packed_elements(s);
    if (m == 1) {
      for (int64_t block = 0; block < channel_blocks; ++block) {
        const Channels channels = channels_of(s, block);
        pack_phases(kernels, s, w, channels, packed);
        for (int64_t iy = begin; iy < end; ++iy)
          data_row(kernels, s, dy, image, iy, channels, packed, dx.f32() + image * dx.strides[0] + iy * dx.strides[1], dx.strides[2]);
      }
      if (gathering) gathering->add(task, {(image * s.ih + begin) * s.iw, (image * s.ih + end) * s.iw}, {0, s.ic});
      return;
    }
    // With a multiplier all channels of a row are gathered in scratch before they are narrowed.
    for (int64_t iy = begin; iy < end; ++iy) {
      for (int64_t block = 0; block < channel_blocks; ++block) {
        const Channels channels = channels_of(s, block);
        pack_phases(kernels, s, w, channels, packed);
        data_row(kernels, s, dy, image, iy, channels, packed, wide, s.oc);
      }
      kernels.depthwise->narrow(s.iw, s.ic, m, wide, s.oc, dx.f32() + image * dx.strides[0] + iy * dx.strides[1], dx.strides[2]);
    }
  });
}

void depthwise_bwd_weights(const Run& run, const Kernels& kernels, const ConvShape& s, const Tensor& x, const BatchNorm* norm,
                           const Tensor& dy, float* dw) {
  const int64_t parts = partials(s), rows = chunk_rows(s), row_chunks = div_up(s.oh, rows), channel_blocks = div_up(s.oc, channel_block(s));
  const int64_t elements = s.taps() * s.oc, scratch = thread_elements(s, ConvDirection::bwd_weights, norm);
  float* workspace = reinterpret_cast<float*>(run.workspace);
  float* sums = parts == 1 ? dw : workspace;  // [part][tap][oc]
  float* thread_scratch = workspace + partial_elements(s);
  parallel_for(run, parts * channel_blocks, cost_ns(s, s.oh * s.ow), [&](int64_t task, int thread) {
    const int64_t part = task / channel_blocks;
    const Channels channels = channels_of(s, task % channel_blocks);
    float* chunk_sum = thread_scratch + thread * scratch;  // packed
    float* rows_scratch = chunk_sum + packed_elements(s);
    float* sum = sums + part * elements + channels.begin;
    for (int64_t t = 0; t < s.taps(); ++t) memset(sum + t * s.oc, 0, size_t(channels.count) * sizeof(float));
    const Range range = piece(s.n * row_chunks, parts, part);
    InputRows in;
    for (int64_t chunk = range.begin; chunk < range.end; ++chunk) {
      const int64_t image = chunk / row_chunks, begin = chunk % row_chunks * rows, end = min_of(s.oh, begin + rows);
      memset(chunk_sum, 0, size_t(packed_elements(s)) * sizeof(float));
      Range rows_in = input_rows(s, begin, end);
      if (norm) {  // those of the chunks that follow too: they overlap
        const int64_t last = min_of(range.end, (image + 1) * row_chunks) - image * row_chunks;
        const Range all = input_rows(s, begin, min_of(s.oh, last * rows));
        if (!in.hold(image, rows_in)) rows_in.end = min_of(all.end, rows_in.begin + normalised_rows(s, rows_in.size()));
      }
      if (!norm || !in.hold(image, rows_in)) in = read_rows(kernels, s, x, norm, image, rows_in, channels, rows_scratch);
      for (int64_t oy = begin; oy < end; ++oy) {
        DepthwiseRow row{};
        const float* from = nullptr;
        int64_t ky = 0;
        if (!sweep_row(s, in, oy, channels.count, kernels.lanes, &row, &from, &ky)) continue;
        row.y_col = dy.strides[2];
        const float* gradient = dy.f32() + image * dy.strides[0] + oy * dy.strides[1] + channels.begin;
        kernels.depthwise->weights_row(row, from, gradient, chunk_sum + ky * row.w_row);
      }
      kernels.depthwise->unpack_add(s.kh, s.kw, channels.count, chunk_sum, sum, s.kw * s.oc, s.oc);
    }
  });
  if (parts > 1) combine_parts(run, kernels, parts, elements, sums, dw, false);
}

}  // namespace wl
