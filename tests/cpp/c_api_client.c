/* What somebody who embeds wiesel writes: strict C99, static blocks, no heap. Called by test_c_api.cc with an exported file. */
#include <stdio.h>
#include <string.h>

#include "wiesel/wiesel.h"

#define BLOCK 65536
#define ALIGNED __attribute__((aligned(64)))

static unsigned char program_block[BLOCK] ALIGNED, instance_block[BLOCK] ALIGNED, arena[BLOCK] ALIGNED, workspace[BLOCK] ALIGNED,
    prepared[BLOCK] ALIGNED, params[BLOCK] ALIGNED, state[BLOCK] ALIGNED, grads[BLOCK] ALIGNED, opt[BLOCK] ALIGNED;

static int failed(const char* what, const wl_error* error) {
  printf("c_api_client: %s: %s\n", what, error->text);
  return 1;
}

static int always(void* context) {
  ++*(int*)context;
  return 1;
}

/* Runs the network on n rows of x with the given number of threads; 0 when all went well. */
int c_api_run(const void* file, size_t size, int threads, int64_t n, const float* x, float* y) {
  wl_error error = {WL_OK, ""};
  wl_program* program = NULL;
  wl_instance* instance = NULL;
  wl_memory need;
  wl_blocks blocks;
  wl_run run;
  wl_tensor_info info;
  size_t bytes = 0;
  int asked = 0;
  const void* inputs[1];
  void* outputs[1];
  inputs[0] = x;
  outputs[0] = y;

  if (wl_program_size(file, size, &bytes, &error) != WL_OK || bytes > BLOCK) return failed("size", &error);
  if (wl_program_load(file, size, program_block, bytes - 1, &program, &error) != WL_NO_MEMORY) return failed("a small block", &error);
  if (wl_program_load(file, size, program_block, bytes, &program, &error) != WL_OK) return failed("load", &error);
  if (wl_program_batch(program) != 8 || wl_program_inputs(program) != 1 || wl_program_outputs(program) != 1) return failed("counts", &error);
  if (wl_program_input(program, 0, &info, &error) != WL_OK) return failed("input", &error);
  if (strcmp(info.name, "x") != 0 || info.dtype != WL_F32 || info.rank != 2 || info.extents[0] != 8 || info.extents[1] != 4 || !info.batch)
    return failed("what the input is", &error);
  if (wl_program_output(program, 0, &info, &error) != WL_OK || strcmp(info.name, "y") != 0) return failed("output", &error);
  if (wl_program_output(program, 1, &info, &error) != WL_INVALID || wl_program_output(program, -1, &info, NULL) != WL_INVALID)
    return failed("a slot that is not there", &error);

  if (wl_program_memory(program, "z80", threads, &need, &error) != WL_INVALID) return failed("an unknown instruction set", &error);
  if (wl_program_memory(program, NULL, threads, &need, &error) != WL_OK) return failed("memory", &error);
  if (need.instance > BLOCK || need.arena != 128 || need.workspace > BLOCK || need.prepared != 64 || need.params != 64 || need.state != 0 ||
      need.grads != 64 || need.opt != 0)
    return failed("the sizes", &error);
  blocks.instance = instance_block;
  blocks.arena = arena;
  blocks.workspace = workspace;
  blocks.prepared = prepared;
  blocks.params = params;
  blocks.state = state;
  blocks.grads = grads;
  blocks.opt = opt;
  if (wl_instance_create(program, NULL, threads, &blocks, &instance, &error) != WL_OK) return failed("create", &error);

  memset(&run, 0, sizeof run);
  run.entries = WL_FORWARD;
  run.n = n;
  run.inputs = inputs;
  run.outputs = outputs;
  if (wl_instance_run(instance, &run, &error) != WL_OK) return failed("run", &error);
  run.stop = always;
  run.stop_context = &asked;
  if (wl_instance_run(instance, &run, &error) != WL_INTERRUPTED || asked != 1) return failed("stop", &error);
  run.n = 9;
  if (wl_instance_run(instance, &run, NULL) != WL_INVALID) return failed("a batch too large", &error);
  if (wl_version()[0] == '\0' || wl_isa(0) == NULL || wl_isa(-1) != NULL || wl_isa(99) != NULL || wl_default_threads() < 1)
    return failed("about the machine", &error);
  return 0;
}
