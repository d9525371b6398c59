// classes Buffer and Instance.
#include <time.h>

#include <cstring>
#include <mutex>
#include <new>
#include <vector>

#include "block.h"
#include "program.h"
#include "runtime/instance.h"
#include "runtime/threads.h"

namespace wl_py {
namespace {

// ---- Buffer -------------------------------------------------------------------------------------------------------------------------

py::object buffer_view(const py::object& self, int64_t offset, const py::tuple& shape, const std::string& dtype, bool writable) {
  const Block& block = *self.cast<Block*>();
  const wl::DType type = dtype_named(dtype);
  const int64_t item = int64_t(wl::dtype_size(type));
  int64_t bytes = item;
  std::vector<py::ssize_t> dims;
  bool fits = offset >= 0 && offset % item == 0;
  for (const auto& extent : shape) {
    dims.push_back(extent.cast<py::ssize_t>());
    fits = fits && dims.back() >= 0 && !__builtin_mul_overflow(bytes, int64_t(dims.back()), &bytes);
  }
  if (!fits || offset > int64_t(block.bytes) || bytes > int64_t(block.bytes) - offset)
    throw py::value_error("a view at byte " + std::to_string(offset) + " of " + dtype + " and shape " + py::str(shape).cast<std::string>() +
                          " does not fit into a buffer of " + std::to_string(block.bytes) + " bytes");
  py::array array(numpy_dtype(type), dims, block.data + offset, self);
  if (!writable) array.attr("setflags")(py::arg("write") = false);
  return array;
}

// ---- interrupts ---------------------------------------------------------------------------------------------------------------------

// Replaces the signal check in tests; null otherwise. Lives until the process ends.
py::object& stop_hook() {
  static auto* hook = new py::object;
  return *hook;
}

// Asked by the executor between two steps, on the thread that called run() and without the GIL: every 50 ms it looks for signals.
struct StopCheck {
  PyThreadState* thread = nullptr;  // of the caller, while the GIL is released
  int64_t last = 0;
  bool hooked = false;

  static int64_t now_ms() {
    timespec t;
#ifdef CLOCK_MONOTONIC_COARSE
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
#else
    clock_gettime(CLOCK_MONOTONIC, &t);
#endif
    return int64_t(t.tv_sec) * 1000 + t.tv_nsec / 1000000;
  }

  static bool ask(void* context) {
    auto& self = *static_cast<StopCheck*>(context);
    if (!self.hooked) {
      const int64_t now = now_ms();
      if (now - self.last < 50) return false;
      self.last = now;
    }
    PyEval_RestoreThread(self.thread);
    bool stop;
    if (self.hooked) {
      try {
        const py::object answer = stop_hook()();
        stop = PyObject_IsTrue(answer.ptr()) != 0;  // -1 with an error set: stop with it
        if (stop && !PyErr_Occurred()) PyErr_SetString(PyExc_KeyboardInterrupt, "stopped between two steps");
      } catch (py::error_already_set& error) {
        error.restore();
        stop = true;
      }
    } else {
      stop = PyErr_CheckSignals() != 0;
    }
    self.thread = PyEval_SaveThread();
    return stop;
  }
};

// ---- Instance -----------------------------------------------------------------------------------------------------------------------

constexpr unsigned char kCanary = 0xA5;
constexpr int kFewSlots = 32;  // up to so many arrays are held on the stack

class InstanceHandle {
 public:
  InstanceHandle(ProgramPtr program, BlockPtr params, BlockPtr grads, BlockPtr state, BlockPtr opt, const py::object& isa, int threads)
      : program_(std::move(program)),
        shared_{std::move(params), std::move(grads), std::move(state), std::move(opt)},
        follows_(threads == 0) {
    const wl::Program& p = *program_->program;
    const wl::Kernels& kernels = kernels_of(isa);
    threads = threads_of(threads);
    const wl::MemoryNeed need = wl::program_memory(p, kernels, threads);
    wl::InstanceMemory memory;
    const wl::Buffer kinds[4] = {wl::Buffer::params, wl::Buffer::grads, wl::Buffer::state, wl::Buffer::opt};
    char** const places[4] = {&memory.params, &memory.grads, &memory.state, &memory.opt};
    for (int i = 0; i < 4; ++i) {
      const int64_t bytes = p.bytes[int(kinds[i])];
      if (!shared_[i] && bytes == 0) continue;
      const int64_t got = shared_[i] ? int64_t(shared_[i]->bytes) : 0;
      if (got < bytes)
        throw py::value_error(std::string("Instance: the program needs ") + std::to_string(bytes) + " bytes of " + wl_buffer_names[i] +
                              ", got " + std::to_string(got));
      *places[i] = shared_[i]->data;
    }
    arena_ = std::make_shared<Block>(need.arena);
    workspace_ = std::make_shared<Block>(need.workspace);
    prepared_ = std::make_shared<Block>(need.prepared);
    memory.arena = arena_->data;
    memory.workspace = workspace_->data;
    memory.prepared = prepared_->data;
    raise_unless_good(wl::instance_create(p, kernels, threads, memory, &instance_));
  }
  ~InstanceHandle() { wl::instance_free(instance_); }
  InstanceHandle(const InstanceHandle&) = delete;
  InstanceHandle& operator=(const InstanceHandle&) = delete;

  void run(unsigned entries, PyObject* inputs, PyObject* outputs, int64_t n, PyObject* scalars, PyObject* step_seconds,
           PyObject* combining_seconds);
  PyObject* call(PyObject* x);
  py::list new_outputs(int64_t n) const;
  size_t arena_high_water();

 private:
  static constexpr const char* wl_buffer_names[4] = {"params", "grads", "state", "opt"};

  void execute(wl::RunRequest& request);

  ProgramPtr program_;
  BlockPtr shared_[4], arena_, workspace_, prepared_;
  wl::Instance* instance_ = nullptr;
  bool follows_;         // of num_threads(), where that is less than at creation
  bool canary_ = false;  // the arena was filled with kCanary
  std::mutex mutex_;
  int fork_generation_ = wl::fork_generation();
};

// Runs without the GIL and one call at a time; raises what the run came to.
void InstanceHandle::execute(wl::RunRequest& request) {
  if (follows_) request.threads = num_threads();
  StopCheck check;
  check.hooked = bool(stop_hook());
  check.last = StopCheck::now_ms();
  request.stop = StopCheck::ask;
  request.stop_context = &check;
  if (fork_generation_ != wl::fork_generation()) {  // another thread may have held the mutex; it stayed in the parent
    new (&mutex_) std::mutex;
    fork_generation_ = wl::fork_generation();
  }
  check.thread = PyEval_SaveThread();
  mutex_.lock();
  const wl::Status status = wl::instance_run(instance_, request);
  mutex_.unlock();
  PyEval_RestoreThread(check.thread);
  if (PyErr_Occurred()) throw py::error_already_set();
  raise_unless_good(status);
}

// Addresses of the arrays of one run; keeps the arrays alive meanwhile.
class BoundArrays {
 public:
  BoundArrays(PyObject* given, const char* kind, const wl::Program& p, const int* slots, int n_slots)
      : given_(py::reinterpret_steal<py::object>(PySequence_Tuple(given))), kind_(kind), program_(p), slots_(slots), n_slots_(n_slots) {
    if (!given_) throw py::error_already_set();
    if (PyTuple_GET_SIZE(given_.ptr()) != n_slots)
      throw py::value_error("the program has " + std::to_string(n_slots) + " " + kind + " slots, got " +
                            std::to_string(PyTuple_GET_SIZE(given_.ptr())) + " arrays");
    if (n_slots > kFewSlots) many_.resize(size_t(n_slots));
  }
  // The leading extent of the first array that has the batch; 0 when none has.
  int64_t batch() const {
    ArrayView view;
    for (int s = 0; s < n_slots_; ++s)
      if (program_.tensors[slots_[s]].batch && view_array(item(s), &view) && view.rank > 0) return view.dims[0];
    return 0;
  }
  void check(int64_t n, bool written) {
    for (int s = 0; s < n_slots_; ++s) {
      ArrayView view;
      const wl::Tensor& slot = program_.tensors[slots_[s]];
      if (!view_array(item(s), &view) || !fits_slot(view, slot, n))
        raise_misfit(item(s), kind_, s, program_.tensor_names[slots_[s]], slot, n);
      if (written && !view.writable)
        throw py::value_error(std::string(kind_) + " " + std::to_string(s) + " ('" + program_.tensor_names[slots_[s]] + "') is read-only");
      addresses()[s] = view.data;
    }
  }
  void** addresses() { return many_.empty() ? few_ : many_.data(); }
  PyObject* item(int s) const { return PyTuple_GET_ITEM(given_.ptr(), s); }
  int size() const { return n_slots_; }
  int64_t bytes(int s, int64_t n) const {
    const wl::Tensor& t = program_.tensors[slots_[s]];
    const int64_t all = t.elements() * int64_t(wl::dtype_size(t.dtype));
    return t.batch ? all / t.dims[0] * n : all;
  }

 private:
  py::object given_;
  const char* kind_;
  const wl::Program& program_;
  const int* slots_;
  int n_slots_;
  void* few_[kFewSlots];
  std::vector<void*> many_;
};

// An output array must share no byte with any other array of the run.
void check_overlap(BoundArrays& inputs, BoundArrays& outputs, int64_t n) {
  for (int o = 0; o < outputs.size(); ++o) {
    const char* begin = static_cast<const char*>(outputs.addresses()[o]);
    const char* end = begin + outputs.bytes(o, n);
    const auto overlaps = [&](BoundArrays& other, int s) {
      const char* b = static_cast<const char*>(other.addresses()[s]);
      return b < end && begin < b + other.bytes(s, n);
    };
    for (int s = 0; s < inputs.size(); ++s)
      if (overlaps(inputs, s)) throw py::value_error("output " + std::to_string(o) + " shares memory with input " + std::to_string(s));
    for (int s = 0; s < o; ++s)
      if (overlaps(outputs, s)) throw py::value_error("output " + std::to_string(o) + " shares memory with output " + std::to_string(s));
  }
}

void check_vector(PyObject* object, const char* what, char kind, size_t least, bool written, char** data) {
  const auto misfit = [&] {
    return py::value_error(std::string(what) + " must be a C-contiguous" + (written ? ", writable" : "") + " array of " +
                           (kind == 'f' ? "float64" : "int64") + " with at least " + std::to_string(least) + " values");
  };
  ArrayView view;
  if (!view_array(object, &view) || view.rank != 1 || !view.contiguous || size_t(view.dims[0]) < least || (written && !view.writable))
    throw misfit();
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (array.itemsize() != 8 || array.dtype().kind() != kind) throw misfit();
  *data = view.data;
}

void InstanceHandle::run(unsigned entries, PyObject* inputs, PyObject* outputs, int64_t n, PyObject* scalars, PyObject* step_seconds,
                         PyObject* combining_seconds) {
  const wl::Program& p = *program_->program;
  wl::RunRequest request;
  request.entries = entries;
  char* slots = nullptr;
  char *seconds = nullptr, *combining = nullptr;
  if (scalars != Py_None) check_vector(scalars, "scalars", 'i', wl::kScalarSlots, false, &slots);
  if (step_seconds != Py_None) check_vector(step_seconds, "step_seconds", 'f', size_t(p.n_steps), true, &seconds);
  if (combining_seconds != Py_None) check_vector(combining_seconds, "combining_seconds", 'f', size_t(p.n_steps), true, &combining);
  wl::Scalar values[wl::kScalarSlots] = {};
  if (slots) std::memcpy(values, slots, sizeof values);
  request.scalars = values;
  request.step_seconds = reinterpret_cast<double*>(seconds);
  request.combining_seconds = reinterpret_cast<double*>(combining);
  if (entries == 1u << wl::kPrepare) return execute(request);

  BoundArrays in(inputs, "input", p, p.input_tensors, p.n_inputs), out(outputs, "output", p, p.output_tensors, p.n_outputs);
  if (p.batch > 0) {
    if (n == 0) n = in.batch();
    if (n == 0) n = out.batch();
    if (n < 1 || n > p.batch)
      throw py::value_error("a batch of " + std::to_string(n) + "; this program was planned for 1 to " + std::to_string(p.batch));
  }
  in.check(n, false);
  out.check(n, true);
  check_overlap(in, out, n);
  request.n = n;
  request.inputs = in.addresses();
  request.outputs = out.addresses();
  execute(request);
}

// A new array for an output of a run on n samples.
py::object new_output(const wl::Tensor& slot, int64_t n) {
  int64_t dims[wl::kMaxRank];
  for (int d = 0; d < slot.rank; ++d) dims[d] = d == 0 && slot.batch ? n : slot.dims[d];
  return new_array(slot.dtype, slot.rank, dims);
}

py::list InstanceHandle::new_outputs(int64_t n) const {
  const wl::Program& p = *program_->program;
  if (n < 1) throw py::value_error("new_outputs: a batch of " + std::to_string(n));
  py::list outputs(p.n_outputs);
  for (int i = 0; i < p.n_outputs; ++i) outputs[size_t(i)] = new_output(p.tensors[p.output_tensors[i]], n);
  return outputs;
}

// A new reference: the output, or None when x needs converting first.
PyObject* InstanceHandle::call(PyObject* x) {
  const wl::Program& p = *program_->program;
  if (p.n_inputs != 1 || p.n_outputs != 1)
    throw py::value_error("call: the program has " + std::to_string(p.n_inputs) + " inputs and " + std::to_string(p.n_outputs) +
                          " outputs; call() is for one and one, use run()");
  const wl::Tensor& slot = p.tensors[p.input_tensors[0]];
  const wl::Tensor& result = p.tensors[p.output_tensors[0]];
  ArrayView view;
  if (!view_array(x, &view)) Py_RETURN_NONE;
  const int64_t n = slot.batch && view.rank > 0 ? view.dims[0] : p.batch;
  if ((p.batch > 0 && (n < 1 || n > p.batch)) || !fits_slot(view, slot, n)) Py_RETURN_NONE;
  py::object y = new_output(result, n);
  const void* inputs[1] = {view.data};
  void* outputs[1] = {py::detail::array_proxy(y.ptr())->data};
  wl::RunRequest request;
  request.n = n;
  request.inputs = inputs;
  request.outputs = outputs;
  execute(request);
  return y.release().ptr();
}

size_t InstanceHandle::arena_high_water() {
  const py::gil_scoped_release release;  // whoever holds the mutex may be asking for the GIL
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!canary_) {
    std::memset(arena_->data, kCanary, arena_->bytes);
    canary_ = true;
  }
  size_t used = arena_->bytes;
  while (used > 0 && static_cast<unsigned char>(arena_->data[used - 1]) == kCanary) --used;
  return used;
}

// ---- Instance.run and Instance.call as plain C methods: no argument tuple, no allocation, a third of the time
// ------------------------------

template <class Body>
PyObject* translating_exceptions(Body body) {
  try {
    return body();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

InstanceHandle& handle_of(PyObject* self) {
  return *reinterpret_cast<py::detail::instance*>(self)->get_value_and_holder().value_ptr<InstanceHandle>();
}

PyObject* call_method(PyObject* self, PyObject* x) {
  return translating_exceptions([&] { return handle_of(self).call(x); });
}

constexpr const char* kRunParameters[] = {"entries", "inputs", "outputs", "n", "scalars", "step_seconds", "combining_seconds"};
constexpr int kRunCount = 7, kRunRequired = 3;

// Puts positional and keyword arguments where they belong; TypeError when they do not fit.
void place_arguments(PyObject* const* arguments, Py_ssize_t n_positional, PyObject* keywords, PyObject* (&placed)[kRunCount]) {
  const auto misfit = [](const std::string& text) {
    return py::type_error("Instance.run(entries, inputs, outputs, n=0, scalars=None, step_seconds=None, combining_seconds=None): " + text);
  };
  if (n_positional > kRunCount) throw misfit("too many arguments");
  for (Py_ssize_t i = 0; i < n_positional; ++i) placed[i] = arguments[i];
  const Py_ssize_t n_keywords = keywords ? PyTuple_GET_SIZE(keywords) : 0;
  for (Py_ssize_t k = 0; k < n_keywords; ++k) {
    int place = 0;
    while (place < kRunCount && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, k), kRunParameters[place]) != 0) ++place;
    if (place == kRunCount || placed[place]) throw misfit("an unknown or repeated keyword");
    placed[place] = arguments[n_positional + k];
  }
  for (int i = 0; i < kRunRequired; ++i)
    if (!placed[i]) throw misfit(std::string(kRunParameters[i]) + " is missing");
}

int64_t integer_argument(PyObject* value, int64_t otherwise) {
  if (!value) return otherwise;
  const long long number = PyLong_AsLongLong(value);
  if (number == -1 && PyErr_Occurred()) throw py::error_already_set();
  return number;
}

PyObject* run_method(PyObject* self, PyObject* const* arguments, Py_ssize_t n_positional, PyObject* keywords) {
  return translating_exceptions([&]() -> PyObject* {
    PyObject* placed[kRunCount] = {};
    place_arguments(arguments, n_positional, keywords, placed);
    const int64_t entries = integer_argument(placed[0], 0), n = integer_argument(placed[3], 0);
    if (entries < 1 || entries > wl::kAllEntries) throw py::value_error("entries is " + std::to_string(entries) + ", must be 1 to 15");
    const auto optional = [&](int i) { return placed[i] ? placed[i] : Py_None; };
    handle_of(self).run(unsigned(entries), placed[1], placed[2], n, optional(4), optional(5), optional(6));
    Py_RETURN_NONE;
  });
}

PyMethodDef method_definitions[] = {
    {"call", call_method, METH_O,
     "The quick way for one input and one output: forward on x into a new array; None when x needs converting first."},
    {"run", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run_method)), METH_FASTCALL | METH_KEYWORDS,
     "run(entries, inputs, outputs, n=0, scalars=None, step_seconds=None, combining_seconds=None): runs the entries whose bits are set."},
};

}  // namespace

void bind_instance(py::module_& m) {
  py::class_<Block, BlockPtr>(m, "Buffer")
      .def(py::init<int64_t>(), py::arg("nbytes"))
      .def_property_readonly("nbytes", [](const Block& self) { return self.bytes; })
      .def("view", &buffer_view, py::arg("offset"), py::arg("shape"), py::arg("dtype"), py::arg("writable") = false);

  py::class_<InstanceHandle> instance(m, "Instance");
  instance
      .def(py::init<ProgramPtr, BlockPtr, BlockPtr, BlockPtr, BlockPtr, py::object, int>(), py::arg("program"),
           py::arg("params") = py::none(), py::arg("grads") = py::none(), py::arg("state") = py::none(), py::arg("opt") = py::none(),
           py::arg("isa") = py::none(), py::arg("threads") = 0)
      .def("new_outputs", &InstanceHandle::new_outputs, py::arg("n") = 1)
      .def_property_readonly("arena_high_water", &InstanceHandle::arena_high_water);
  for (PyMethodDef& definition : method_definitions) {
    auto method = py::reinterpret_steal<py::object>(PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(instance.ptr()), &definition));
    if (!method) throw py::error_already_set();
    instance.attr(definition.ml_name) = method;
  }

  m.attr("MOST_KEPT") = kMostKept;
  m.def("kept_bytes", &kept_bytes);
  m.def("drop_kept", &drop_kept);
  m.def(
      "stop_requested_hook", [](const py::object& hook) { stop_hook() = hook.is_none() ? py::object() : hook; }, py::arg("hook"));
}

}  // namespace wl_py
