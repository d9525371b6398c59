// Container, parser and verifier: what is well-formed loads, everything else is an error with a text.
#include <functional>

#include "harness.h"
#include "program_builder.h"

using namespace harness;
using wl::Code;
using wl::Program;
using wl::Status;

namespace {

Status load(const std::string& file) {
  // A block of exactly the file's size, so that sanitizers see every read past it.
  std::unique_ptr<char[]> copy(new char[file.size()]);
  memcpy(copy.get(), file.data(), file.size());
  Program* program = nullptr;
  const Status status = wl::program_load(copy.get(), file.size(), &program);
  if (status) wl::program_free(program);
  return status;
}

void expect_error(const std::string& file, const char* part, Code code = Code::corrupt) {
  const Status status = load(file);
  CHECK(!status && status.code == code, "expected an error with '%s', got code %d: %s", part, int(status.code), status.text);
  CHECK(strstr(status.text, part), "'%s' should be in: %s", part, status.text);
}

// small_net() with one thing changed.
void expect_refused(const std::function<void(ProgramSpec&)>& change, const char* part, Code code = Code::corrupt) {
  ProgramSpec spec = small_net();
  change(spec);
  expect_error(file_of(spec), part, code);
}

template <class T>
std::string with(std::string bytes, size_t offset, T value) {
  memcpy(&bytes[offset], &value, sizeof value);
  return bytes;
}

void test_good() {
  const std::string file = file_of(small_net());
  Program* program = nullptr;
  const Status status = wl::program_load(file.data(), file.size(), &program);
  CHECK(bool(status), "%s", status.text);
  if (!status) return;
  CHECK(program->batch == 8 && program->n_tensors == 9 && program->n_steps == 6 && program->n_inputs == 1 && program->n_outputs == 1);
  const int begins[] = {0, 1, 4, 5, 6};
  for (int e = 0; e <= wl::kEntries; ++e) CHECK(program->entry_begin[e] == begins[e]);
  CHECK(!strcmp(program->tensor_names[1], "w") && !strcmp(program->steps[3].path, "relu"));
  CHECK(uintptr_t(program->consts) % 64 == 0 && reinterpret_cast<const float*>(program->consts)[3] == -1.0f);
  CHECK(program->steps[2].in[0] == &program->tensors[5]);
  wl::program_free(program);

  ProgramSpec shuffled = small_net();  // entries in any order of the table: sorted, order inside an entry kept
  std::swap(shuffled.steps[0], shuffled.steps[5]);
  const std::string other = file_of(shuffled);
  CHECK(bool(wl::program_load(other.data(), other.size(), &program)));
  CHECK(!strcmp(program->steps[0].path, "prepare") && !strcmp(program->steps[1].path, "scale") && !strcmp(program->steps[3].path, "relu"));
  wl::program_free(program);

  for (int64_t batch : {0, 1, 2}) CHECK(bool(load(file_of(small_net(batch)))));
  CHECK(bool(load(container({{"META", "{}"}, {"PROG", small_net().payload()}, {"GRPH", "[1]"}}))));
}

void test_container() {
  const std::string payload = small_net().payload(), file = container({{"PROG", payload}});
  for (size_t size = 0; size < file.size(); ++size) expect_error(file.substr(0, size), size < 32 ? "too few" : "cut off");
  expect_error(file + std::string(64, '\0'), "byte 16");
  expect_error(with(file, 0, 'x'), "magic");
  expect_error(with(file, 8, uint32_t(1)), "version 1", Code::unsupported);
  expect_error(with(file, 12, uint32_t(0)), "0 sections");
  expect_error(with(file, 12, uint32_t(17)), "17 sections");
  expect_error(with(file, 16, uint64_t(1) << 60), "byte 16");
  expect_error(with(file, 24, uint32_t(1)), "CRC of the section table");
  expect_error(with(file, 28, 'x'), "byte 28");
  expect_error(with(file, 100, char(file[100] ^ 1)), "CRC of section PROG");
  expect_error(container({{"META", "{}"}}), "no program", Code::invalid);
  expect_error(container({{"PROG", payload}, {"PROG", payload}}), "twice");
  expect_error(container({{"prog", payload}}), "capital letters");
  expect_error("", "too few");

  const auto resealed = [&](size_t entry_offset, uint64_t value) {  // a changed section table with a right CRC
    std::string changed = with(container({{"PROG", payload}, {"META", "{}"}}), entry_offset, value);
    return with(changed, 24, wl::crc32(changed.data() + 32, 64));
  };
  expect_error(resealed(32 + 8, 65), "multiple of 64");
  expect_error(resealed(32 + 8, 0), "multiple of 64");
  expect_error(resealed(32 + 8, uint64_t(1) << 63), "inside the file");
  expect_error(resealed(32 + 16, UINT64_MAX), "inside the file");
  expect_error(resealed(64 + 8, 128), "after the previous one");
  expect_error(resealed(32 + 24, 1), "must be 0");
}

void test_program_tables() {
  const std::string payload = small_net().payload();
  const auto expect = [&](const std::string& changed, const char* part, Code code = Code::corrupt) {
    expect_error(container({{"PROG", changed}}), part, code);
  };
  const size_t tensors = 128, slots = tensors + 9 * 120, steps = slots + 8;
  expect("", "its header alone");
  expect(payload.substr(0, 127), "its header alone");
  for (size_t size = 128; size < payload.size(); ++size) expect(payload.substr(0, size), "byte");
  expect(payload + std::string(64, '\0'), "do not make up");
  expect(with(payload, 0, uint32_t(9)), "program version 9", Code::unsupported);
  expect(with(payload, 4, 'x'), "must be 0");
  expect(with(payload, 8, int64_t(-1)), "planned batch");
  expect(with(payload, 16, int64_t(65)), "for buffer arena");
  expect(with(payload, 16, int64_t(1) << 41), "at most 2^40");
  expect(with(payload, 72, uint32_t(-1)), "tensors");
  expect(with(payload, 72, uint32_t(1000000)), "do not make up");
  expect(with(payload, 76, uint32_t(5)), "behind the last step");
  expect(with(payload, 76, uint32_t(7)), "cut off");
  expect(with(payload, 80, uint32_t(65537)), "input");
  expect(with(payload, 88, uint64_t(0)), "name table");
  expect(with(payload, 96, uint64_t(-8)), "step table");
  expect(with(payload, 127, 'x'), "must be 0");
  expect(with(payload, tensors, uint8_t(7)), "dtype 7");
  expect(with(payload, tensors + 1, uint8_t(7)), "rank 7");
  expect(with(payload, tensors + 2, uint8_t(9)), "buffer 9");
  expect(with(payload, tensors + 3, uint8_t(2)), "flags 2");
  expect(with(payload, tensors + 4, uint32_t(2)), "no UTF-8 name");
  expect(with(payload, tensors + 4, uint32_t(-1)), "no UTF-8 name");
  expect(with(payload, tensors + 16, int64_t(0)), "extent 0");
  expect(with(payload, tensors + 24, (int64_t(1) << 40) + 1), "extent 1099511627777");
  expect(with(payload, tensors + 32, int64_t(1)), "on axis 2 of 2");
  expect(with(payload, tensors + 64, int64_t(-1)), "stride -1");
  expect(with(payload, tensors + 112, __builtin_nanf("")), "scale");
  expect(with(payload, slots, uint32_t(9)), "slot 0");
  expect(with(payload, steps, uint16_t(0)), "unknown opcode 0", Code::unsupported);
  expect(with(payload, steps + 2, uint8_t(9)), "9 inputs");
  expect(with(payload, steps + 3, uint8_t(5)), "5 outputs");
  expect(with(payload, steps + 4, uint8_t(25)), "25 attributes");
  expect(with(payload, steps + 5, uint8_t(4)), "entry 4");
  expect(with(payload, steps + 6, uint8_t(1)), "must be 0");
  expect(with(payload, steps + 8, uint32_t(-2)), "no UTF-8 name");
  expect(with(payload, steps + 16, uint32_t(9)), "operand 0 is tensor 9");
  const size_t binary = steps + 24;  // the second step: two inputs, an output, padding, an attribute
  expect(with(payload, binary + 16 + 12, 'x'), "padding");
  expect(with(payload, binary + 32, uint16_t(999)), "attribute 999");
  expect(with(payload, binary + 34, uint8_t(1)), "attribute 16 of kind 1");
  expect(with(payload, binary + 36, uint8_t(1)), "attribute 16");
}

// What only the verifier sees.
void test_verifier() {
  enum { x, w, pw, pw_rows, b_rows, t, y, first, g };  // the tensors of small_net
  enum { prepare, scale, shift, relu, grad, update };  // its steps
  expect_refused([](ProgramSpec& p) { p.tensors[t].offset = 64; }, "reaches outside the 128 bytes of arena");
  expect_refused([](ProgramSpec& p) { p.tensors[t].offset = -4; }, "reaches outside");
  expect_refused([](ProgramSpec& p) { p.tensors[first].offset = 2; }, "reaches outside");
  expect_refused([](ProgramSpec& p) { p.tensors[first].offset = INT64_MAX - 3; }, "reaches outside");
  expect_refused([](ProgramSpec& p) { p.tensors[first].strides = {int64_t(1) << 40}; }, "reaches outside");
  expect_refused(
      [](ProgramSpec& p) {
        p.tensors[b_rows].dims = {8, int64_t(1) << 40}, p.tensors[b_rows].strides = {0, 0};
      },
      "2^40 elements");
  expect_refused([](ProgramSpec& p) { p.tensors[t].dims[0] = 4; }, "is not the planned batch");
  expect_refused([](ProgramSpec& p) { p.batch = 0; }, "is not the planned batch");
  expect_refused([](ProgramSpec& p) { p.tensors[x].dims[0] = 1; }, "is not the planned batch");
  expect_refused([](ProgramSpec& p) { p.tensors[x].strides = {8, 1}; }, "dense");
  expect_refused([](ProgramSpec& p) { p.tensors[x].offset = slot_at(0, 4); }, "dense");
  expect_refused([](ProgramSpec& p) { p.tensors[x].offset = slot_at(1); }, "name this slot");
  expect_refused([](ProgramSpec& p) { p.inputs = {y}; }, "in buffer input");
  expect_refused([](ProgramSpec& p) { p.tensor({"v", Buffer::input, slot_at(1), {8, 4}, true, DType::f32, {}}); }, "no input slot 1");
  expect_refused([](ProgramSpec& p) { p.tensor({"v", Buffer::input, slot_at(0), {8, 4}, false, DType::f32, {}}); }, "outside the array");
  expect_refused([](ProgramSpec& p) { p.tensor({"v", Buffer::input, slot_at(0, 8), {8, 4}, true, DType::f32, {}}); }, "outside the array");
  expect_refused([](ProgramSpec& p) { p.tensor({"v", Buffer::input, slot_at(0), {8, 2}, true, DType::f32, {5, 1}}); }, "outside the array");
  ProgramSpec view = small_net();
  view.tensor({"v", Buffer::input, slot_at(0, 8), {8, 2}, true, DType::f32, {4, 1}});
  CHECK(bool(load(file_of(view))));

  expect_refused([](ProgramSpec& p) { p.steps[scale].out = {x}; }, "must not write");
  expect_refused([](ProgramSpec& p) { p.steps[grad].out = {w}; }, "lies in params, which entry grad must not write");
  expect_refused([](ProgramSpec& p) { p.steps[grad].entry = wl::kForward; }, "lies in grads");
  expect_refused([](ProgramSpec& p) { p.steps[prepare].entry = wl::kForward; }, "lies in prepared");
  expect_refused([](ProgramSpec& p) { p.tensors[t].strides = {0, 1}; }, "share storage");
  expect_refused([](ProgramSpec& p) { p.steps[scale].entry = wl::kPrepare; }, "entry prepare has no batch");
  const auto shifted = [](ProgramSpec& p) {  // t one element further: overlaps itself, but is not the same storage
    p.bytes[0] = 192;
    p.steps[shift].out = {p.tensor({"u", Buffer::arena, 4, {8, 4}, true, DType::f32, {}})};
  };
  expect_refused([](ProgramSpec& p) { p.steps[grad].in = {g}; }, "cannot work in place");
  expect_refused(shifted, "overlap, but are not the same storage");
  expect_refused([](ProgramSpec& p) { p.tensors[pw_rows].batch = false; }, "disagree about which axis is the batch", Code::invalid);
  expect_refused(
      [](ProgramSpec& p) {
        p.steps[relu].attrs = {};
        p.steps[relu].in = {};
      },
      "unary at 'relu'", Code::invalid);
  expect_refused([](ProgramSpec& p) { p.steps[relu].attrs.push_back(p.steps[relu].attrs[0]); }, "occurs twice");
  expect_refused([](ProgramSpec& p) { p.steps[update].attrs[0].f = __builtin_inf(); }, "not finite");
  expect_refused([](ProgramSpec& p) { p.steps[update].path = "\xff"; }, "no UTF-8 name");

  // Columns of one matrix do not overlap, although their ranges do.
  ProgramSpec columns = small_net();
  columns.bytes[0] = 8 * 8 * 4 + 64;
  columns.tensors[t].strides = {8, 1};
  const int right = columns.tensor({"right", Buffer::arena, 0, {8, 4}, true, DType::f32, {8, 1}});
  columns.steps[shift].out = {right};
  for (const int64_t begin : {0, 24}) {  // the matrix need not begin at a multiple of its rows' length
    columns.tensors[t].offset = begin;
    columns.tensors[size_t(right)].offset = begin + 16;
    const Status status = load(file_of(columns));
    CHECK(bool(status), "%s", status.text);
    for (const int64_t off : {-4, 4}) {  // into the columns of the same row, into those of the next
      columns.tensors[size_t(right)].offset = begin + 16 + off;
      expect_error(file_of(columns), "overlap");
    }
  }
}

void test_arrays() {
  const std::string good = arrays({{"a", {2, 2}, {1, 2, 3, 4}}, {"scalar", {}, {5}}});
  const auto read = [](const std::string& bytes) {
    wl::Section section;
    std::unique_ptr<char[]> copy(new char[bytes.size() + 1]);
    memcpy(copy.get(), bytes.data(), bytes.size());
    section.data = copy.get();
    section.size = bytes.size();
    wl::ArrayReader reader(section);
    bool done = false;
    float sum = 0;
    while (!done) {
      wl::NamedArray array;
      if (!reader.next(&array, &done)) return -1.0f;
      if (!done) sum += reinterpret_cast<const float*>(array.data)[0];
    }
    return sum;
  };
  CHECK(read(good) == 6);
  for (size_t size = 0; size < good.size(); ++size) CHECK(read(good.substr(0, size)) == -1, "cut to %zu", size);
  CHECK(read(good + "x") == -1);
  Random random(3);
  for (int i = 0; i < 2000; ++i) {
    std::string bad = good;
    bad[size_t(random.integer(0, int64_t(bad.size()) - 1))] = char(random.next());
    read(bad);  // must not crash
  }
}

// Every single-byte change of a program under a right CRC is either refused with a text or still a program.
void test_flips() {
  const std::string payload = small_net().payload();
  for (size_t at = 0; at < payload.size(); ++at)
    for (int flip : {0x01, 0x80, 0xff}) {
      const Status status = load(container({{"PROG", with(payload, at, char(payload[at] ^ flip))}}));
      CHECK(status || status.text[0], "byte %zu", at);
    }
}

void test_utf8() {
  const auto valid = [](const std::string& s) { return wl::valid_utf8(s.data(), s.size()); };
  CHECK(valid("") && valid("a.b") && valid("\xc3\xa4") && valid("\xe2\x82\xac") && valid("\xf0\x9f\x98\x80"));
  for (const char* bad : {"\x80", "\xc3", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "a\xff"})
    CHECK(!valid(bad));
  CHECK(!valid(std::string(1, '\0')));
}

void test_crc32() {
  CHECK(wl::crc32("123456789", 9) == 0xCBF43926u);
  const std::string text = "The quick brown fox jumps over the lazy dog";
  CHECK(wl::crc32(text.data(), text.size()) == 0x414FA339u);
  for (size_t cut = 0; cut <= text.size(); ++cut)
    CHECK(wl::crc32(text.data() + cut, text.size() - cut, wl::crc32(text.data(), cut)) == 0x414FA339u);
}

}  // namespace

int main() {
  test_good();
  test_container();
  test_program_tables();
  test_verifier();
  test_arrays();
  test_flips();
  test_utf8();
  test_crc32();
  return finish();
}
