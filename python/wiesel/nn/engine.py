"""What runs a module as a net: builds it, keeps its memory, and keeps its programs, one per kind of use and input shape."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from wiesel.graph.ir import BATCH, Graph, Type
from wiesel.nn import structure
from wiesel.nn.parameter import Parameter, State
from wiesel.nn.store import Store
from wiesel.nn.tracing import ModuleTrace, Outputs, input_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wiesel import _core
    from wiesel.nn.module import Module
    from wiesel.program.compile import Compiled
    from wiesel.program.layout import Layout

CACHE_BYTES = int(os.environ.get("WIESEL_NET_CACHE_BYTES", 1 << 30))
"""Most bytes of programs (arena, workspace, prepared weights) that one net keeps; the least recently used go first."""
CACHE_PROGRAMS = 16
"""Most programs that one net keeps."""

_ENTRY_BITS = {"prepare": 1, "forward": 2, "grad": 4, "update": 8}  # those of program.compile, which is imported when first compiling

INFERENCE_BATCH = 256
"""Most samples that an inference program is planned for; larger inputs run in pieces."""
INFERENCE_BYTES = 64 << 20
"""The planned batch is halved until the activations, all added up, are within this (but for one sample)."""


@dataclass
class Runner:
    """A compiled program with an instance on the memory of a net."""

    compiled: Compiled
    instance: _core.Instance
    store: Store
    outputs: Outputs | None = None
    nbytes: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    prepared_version: int = -1

    @property
    def n(self) -> int:
        return self.compiled.plan.n

    def bits(self, *entries: str) -> int:
        """Entries to run, as ``Instance.run`` wants them; with prepare when the weights have changed since."""
        if entries != ("forward",):
            self.store.without_grad = self.compiled.taken
        wanted = sum(_ENTRY_BITS[entry] for entry in entries)
        if self.compiled.prepares and self.prepared_version != self.store.weight_version:
            wanted |= _ENTRY_BITS["prepare"]
        self.prepared_version = self.store.weight_version
        return wanted

    def run(
        self, entries: Sequence[str], arrays: Sequence[NDArray[Any]], n: int, scalars: NDArray[np.int64] | None = None
    ) -> dict[str, NDArray[Any]]:
        """One run on at most the planned number of samples; the outputs by name, as new arrays."""
        found = self.instance.new_outputs(n)
        self.instance.run(self.bits(*entries), arrays, found, n, scalars)
        return {slot.name: array for slot, array in zip(self.compiled.outputs, found, strict=True)}

    def run_in_pieces(self, arrays: Sequence[NDArray[Any]], n: int) -> dict[str, NDArray[Any]]:
        """Forward on any number of samples; the bits of each do not depend on how many travel together."""
        if n <= self.n:
            return self.run(("forward",), arrays, n)
        found = self.instance.new_outputs(n)
        bits = self.bits("forward")
        for start in range(0, n, self.n):
            stop = min(start + self.n, n)
            self.instance.run(bits, [a[start:stop] for a in arrays], [out[start:stop] for out in found], stop - start)
            bits = self.bits("forward")
        return {slot.name: array for slot, array in zip(self.compiled.outputs, found, strict=True)}


class Engine:
    """Runs the module ``root``. Calls from several threads take turns."""

    def __init__(self, root: Module) -> None:
        self.root = root
        self.store: Store | None = None
        self.prefix = ""
        """Path of ``root`` within the net that owns the memory; empty for a whole net."""
        self.sample_types: tuple[Type, ...] = ()
        """Types of the inputs of the last build, without the batch extent."""
        self._last_op = ""
        self.compilations = 0
        self.lock = threading.RLock()
        """Held by every call: two threads on one net take turns."""
        self._programs: OrderedDict[Hashable, Runner] = OrderedDict()
        self._epoch = -1
        self._stamp = -1

    # --- building --------------------------------------------------------------------------------------------------------------------

    def build(self, shapes: Sequence[tuple[int, ...]], *, seed: int = 0) -> None:
        """Traces once with these sample shapes and allocates the memory."""
        if not shapes:
            raise TypeError("build takes the shape of one sample for each input, e.g. net.build((28, 28, 1))")
        for shape in shapes:
            if not isinstance(shape, (tuple, list)):
                raise TypeError(f"build takes shapes as tuples, e.g. net.build((28, 28, 1)); got {shape!r}")
        self.trace([Type((BATCH, *shape)) for shape in shapes], seed=seed)

    def refresh(self) -> None:
        """Drops programs and memory that a change of the module tree has made stale."""
        now = structure.now()
        if self._epoch == now:
            return
        stamp = max(structure.stamp(thing) for thing in self._things())
        if stamp != self._stamp:
            self._programs.clear()
            object.__setattr__(self.root, "_quick", None)
            self._stamp = stamp
            if self.store is not None:
                self._adopt(self.store.seed)
        self._epoch = structure.now()

    def _things(self) -> list[Any]:
        return [module for _, module in self.root.named_modules()] + [variable for _, variable in self.root.named_variables()]

    def _adopt(self, seed: int) -> None:
        """Finds or makes the store of all variables below ``root``.

        A part of a built net shares the net's memory; otherwise the variables move, with their values, into a store of their own.
        """
        variables = dict(self.root.named_variables())
        stores = {id(v.store): v.store for v in variables.values()}
        shared = next(iter(stores.values())) if len(stores) == 1 else None
        if shared is not None:
            path, variable = next(iter(variables.items()))
            prefix = variable.name.removesuffix(path).removesuffix(".")
            same = all(v.name == (f"{prefix}.{p}" if prefix else p) for p, v in variables.items())
            if same and (prefix or len(variables) == len(shared.params) + len(shared.states)):
                self.store, self.prefix = shared, prefix
                return
        params = {path: v for path, v in variables.items() if isinstance(v, Parameter)}
        states = {path: v for path, v in variables.items() if isinstance(v, State)}
        self.store, self.prefix = Store(params, states, seed), ""
        for thing in variables.values():
            structure.touch(thing)
        self._stamp = max(structure.stamp(thing) for thing in self._things())

    def trace(
        self,
        types: Sequence[Type],
        *,
        training: bool = False,
        update_states: bool = True,
        seed: int = 0,
        then: Callable[[ModuleTrace, Any], None] | None = None,
    ) -> tuple[Graph, Outputs]:
        """The graph of the net for inputs of these types. ``then(trace, outputs)`` may add to it (a loss) before it is closed.

        The outputs of the graph are the leaves of what ``forward`` returned, "output…".
        """
        self.refresh()
        trace = ModuleTrace(self.root, self.prefix, training=training, update_states=update_states)
        with trace:
            inputs = [trace.input(name, type) for name, type in zip(input_names(len(types)), types, strict=True)]
            result = self.root(*inputs)
            with trace.root():
                outputs = Outputs(result)
                for name, tensor in outputs.leaves.items():
                    trace.output(name, tensor)
                if then is not None:
                    then(trace, result)
        if self.store is None or any(v.store is not self.store for _, v in self.root.named_variables()):
            self._adopt(self.store.seed if self.store is not None else seed)
            self._programs.clear()
            self._epoch = structure.now()
            self._stamp = max(structure.stamp(thing) for thing in self._things())
            if self.prefix and self.prefix != trace.prefix:  # names within the owning net: trace again under them
                return self.trace(types, training=training, update_states=update_states, then=then)
        self.sample_types = tuple(types)
        self._last_op = next((v.value.producer.op.name for v in outputs.leaves.values() if v.value.producer is not None), "")
        return trace.graph, outputs

    # --- programs --------------------------------------------------------------------------------------------------------------------

    def runner(self, key: Hashable, make: Callable[[], Runner]) -> Runner:
        """The program kept under ``key``, or a new one."""
        self.refresh()
        found = self._programs.get(key)
        if found is None:
            found = make()
            self.compilations += 1
            self._programs[key] = found
            total = sum(runner.nbytes for runner in self._programs.values())
            while len(self._programs) > 1 and (total > CACHE_BYTES or len(self._programs) > CACHE_PROGRAMS):
                _, dropped = self._programs.popitem(last=False)
                total -= dropped.nbytes
                object.__setattr__(self.root, "_quick", None)
        else:
            self._programs.move_to_end(key)
        return found

    def assemble(
        self,
        graph: Graph,
        *,
        n: int,
        training: bool = False,
        layout: Layout | None = None,
        update: Callable[[Any, Collection[str]], None] | None = None,
        take: Callable[[Any], Mapping[str, Any] | None] | None = None,
        opt: _core.Buffer | None = None,
        fetches: Sequence[str] | None = None,
        accumulate: bool = False,
        outputs: Outputs | None = None,
    ) -> Runner:
        """Compiles ``graph`` and puts it on the memory of this net."""
        from wiesel.program.compile import compile_graph

        store = self.store
        assert store is not None
        if layout is None:
            layout = store.layout_for({}) if graph.grads else store.inference_layout()
        compiled = compile_graph(
            graph,
            n=n,
            training=training,
            layout=layout,
            update=update,
            take=take,
            fetches=fetches,
            accumulate=accumulate,
        )
        instance = compiled.instance(
            store.param_buffer if layout.param_bytes else None,
            store.grad_buffer if layout.grad_bytes else None,
            store.state_buffer if layout.state_bytes else None,
            opt,
        )
        memory = compiled.program.memory()
        nbytes = len(compiled.container) + memory["arena"] + memory["workspace"] + memory["prepared"]
        return Runner(compiled, instance, store, outputs, nbytes)

    def release(self) -> None:
        """Drops all programs."""
        self._programs.clear()

    @property
    def programs(self) -> int:
        """Programs that are kept now."""
        return len(self._programs)

    @property
    def program_bytes(self) -> int:
        return sum(runner.nbytes for runner in self._programs.values())

    # --- inference -------------------------------------------------------------------------------------------------------------------

    def call(self, inputs: Sequence[Any]) -> Any:
        """The net on arrays, in inference mode."""
        with self.lock:
            arrays, n = self.check_inputs(inputs)
            runner = self.inference(arrays, n, None)
            found = runner.run_in_pieces(self.convert(runner, arrays), n)
            assert runner.outputs is not None
            self._set_quick(runner)
            return runner.outputs.rebuild(found)

    def run(self, inputs: Sequence[Any], fetch: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Named tensors of the net on arrays, in inference mode."""
        with self.lock:
            arrays, n = self.check_inputs(inputs)
            runner = self.inference(arrays, n, tuple(fetch))
            found = runner.run_in_pieces(self.convert(runner, arrays), n)
            return {name: found[self.full_name(name)] for name in fetch}

    def full_name(self, name: str) -> str:
        """A path of this module as its net calls it."""
        return name if not self.prefix or name.split(".")[0] in ("input", "output") else f"{self.prefix}.{name}"

    def inference(self, arrays: Sequence[NDArray[Any]], n: int, fetch: tuple[str, ...] | None) -> Runner:
        """The inference program for these arrays."""
        return self.runner(("inference", signature(arrays), fetch), lambda: self._compile_inference(arrays, n, fetch))

    def _compile_inference(self, arrays: Sequence[NDArray[Any]], n: int, fetch: tuple[str, ...] | None) -> Runner:
        graph, outputs = self.trace_arrays(arrays)
        names = None if fetch is None else list(dict.fromkeys(self.full_name(name) for name in fetch))
        if names is not None:
            for name, asked in zip(names, fetch or (), strict=False):
                try:
                    graph.find(name)
                except (KeyError, ValueError):
                    raise ValueError(f"there is no tensor {asked!r} to fetch; known: {', '.join(graph.names)}") from None
        return self.assemble(graph, n=planned_batch(graph), fetches=names, outputs=outputs)

    def trace_arrays(self, arrays: Sequence[NDArray[Any]], **how: Any) -> tuple[Graph, Outputs]:
        """``trace`` for inputs like these arrays: uint8 where the net takes it (it begins with ``Normalize``), else float32."""
        types = input_types(arrays)
        if any(type.dtype == "u8" for type in types):
            try:
                return self.trace(types, **how)
            except TypeError:
                types = [Type(type.shape) for type in types]
        return self.trace(types, **how)

    def ends_in(self, op: str) -> bool:
        """Whether the op that computes the (first) output is ``op``, by the last trace."""
        return self._last_op == op

    def convert(self, runner: Runner, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """The arrays as the program's inputs want them."""
        slots = {slot.name for slot in runner.compiled.inputs}
        found = zip(input_names(len(arrays)), self.convert_all(runner, arrays), strict=True)
        return [array for name, array in found if name in slots]

    def convert_all(self, runner: Runner, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """``convert``, with the inputs that nothing depends on left as they are."""
        from wiesel.ops.dispatch import to_array

        slots = {slot.name: slot for slot in runner.compiled.inputs}
        return [
            to_array(array, (slots[name].type.dtype,), type(self.root).__name__, i) if name in slots else array
            for i, (name, array) in enumerate(zip(input_names(len(arrays)), arrays, strict=True))
        ]

    def check_inputs(self, inputs: Sequence[Any]) -> tuple[list[NDArray[Any]], int]:
        """The inputs as arrays, and how many samples they hold; ValueError or TypeError for what cannot be meant."""
        name = type(self.root).__name__
        if not inputs:
            raise TypeError(f"{name} takes at least one array")
        arrays = [np.asarray(item) for item in inputs]
        for i, array in enumerate(arrays):
            if array.dtype.kind not in "fiub":
                raise TypeError(f"{name}: input {i} has dtype {array.dtype}; arrays of floats or integers are expected")
            if array.ndim == 0:
                raise ValueError(f"{name}: input {i} is a single number; the first axis counts the samples")
            if array.shape[0] == 0:
                raise ValueError(f"{name}: the batch is empty: input {i} has shape {array.shape}")
            if 0 in array.shape:
                raise ValueError(f"{name}: input {i} has shape {array.shape} with an empty axis")
            self._check_layout(name, i, array)
        n = arrays[0].shape[0]
        for i, array in enumerate(arrays):
            if array.shape[0] != n:
                raise ValueError(f"{name}: input 0 has {n} samples, input {i} has {array.shape[0]}; they must be as many")
        return arrays, n

    def _check_layout(self, name: str, i: int, array: NDArray[Any]) -> None:
        """Refuses what looks like one sample without its batch axis, or like NCHW."""
        shape = array.shape
        if i < len(self.sample_types):
            known = self.sample_types[i].shape[1:]
            if shape == known:
                raise ValueError(f"{name}: input {i} has the shape {shape} of one sample; the batch axis is missing: use x[None]")
            if len(known) == 3 and len(shape) == 4 and shape[3] != known[2] and shape[1] == known[2]:
                raise ValueError(
                    f"{name}: input {i} has shape {shape}, this net takes (n, h, w, {known[2]}): it looks like NCHW; "
                    "use x.transpose(0, 2, 3, 1)"
                )
        elif len(shape) == 4 and shape[1] in (1, 3) and shape[2] == shape[3] and shape[3] >= 8:
            raise ValueError(
                f"{name}: input {i} has shape {shape}, which looks like NCHW; pictures are (n, h, w, channels) here: use "
                f"x.transpose(0, 2, 3, 1). If {shape[3]} channels are meant, build the net first: net.build({shape[1:]})"
            )

    def _set_quick(self, runner: Runner) -> None:
        """Lets the next calls go straight to the program, where there is one input and one output."""
        compiled, root = runner.compiled, self.root
        if len(compiled.inputs) != 1 or len(compiled.outputs) != 1 or not isinstance(runner.outputs, Outputs) or not runner.outputs.single:
            return
        store, call, planned = runner.store, runner.instance.call, runner.n

        def quick(x: Any) -> Any:
            if runner.prepared_version == store.weight_version and type(x) is np.ndarray and len(x) <= planned:
                return call(x)
            return None

        object.__setattr__(root, "_quick", (structure.now(), quick))


def signature(arrays: Sequence[NDArray[Any]]) -> tuple[Any, ...]:
    """What of the arrays a program depends on."""
    return tuple((array.shape[1:], array.dtype == np.uint8) for array in arrays)


def input_types(arrays: Sequence[NDArray[Any]]) -> list[Type]:
    return [Type((BATCH, *array.shape[1:]), "u8" if array.dtype == np.uint8 else "f32") for array in arrays]


def planned_batch(graph: Graph) -> int:
    """The batch that an inference program is planned for: a function of the net and the sample shape, never of the data at hand."""
    per_sample = sum(v.type.nbytes(1) for node in graph.nodes for v in node.outputs if v.type.has_batch)
    n = INFERENCE_BATCH
    while n > 1 and n * per_sample > INFERENCE_BYTES:
        n //= 2
    return n
