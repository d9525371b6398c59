#include "runtime/container.h"

#include <inttypes.h>

#include "base/crc32.h"
#include "runtime/bytes.h"

namespace wl {
namespace {

constexpr char kMagic[8] = {'\x89', 'W', 'S', 'L', '\r', '\n', '\x1a', '\n'};
constexpr size_t kHeader = 32, kSectionEntry = 32;

bool printable_tag(uint32_t tag) {
  for (int i = 0; i < 4; ++i, tag >>= 8)
    if ((tag & 255) < 'A' || (tag & 255) > 'Z') return false;
  return true;
}

}  // namespace

Status file_error(size_t offset, const char* format, ...) {
  char what[400];
  va_list args;
  va_start(args, format);
  vsnprintf(what, sizeof what, format, args);
  va_end(args);
  return Status::error(Code::corrupt, "byte %zu of the file: %s", offset, what);
}

bool valid_utf8(const char* text, size_t size) {
  const auto* p = reinterpret_cast<const unsigned char*>(text);
  const auto* end = p + size;
  while (p < end) {
    const unsigned lead = *p++;
    if (lead == 0) return false;
    if (lead < 0x80) continue;
    const int more = lead >= 0xC2 && lead < 0xE0 ? 1 : lead >= 0xE0 && lead < 0xF0 ? 2 : lead >= 0xF0 && lead < 0xF5 ? 3 : 0;
    if (more == 0 || end - p < more) return false;
    const unsigned first = p[0];
    if ((lead == 0xE0 && first < 0xA0) || (lead == 0xED && first > 0x9F) || (lead == 0xF0 && first < 0x90) ||
        (lead == 0xF4 && first > 0x8F))
      return false;
    for (int i = 0; i < more; ++i)
      if ((*p++ & 0xC0) != 0x80) return false;
  }
  return true;
}

Status container_parse(const void* bytes, size_t size, Container* out) {
  const char* data = static_cast<const char*>(bytes);
  if (!data || size < kHeader) return file_error(0, "%zu bytes are too few for a wiesel file (the header alone has %zu)", size, kHeader);
  if (memcmp(data, kMagic, sizeof kMagic) != 0) return file_error(0, "this is no wiesel file: the magic bytes differ");
  const auto version = read_at<uint32_t>(data, 8), count = read_at<uint32_t>(data, 12);
  if (version != 0) return Status::error(Code::unsupported, "byte 8 of the file: version %u; this library reads version 0", version);
  if (count < 1 || count > uint32_t(kMaxSections)) return file_error(12, "%u sections; 1 to %d are possible", count, kMaxSections);
  const auto total = read_at<uint64_t>(data, 16);
  if (total != size)
    return file_error(16, "the file says that it has %" PRIu64 " bytes, but %zu are there%s", total, size,
                      size < total ? ": it was cut off" : "");
  const size_t table_end = kHeader + count * kSectionEntry;
  if (table_end > size) return file_error(12, "the table of %u sections ends after the file", count);
  if (read_at<uint32_t>(data, 24) != crc32(data + kHeader, count * kSectionEntry))
    return file_error(24, "the CRC of the section table differs");
  if (!all_zero(data, 28, 32)) return file_error(28, "must be 0");

  Container result;
  size_t end = table_end;  // of what was read so far
  for (uint32_t i = 0; i < count; ++i) {
    const size_t at = kHeader + i * kSectionEntry;
    Section& section = result.sections[i];
    section.tag = read_at<uint32_t>(data, at);
    const auto crc = read_at<uint32_t>(data, at + 4);
    const auto offset = read_at<uint64_t>(data, at + 8), length = read_at<uint64_t>(data, at + 16);
    if (!printable_tag(section.tag)) return file_error(at, "a section tag has four capital letters");
    if (result.find(section.tag)) return file_error(at, "section %.4s occurs twice", data + at);
    if (offset % 64 != 0 || offset < end || offset > size || length > size - offset)
      return file_error(
          at + 8, "section %.4s at %" PRIu64 " with %" PRIu64 " bytes: must be a multiple of 64, after the previous one, inside the file",
          data + at, offset, length);
    if (!all_zero(data, at + 24, at + 32)) return file_error(at + 24, "must be 0");
    if (!all_zero(data, end, offset)) return file_error(end, "the gap before section %.4s must be zeros", data + at);
    section.data = data + offset;
    section.size = length;
    section.offset = offset;
    if (crc32(section.data, section.size) != crc)
      return file_error(offset, "the CRC of section %.4s differs: the file is damaged", data + at);
    end = offset + length;
    ++result.n_sections;
  }
  if (!all_zero(data, end, size)) return file_error(end, "the bytes after the last section must be zeros");
  *out = result;
  return Status::good();
}

Status ArrayReader::next(NamedArray* array, bool* done) {
  const char* data = section_.data;
  const size_t size = section_.size, base = section_.offset;
  if (!started_) {
    if (size < 8) return file_error(base, "a section of arrays has at least 8 bytes");
    left_ = read_at<uint32_t>(data, 0);
    if (left_ > 65536 || !all_zero(data, 4, 8)) return file_error(base, "%zu arrays; at most 65536 are possible, then 4 zero bytes", left_);
    at_ = 8;
    started_ = true;
  }
  *done = left_ == 0;
  if (*done) return all_zero(data, at_, size) ? Status::good() : file_error(base + at_, "the bytes after the last array must be zeros");
  --left_;

  const size_t start = at_;
  if (size - at_ < 2) return file_error(base + at_, "the table of arrays is cut off");
  const size_t name_length = read_at<uint16_t>(data, at_);
  if (name_length < 1 || name_length > 512) return file_error(base + at_, "a name of %zu bytes; 1 to 512 are possible", name_length);
  if (size - at_ < 2 + name_length + 2) return file_error(base + at_, "the table of arrays is cut off");
  array->name = data + at_ + 2;
  array->name_length = int(name_length);
  if (!valid_utf8(array->name, name_length)) return file_error(base + at_ + 2, "the name is not UTF-8");
  at_ += 2 + name_length;
  const auto dtype = read_at<uint8_t>(data, at_), rank = read_at<uint8_t>(data, at_ + 1);
  if (dtype >= kDTypeCount || rank > kMaxRank) return file_error(base + at_, "dtype %u, rank %u: unknown", dtype, rank);
  at_ += 2;
  if (size - at_ < rank * size_t(8) + 16) return file_error(base + at_, "the table of arrays is cut off");
  array->dtype = DType(dtype);
  array->rank = rank;
  uint64_t bytes = dtype_size(array->dtype);
  for (int d = 0; d < kMaxRank; ++d) array->dims[d] = 0;
  for (int d = 0; d < rank; ++d, at_ += 8) {
    const auto extent = read_at<uint64_t>(data, at_);
    if (extent > (uint64_t(1) << 40) || __builtin_mul_overflow(bytes, extent, &bytes))
      return file_error(base + at_, "extent %" PRIu64 " is too large", extent);
    array->dims[d] = int64_t(extent);
  }
  const auto offset = read_at<uint64_t>(data, at_), length = read_at<uint64_t>(data, at_ + 8);
  at_ += 16;
  if (length != bytes) return file_error(base + at_ - 8, "%" PRIu64 " bytes; extents and dtype make %" PRIu64, length, bytes);
  if (offset % 64 != 0 || offset < at_ || offset > size || length > size - offset)
    return file_error(base + at_ - 16,
                      "data at %" PRIu64 " with %" PRIu64 " bytes: must be a multiple of 64, after the entry at %zu, inside the section",
                      offset, length, start);
  if (!all_zero(data, at_, offset)) return file_error(base + at_, "the gap before the data must be zeros");
  array->data = data + offset;
  array->bytes = length;
  at_ = offset + length;
  return Status::good();
}

}  // namespace wl
