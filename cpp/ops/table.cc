#include "ops/op.h"

namespace wl {

#define WL_OP(number, name) extern const Op op_##name;
#include "ops/ops.inc"
#undef WL_OP

const Op* find_op(uint16_t opcode) {
  switch (opcode) {
#define WL_OP(number, name) \
  case number:              \
    return &op_##name;
#include "ops/ops.inc"
#undef WL_OP
  }
  return nullptr;
}

}  // namespace wl
