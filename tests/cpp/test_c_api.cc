// The C API, driven by a C99 program (c_api_client.c).
#include "harness.h"
#include "program_builder.h"
#include "wiesel/wiesel.h"

using namespace harness;

extern "C" int c_api_run(const void* file, size_t size, int threads, int64_t n, const float* x, float* y);

namespace {

struct Aligned {  // the bytes of a file at a multiple of 64, ending where the block ends
  Guarded<char> block;
  explicit Aligned(const std::string& bytes) : block(int64_t(bytes.size()), 64) { memcpy(block.data(), bytes.data(), bytes.size()); }
};

const std::vector<float> kWeights = {1, 2, -1, 3};

void test_run() {
  const std::string bytes = container({{"PROG", small_net().payload()}, {"WGHT", arrays({{"other", {2}, {9, 9}}, {"w", {4}, kWeights}})}});
  Aligned file(bytes);
  file.block.read_only();
  for (int threads : {1, 2})
    for (int64_t n : {1, 5, 8}) {
      Guarded<float> x(n * 4), y(n * 4);
      Random random(11);
      fill_integers(x, random);
      CHECK(c_api_run(file.block.data(), bytes.size(), threads, n, x.data(), y.data()) == 0);
      const float shift[4] = {0.5f, -0.5f, 1, -1};
      for (int64_t i = 0; i < n * 4; ++i) {
        const float z = x[i] * kWeights[size_t(i % 4)] + shift[i % 4];
        CHECK(y[i] == (z > 0 ? z : 0));
      }
      CHECK(y.intact());
    }
}

void test_weights_missing() {
  alignas(64) static char program_block[1 << 16], blocks_memory[9][1 << 12];
  for (const std::string& weights : {arrays({}), arrays({{"w", {3}, {1, 2, 3}}}), std::string()}) {
    const std::string payload = small_net().payload();
    const Aligned file(weights.empty() ? container({{"PROG", payload}}) : container({{"PROG", payload}, {"WGHT", weights}}));
    const size_t size = size_t(file.block.size());
    wl_error error;
    size_t bytes = 0;
    wl_program* program = nullptr;
    wl_instance* instance = nullptr;
    CHECK(wl_program_size(file.block.data(), size, &bytes, &error) == WL_OK);
    CHECK(wl_program_load(file.block.data(), size, program_block, sizeof program_block, &program, &error) == WL_OK);
    char(*b)[1 << 12] = blocks_memory;
    const wl_blocks blocks = {b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]};
    CHECK(wl_instance_create(program, nullptr, 1, &blocks, &instance, &error) == WL_INVALID);
    CHECK(strstr(error.text, "no array 'w'"), "%s", error.text);
  }
}

void test_damage() {
  const std::string bytes = container({{"PROG", small_net().payload()}});
  wl_error error;
  size_t need;
  CHECK(wl_program_size(bytes.data(), 10, &need, &error) == WL_CORRUPT && error.status == WL_CORRUPT && error.text[0]);
  std::string damaged = bytes;
  damaged[200] = char(damaged[200] ^ 4);
  CHECK(wl_program_size(damaged.data(), damaged.size(), &need, &error) == WL_CORRUPT);
  const Aligned file(" " + bytes);
  alignas(64) static char program_block[1 << 16];
  wl_program* program = nullptr;
  CHECK(wl_program_load(file.block.data() + 1, bytes.size(), program_block, sizeof program_block, &program, &error) == WL_INVALID &&
        !program);
  CHECK(strstr(error.text, "multiple of 64"), "%s", error.text);
}

}  // namespace

int main() {
  test_run();
  test_weights_missing();
  test_damage();
  return finish();
}
