// Compiled once per ISA: the one table of this level. Constant-initialised; holds no code.
#include "kernels/kernels.h"

#define WL_STRING2(x) #x
#define WL_STRING(x) WL_STRING2(x)

namespace wl {
namespace WL_ISA {
#define WL_FAMILY(name, Type) extern const Type name;
#include "kernels/families.inc"
#undef WL_FAMILY

extern const Kernels table;
const Kernels table = {
    WL_STRING(WL_ISA),
    WL_VECTOR_BYTES / 4,
#define WL_FAMILY(name, Type) &name,
#include "kernels/families.inc"
#undef WL_FAMILY
};
}  // namespace WL_ISA
}  // namespace wl
