/* wiesel: runs exported networks. The whole C API, in C99.
 *
 * The library takes no memory by itself: the caller asks for sizes and gives blocks, each beginning at a multiple of 64 bytes.
 * Nothing is to be freed, and blocks may be static arrays. No function prints, aborts, throws or keeps global state.
 *
 *     wl_error error;
 *     size_t bytes;
 *     wl_memory need;
 *     wl_program* program;
 *     wl_instance* instance;
 *     wl_program_size(file, file_size, &bytes, &error);                       // file: the exported bytes, 64-byte aligned
 *     wl_program_load(file, file_size, block, bytes, &program, &error);
 *     wl_program_memory(program, NULL, 1, &need, &error);
 *     wl_blocks blocks = {instance_block, arena_block, ...};                  // of the sizes in `need`
 *     wl_instance_create(program, NULL, 1, &blocks, &instance, &error);
 *     wl_run run = {.entries = WL_FORWARD, .n = 1, .inputs = inputs, .outputs = outputs};
 *     wl_instance_run(instance, &run, &error);
 *
 * A program is immutable and may be shared by threads. An instance is used by one thread at a time.
 */
#ifndef WIESEL_WIESEL_H
#define WIESEL_WIESEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WL_API __attribute__((visibility("default")))

typedef enum wl_status {
  WL_OK = 0,
  WL_INVALID = 1,     /* an argument does not fit */
  WL_CORRUPT = 2,     /* the file is damaged */
  WL_UNSUPPORTED = 3, /* the file is newer than this library */
  WL_NO_MEMORY = 4,   /* a block is too small */
  WL_INTERRUPTED = 5, /* wl_run.stop ended the run */
  WL_STATE = 6        /* calls in the wrong order */
} wl_status;

/* Filled by every function that takes one and does not return WL_OK; may be null. */
typedef struct wl_error {
  wl_status status;
  char text[512];
} wl_error;

typedef enum wl_dtype { WL_F32 = 0, WL_F64 = 1, WL_BF16 = 2, WL_F16 = 3, WL_U8 = 4, WL_I8 = 5, WL_I32 = 6 } wl_dtype;

#define WL_MAX_RANK 6
#define WL_SCALAR_SLOTS 72

typedef struct wl_program wl_program;
typedef struct wl_instance wl_instance;

WL_API const char* wl_version(void);

/* The i-th instruction set that this machine can run, slowest first; null past the last. */
WL_API const char* wl_isa(int i);

/* What OMP_NUM_THREADS says, else what affinity and cgroup quota grant. */
WL_API int wl_default_threads(void);

/* --- programs ------------------------------------------------------------------------------------------------------------------ */

/* Bytes that wl_program_load needs beside the file. Checks the file's frame, checksums included. */
WL_API wl_status wl_program_size(const void* file, size_t file_size, size_t* bytes, wl_error* error);

/* Parses and verifies. The file is read in place: it must outlive the program and not change. `memory` has `bytes` bytes. */
WL_API wl_status wl_program_load(const void* file, size_t file_size, void* memory, size_t bytes, wl_program** program, wl_error* error);

/* One input or output of a program: a dense row-major array. */
typedef struct wl_tensor_info {
  const char* name;
  wl_dtype dtype;
  int rank;
  int64_t extents[WL_MAX_RANK]; /* where `batch` is set, extents[0] is the planned N, and n in a run */
  int batch;
} wl_tensor_info;

WL_API int64_t wl_program_batch(const wl_program* program); /* the planned N; 0 when there is no batch extent */
WL_API int wl_program_inputs(const wl_program* program);
WL_API int wl_program_outputs(const wl_program* program);
WL_API wl_status wl_program_input(const wl_program* program, int slot, wl_tensor_info* info, wl_error* error);
WL_API wl_status wl_program_output(const wl_program* program, int slot, wl_tensor_info* info, wl_error* error);

/* --- instances ----------------------------------------------------------------------------------------------------------------- */

/* Bytes of the blocks that an instance works on. arena, params, state, grads and opt are the same on every machine; workspace
 * depends on the instruction set and on the threads. */
typedef struct wl_memory {
  size_t instance, arena, workspace, prepared, params, state, grads, opt;
} wl_memory;

/* The blocks, in the same order. Null where wl_memory says 0. */
typedef struct wl_blocks {
  void *instance, *arena, *workspace, *prepared, *params, *state, *grads, *opt;
} wl_blocks;

/* `isa` null: the fastest one, or the one that WIESEL_ISA names. `max_threads` 0: wl_default_threads(). */
WL_API wl_status wl_program_memory(const wl_program* program, const char* isa, int max_threads, wl_memory* need, wl_error* error);

/* Copies the file's weights into the blocks params and state and prepares them. The program must outlive the instance. */
WL_API wl_status wl_instance_create(const wl_program* program, const char* isa, int max_threads, const wl_blocks* blocks,
                                    wl_instance** instance, wl_error* error);

/* Entries of a program, run in this order. */
enum { WL_PREPARE = 1, WL_FORWARD = 2, WL_GRAD = 4, WL_UPDATE = 8 };

typedef union wl_scalar {
  int64_t i;
  double f;
} wl_scalar;

typedef struct wl_run {
  unsigned entries;          /* a sum of WL_PREPARE, WL_FORWARD, WL_GRAD, WL_UPDATE */
  int64_t n;                 /* batch extent, 1 ... wl_program_batch() */
  const void* const* inputs; /* one array per slot */
  void* const* outputs;
  const wl_scalar* scalars; /* WL_SCALAR_SLOTS of them for programs that train, else null */
  int threads;              /* at most max_threads; 0: all of them */
  int (*stop)(void*);       /* asked between two steps; not 0 ends the run. May be null */
  void* stop_context;
} wl_run;

/* Allocates nothing. Denormals count as zero inside, on every thread; the caller's floating-point mode is restored. */
WL_API wl_status wl_instance_run(wl_instance* instance, const wl_run* run, wl_error* error);

#ifdef __cplusplus
}
#endif
#endif
