// fuzz_program [rounds = 2000] [seed = 1]: mutates programs that cover every op and gives them to the fuzz target. The same rounds and seed
// do the same on every machine; a crash names its round.
#include <stdio.h>
#include <stdlib.h>

#include "../cpp/harness.h"
#include "../cpp/program_builder.h"

using namespace harness;

long fuzz_loaded();
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

struct Operand {
  std::vector<int64_t> dims;
  DType dtype = DType::f32;
};

// A program of one step, its operands side by side in the arena (params, state and opt where an update wants them). Batch of `batch` where
// the leading extent is 2.
ProgramSpec one_step(Opcode opcode, const std::vector<Operand>& in, const std::vector<Operand>& out, std::vector<AttrSpec> attrs = {},
                     bool batch = true) {
  ProgramSpec p;
  StepSpec step{wl::kForward, opcode, {}, {}, std::move(attrs), "layer"};
  const auto add = [&](const Operand& o) {
    if (o.dims.size() == 1 && o.dims[0] == 0) return -1;
    const bool leads = batch && !o.dims.empty() && o.dims[0] == 2;
    if (leads) p.batch = 2;
    int64_t elements = 1;
    for (int64_t d : o.dims) elements *= d;
    const int id = p.tensor({"t", Buffer::arena, p.bytes[0], o.dims, leads, o.dtype, {}});
    p.bytes[0] += wl::round_up(4 * elements * int64_t(wl::dtype_size(o.dtype)), 64);  // room for an extent to grow
    return id;
  };
  for (const Operand& o : in) step.in.push_back(add(o));
  for (const Operand& o : out) step.out.push_back(add(o));
  p.steps.push_back(step);
  return p;
}

std::vector<ProgramSpec> seeds() {
  using A = AttrKey;
  using K = Opcode;
  const Operand absent{{0}, DType::f32}, scalar{{}, DType::f32}, c{{5}, DType::f32}, sums{{10}, DType::f32}, x{{2, 6, 7, 5}, DType::f32},
      flat{{40}, DType::f32};
  const auto kind = [](auto k) { return attr(A::kind, int(k)); };
  const std::vector<AttrSpec> pool = {attr(A::kernel_h, 2), attr(A::kernel_w, 3), attr(A::stride_h, 2), attr(A::stride_w, 2),
                                      attr(A::pad_right, 1)};
  const Operand pooled{{2, 3, 3, 5}, DType::f32}, index{{2, 3, 3, 5}, DType::u8};
  const std::vector<AttrSpec> conv = {attr(A::stride_h, 1),  attr(A::stride_w, 2),   attr(A::pad_top, 1),    attr(A::pad_left, 1),
                                      attr(A::pad_right, 1), attr(A::pad_bottom, 1), attr(A::dilation_h, 2), attr(A::groups, 1)};
  const Operand w{{3, 3, 5, 4}, DType::f32}, y{{2, 4, 4, 4}, DType::f32}, point{{1, 1, 5, 5}, DType::f32};
  const Operand logits{{2, 5}, DType::f32}, labels{{2}, DType::i32};
  auto with = [](std::vector<AttrSpec> attrs, AttrSpec more) {
    attrs.push_back(more);
    return attrs;
  };
  auto pool_kind = with(pool, kind(wl::PoolKind::average));
  pool_kind.push_back(attr(A::count_padding, 1));

  std::vector<ProgramSpec> all = {
      small_net(4),
      one_step(K::fill, {}, {x}, {attr(A::value, 1.5)}),
      one_step(K::copy, {x}, {x}),
      one_step(K::normalize, {{{2, 6, 7, 5}, DType::u8}, c, c}, {x}),
      one_step(K::unary, {x}, {x}, {kind(wl::UnaryKind::gelu)}),
      one_step(K::unary_bwd, {x, x}, {x}, {kind(wl::UnaryKind::leaky_relu), attr(A::alpha, 0.1)}),
      one_step(K::binary, {x, x}, {x}, {kind(wl::BinaryKind::div)}),
      one_step(K::reduce, {x}, {{{2, 1, 1, 5}, DType::f32}}, {kind(wl::ReduceKind::mean), attr(A::axes, 6)}),
      one_step(K::softmax, {logits}, {logits}, {attr(A::log, 1)}),
      one_step(K::softmax_bwd, {logits, logits}, {logits}, {attr(A::log, 0)}),
      one_step(K::cross_entropy, {logits, labels, absent}, {scalar, logits}, {attr(A::smoothing, 0.1), attr(A::mean, 1)}),
      one_step(K::cross_entropy_bwd, {logits, labels, absent, scalar}, {logits}, {attr(A::smoothing, 0.1), attr(A::mean, 1)}),
      one_step(K::one_hot, {labels}, {logits}),
      one_step(K::dropout, {x}, {x}, {attr(A::rate, 0.5), attr(A::stream, 7)}),
      one_step(K::lrn, {x}, {x}, {attr(A::size, 3), attr(A::alpha, 1e-4), attr(A::beta, 0.75), attr(A::k, 1.0)}),
      one_step(K::lrn_bwd, {x, x, x}, {x}, {attr(A::size, 3), attr(A::alpha, 1e-4), attr(A::beta, 0.75), attr(A::k, 1.0)}),
      one_step(K::bn_stats, {x}, {c, c}),
      one_step(K::bn_apply, {x, c, c, c, c, x}, {x}, {attr(A::eps, 1e-5), attr(A::activation, 1)}),
      one_step(K::bn_bwd, {x, x, c, c, c, c, x}, {x, c, c, x}, {attr(A::eps, 1e-5), attr(A::activation, 1)}),
      one_step(K::bn_bwd, {x, x, c, c, c, c, absent, sums}, {x, c, c, x}, {attr(A::eps, 1e-5), attr(A::activation, 1)}),
      one_step(K::pool_max, {x}, {pooled, index}, pool),
      one_step(K::pool_max_bwd, {pooled, index}, {x}, pool),
      one_step(K::pool_avg, {x}, {pooled}, pool_kind),
      one_step(K::pool_avg_bwd, {pooled}, {x}, pool_kind),
      one_step(K::conv_fwd, {x, w, {{4}, DType::f32}, y}, {y}, with(conv, attr(A::activation, 1))),
      one_step(K::conv_bwd_data, {y, w}, {x}, conv),
      one_step(K::conv_bwd_data, {y, w, x, c, c, c, c}, {x, sums}, with(conv, attr(A::activation, 1))),
      one_step(K::conv_bwd_weights, {x, y}, {w}, conv),
      one_step(K::conv_fwd, {x, point, absent, absent, c, c, c, c}, {x}, {attr(A::in_activation, 1)}),
      one_step(K::conv_bwd_weights, {x, x, c, c, c, c}, {point}, {attr(A::in_activation, 2)}),
      one_step(K::matmul, {{{2, 3, 4}, DType::f32}, {{2, 4, 5}, DType::f32}, c}, {{{2, 3, 5}, DType::f32}}, {attr(A::activation, 1)}),
      one_step(K::sgd_update, {flat, flat, flat, scalar}, {}, {attr(A::momentum, 0.9), attr(A::slot, 8)}),
      one_step(K::sgd_matmul, {{{2, 8}, DType::f32}, {{2, 5}, DType::f32}, flat, flat}, {}, {attr(A::momentum, 0.9), attr(A::slot, 8)}),
      one_step(K::adam_matmul, {{{2, 8}, DType::f32}, {{2, 5}, DType::f32}, flat, flat, flat}, {},
               {attr(A::beta1, 0.9), attr(A::beta2, 0.99), attr(A::slot, 8)}),
      one_step(K::adam_update, {flat, flat, flat, flat, scalar}, {},
               {attr(A::beta1, 0.9), attr(A::beta2, 0.99), attr(A::eps, 1e-8), attr(A::slot, 8)}),
      one_step(K::clip_factor, {flat}, {scalar}, {attr(A::max_norm, 1.0)}),
      one_step(K::accumulate, {flat, flat}, {}),
  };
  // In place: the updates' outputs are their inputs, in buffers that entry update may write.
  for (ProgramSpec& p : all) {
    StepSpec& step = p.steps.back();
    if (p.steps.size() != 1 || !step.out.empty()) continue;
    step.entry = wl::kUpdate;
    const bool product = step.opcode == K::sgd_matmul || step.opcode == K::adam_matmul;
    const size_t last = step.opcode == K::accumulate ? 2 : step.in.size() - !product;  // all but the clip factor
    for (size_t i = product ? 2 : 1; i < last; ++i) step.out.push_back(step.in[i]);
  }
  return all;
}

// Changes that keep a program well-formed more often than not: what the ops' own verify() has to see.
void mutate(ProgramSpec& p, Random& random) {
  const auto pick = [&](auto& list) -> auto& {
    return list[size_t(random.integer(0, int64_t(list.size()) - 1))];
  };
  StepSpec& step = pick(p.steps);
  switch (random.integer(0, 9)) {
    case 0:
    case 1:
    case 2: {  // an extent, wherever it occurs
      const auto& dims = pick(p.tensors).dims;
      if (dims.empty()) break;
      const int64_t from = pick(dims), to = random.integer(0, 1) ? from + random.integer(-1, 1) : random.integer(1, 9);
      for (TensorSpec& t : p.tensors)
        for (int64_t& d : t.dims)
          if (d == from) d = to;
      if (p.batch == from) p.batch = to;
      break;
    }
    case 3: {  // one extent
      auto& dims = pick(p.tensors).dims;
      if (!dims.empty()) pick(dims) = random.integer(1, 9);
      break;
    }
    case 4:
    case 5:
    case 6:
      if (step.attrs.empty()) break;
      if (AttrSpec& a = pick(step.attrs); a.real)
        a.f = double(random.integer(-20, 20)) / 4;
      else
        a.i = random.integer(0, 9) ? random.integer(-2, 12) : int64_t(random.next());
      break;
    case 7: step.attrs.push_back(attr(AttrKey(random.integer(1, 42)), int(random.integer(-1, 9)))); break;
    case 8:
      (random.integer(0, 1) || step.in.empty() ? pick(step.out) : pick(step.in)) = int(random.integer(-1, int64_t(p.tensors.size()) - 1));
      break;
    case 9: pick(p.tensors).dtype = DType(random.integer(0, wl::kDTypeCount - 1)); break;
  }
}

std::string mutate(std::string bytes, Random& random) {
  const int64_t times = random.integer(1, 3);
  for (int64_t i = 0; i < times && !bytes.empty(); ++i) {
    const size_t at = size_t(random.integer(0, int64_t(bytes.size()) - 1)), field = at & ~size_t(7);
    const auto put = [&](int64_t value) { memcpy(&bytes[field], &value, wl::min_of(8, int64_t(bytes.size() - field))); };
    switch (random.integer(0, 9)) {
      case 0: bytes[at] = char(random.next()); break;
      case 1: bytes[at] = char(bytes[at] ^ 1 << random.integer(0, 7)); break;
      case 2: put(random.integer(0, 9)); break;
      case 3: put(int64_t(1) << random.integer(0, 62)); break;
      case 4: put(random.integer(0, 300) * 4); break;
      case 5: put(-random.integer(0, 9)); break;
      case 6: bytes.resize(at); break;
      case 7: bytes.insert(at, size_t(random.integer(1, 16)), char(random.next())); break;
      case 8: bytes[at] = char(bytes[at] + random.integer(-2, 2)); break;
      case 9: bytes.replace(field, 8, bytes.substr(size_t(random.integer(0, int64_t(bytes.size()) - 1)) & ~size_t(7), 8)); break;
    }
  }
  return bytes;
}

void feed(const std::string& bytes) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

}  // namespace

int main(int argc, char** argv) {
  const long rounds = argc > 1 ? atol(argv[1]) : 2000;
  const uint64_t seed = argc > 2 ? uint64_t(atol(argv[2])) : 1;
  const std::vector<ProgramSpec> programs = seeds();
  int refused = 0;
  for (size_t s = 0; s < programs.size(); ++s) {
    const std::string file = file_of(programs[s]);
    wl::Program* program = nullptr;
    const wl::Status status = wl::program_load(file.data(), file.size(), &program);
    if (status) {
      wl::program_free(program);
    } else {
      ++refused;
      printf("seed program %zu does not load: %s\n", s, status.text);
    }
    feed(programs[s].payload());
  }
  for (long round = 0; round < rounds; ++round) {
    if (getenv("WL_FUZZ_VERBOSE")) fprintf(stderr, "round %ld\n", round);
    Random random(seed * 1000003 + uint64_t(round));
    ProgramSpec program = programs[size_t(random.integer(0, int64_t(programs.size()) - 1))];
    const int64_t way = random.integer(0, 9);
    if (way >= 4)
      for (int64_t i = random.integer(1, 3); i > 0; --i) mutate(program, random);
    std::string payload = program.payload();
    if (way < 5) payload = mutate(payload, random);
    if (way == 0) payload = mutate(container({{"PROG", payload}, {"WGHT", arrays({{"w", {4}, {1, 2, 3, 4}}})}}), random);
    feed(payload);
  }
  printf("%zu seed programs, %ld mutations, %ld still programs that ran, no crash\n", programs.size(), rounds,
         fuzz_loaded() - long(programs.size()));
  return refused != 0;
}
