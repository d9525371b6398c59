"""``Trainer``: batches in, weights better."""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wiesel import losses
from wiesel.batches import ArrayBatches, Batches, DatasetBatches, Samples, leaves, map_tree
from wiesel.callbacks import Callback, History, Record
from wiesel.graph.ir import BATCH, Graph, Type
from wiesel.nn.engine import Runner, planned_batch, signature
from wiesel.nn.tracing import ModuleTrace
from wiesel.optim import SGD, Optimizer, Progress

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray

    from wiesel import _core
    from wiesel.data import Augmentation, Dataset
    from wiesel.nn.module import Module
    from wiesel.nn.store import Store
    from wiesel.program.emit import Emitter
    from wiesel.program.layout import Layout

_SEED, _STEP, _MICRO_STEP, _SAMPLE, _ACCUMULATE, _SLOTS = 0, 1, 2, 3, 4, 72  # cpp/ops/kinds.h


@dataclass(frozen=True, slots=True)
class FitPlan:
    """What a call of ``fit`` is going to do."""

    epochs: int
    """Number of the epoch after the last one."""
    batches: int
    samples: int


class Trainer:
    """Trains a net: loss, optimizer and position, which ``save`` and ``resume`` carry over to the bit.

    Parameters
    ----------
    net : any ``nn.Module``; built by the first batch, with ``seed``, unless it is built.
    loss : "cross_entropy" (takes logits), "mse", "hinge"; a function of symbolic (outputs, targets, sample_weight) giving a scalar; or,
        for nets with several outputs, a dict or tuple of such.
    optimizer : of ``wiesel.optim``; by default SGD(0.01, momentum=0.9).
    seed : of shuffling, dropout, augmentation and (unless built) initialisation.
    loss_weights : factors for a dict or tuple of losses.
    accumulate : every batch runs in this many pieces whose gradients are added up, so that the memory is that of a piece.
    clip_norm : gradients are scaled down to this global 2-norm where it is exceeded.
    clip_value : each gradient is cut to [-clip_value, clip_value].

    >>> import numpy as np
    >>> import wiesel as wl
    >>> from wiesel import nn
    >>> x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    >>> trainer = wl.Trainer(nn.Linear(1), loss="mse", optimizer=wl.optim.SGD(0.1))
    >>> len(trainer.fit(x, 3 * x, epochs=2, batch_size=16)["loss"])
    2
    """

    def __init__(
        self,
        net: Module,
        loss: losses.Loss = "cross_entropy",
        optimizer: Optimizer | None = None,
        *,
        seed: int = 0,
        loss_weights: Mapping[Any, float] | Sequence[float] | None = None,
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        if optimizer is not None and not isinstance(optimizer, Optimizer):
            raise TypeError(f"Trainer: optimizer must be one of wiesel.optim, e.g. optim.SGD(0.1, momentum=0.9); got {optimizer!r}")
        if accumulate < 1:
            raise ValueError(f"Trainer: accumulate must be at least 1, got {accumulate}")
        for name, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if limit is not None and limit <= 0:
                raise ValueError(f"Trainer: {name} must be above 0, got {limit}")
        self.net = net
        self.loss = loss
        self.optimizer = SGD(0.01, momentum=0.9) if optimizer is None else optimizer
        self.seed = int(seed)
        self.accumulate = accumulate
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.history = History()
        """All epochs that this trainer has finished."""
        self.step_count = 0
        """Updates made."""
        self.epoch = 0
        """Epochs finished."""
        self.batch = 0
        """Batches done of the present epoch."""
        self.batches = 0
        """Batches of the present epoch, for schedules in epochs; 0 outside ``fit``."""
        self.batch_size = 0
        """Of the present (or last) ``fit``."""
        self.fit_begin = 0
        """The epoch at which the present (or last) ``fit`` began."""
        self.plan_of_fit = FitPlan(0, 0, 0)
        self._loss_function = losses.weighted(loss, loss_weights)
        self._resuming = False
        self._sums = _Sums()
        self._seconds = 0.0
        self._stopping = False
        self._interrupted = False
        self._in_core = False
        self._opt: _core.Buffer | None = None
        self._opt_layout: Layout | None = None
        self._opt_values: dict[str, NDArray[Any]] | None = None
        self._snapshot = np.empty(0, np.uint8)
        self._scalars = np.zeros(_SLOTS, np.int64)
        self._doubles = self._scalars.view(np.float64)

    # --- fit -------------------------------------------------------------------------------------------------------------------------

    def fit(
        self,
        data_or_x: Dataset | ArrayLike | tuple[ArrayLike, ...],
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 64,
        validation: Any = None,
        shuffle: bool = True,
        augment: Augmentation | None = None,
        callbacks: Sequence[Callback | Callable[[Trainer, Record], None]] = (),
        sample_weight: ArrayLike | None = None,
        workers: int = 1,
    ) -> History:
        """Trains for ``epochs`` more epochs; returns their history (loss, accuracy, val_loss, val_accuracy, lr, seconds).

        ``data_or_x`` is a ``data.Dataset``, an array with targets ``y``, or a tuple of arrays for a net with several inputs (``y`` may be
        a tuple or dict). ``validation`` is a Dataset, a pair (x, y), or a share such as 0.1, which is split off stratified and shuffled by
        the seed. ``augment`` touches training pictures only. The order of epoch e depends on the seed and e alone.

        After ``resume`` the first call continues the interrupted one: it runs until ``epochs`` epochs since that one's beginning are done.
        Ctrl-C ends after the present step or discards it unfinished, and raises KeyboardInterrupt; ``save`` is valid then.
        """
        if epochs < 0 or batch_size < 1:
            raise ValueError(f"fit: epochs must be at least 0 and batch_size at least 1, got {epochs} and {batch_size}")
        data, held_back = self._split(data_or_x, y, validation)
        batches = self._batches(data, None if data is not data_or_x else y, batch_size, shuffle, augment, sample_weight, workers)
        heard = [hook if isinstance(hook, Callback) else _EpochFunction(hook) for hook in callbacks]
        if self._resuming:
            if self.batch and batch_size != self.batch_size:
                raise ValueError(f"fit: the checkpoint was made within an epoch of batch_size {self.batch_size}; resume with that, not {batch_size}")
        else:
            self.fit_begin, self.batch, self._sums, self._seconds = self.epoch, 0, _Sums(), 0.0
        self._resuming = False
        self.batch_size, self.batches = batch_size, len(batches)
        self.plan_of_fit = FitPlan(self.fit_begin + epochs, len(batches), batches.samples)
        self._stopping = False
        with self._deferred_interrupts():
            for hook in heard:
                hook.on_fit_begin(self)
            try:
                while self.epoch < self.plan_of_fit.epochs and not self._stopping:
                    self._run_epoch(batches, held_back, heard)
            finally:
                for hook in heard:
                    hook.on_fit_end(self)
        return History(self.history.records[self.fit_begin :])

    def stop(self) -> None:
        """Ends ``fit`` after the present step (from a callback)."""
        self._stopping = True

    def _run_epoch(self, batches: Batches, held_back: Any, heard: Sequence[Callback]) -> None:
        epoch = self.epoch
        for hook in heard:
            hook.on_epoch_begin(self, epoch)
        begun = time.perf_counter()
        source = batches.epoch(epoch, self.batch)
        try:
            for samples in source:
                self._train_on(samples, planned=min(self.batch_size, batches.samples))
                self.batch += 1
                if heard:
                    figures = {**self._sums.figures(), "batch": self.batch, "samples": self._sums.samples, "lr": self.lr}
                    for hook in heard:
                        hook.on_step_end(self, figures)
                if self._interrupted:
                    raise KeyboardInterrupt
                if self._stopping and self.batch < len(batches):
                    return
        finally:
            if hasattr(source, "close"):
                source.close()  # joins the threads that prepare batches
            self._seconds += time.perf_counter() - begun
        record: Record = {**self._sums.figures(), "lr": self.lr, "seconds": self._seconds}
        record["images_per_second"] = self._sums.samples / max(self._seconds, 1e-9)
        if held_back is not None:
            record |= {f"val_{name}": value for name, value in self._evaluate(*held_back).items()}
        self.history.records.append(record)
        self.epoch, self.batch, self._sums, self._seconds = epoch + 1, 0, _Sums(), 0.0
        for hook in heard:
            hook.on_epoch_end(self, epoch, record)
        if self._interrupted:
            raise KeyboardInterrupt

    def _split(self, data_or_x: Any, y: Any, validation: Any) -> tuple[Any, tuple[Any, Any] | None]:
        """Training data, and (x, y) or (Dataset, None) for validation."""
        from wiesel.data import Dataset, check_disjoint

        if isinstance(data_or_x, Dataset):
            if y is not None:
                raise TypeError("fit: a Dataset has its own targets; y is for arrays")
            if data_or_x.sealed:
                raise ValueError(f"fit: {data_or_x.name} is sealed test data; it is for one last evaluation, never for training")
        elif y is None:
            raise TypeError("fit: targets are missing: fit(x, y) or fit(dataset)")
        if validation is None:
            return data_or_x, None
        if isinstance(validation, float):
            source = data_or_x if isinstance(data_or_x, Dataset) else Dataset(np.asarray(data_or_x), losses.target_arrays(self.loss, y))
            train, held = source.split(validation=validation, seed=self.seed)
            return train, (held, None)
        if isinstance(validation, Dataset):
            if isinstance(data_or_x, Dataset):
                check_disjoint(train=data_or_x, validation=validation)
            if validation.sealed:
                raise ValueError(f"fit: {validation.name} is sealed test data; validate on another part (S-78)")
            return data_or_x, (validation, None)
        if isinstance(validation, tuple) and len(validation) == 2:
            return data_or_x, validation
        raise TypeError(f"fit: validation must be a Dataset, a pair (x, y) or a share such as 0.1; got {type(validation).__name__}")

    def _batches(
        self, data: Any, y: Any, batch_size: int, shuffle: bool, augment: Augmentation | None, sample_weight: Any, workers: int
    ) -> Batches:
        from wiesel.data import Dataset

        if not isinstance(data, Dataset) and sample_weight is None and not isinstance(data, tuple) and _plain(y):
            samples = self._samples(data, y, None)
            data = Dataset(samples.inputs[0], samples.targets) if samples.inputs[0].ndim > 1 and samples.targets.ndim <= 2 else data
        if isinstance(data, Dataset):
            self._warn_sorted(data.y, shuffle)
            weights = None if sample_weight is None else np.asarray(sample_weight)
            if weights is None:
                return DatasetBatches(
                    data, batch_size, shuffle=shuffle, seed=self.seed, augment=augment, workers=workers,
                    targets=lambda t: losses.target_arrays(self.loss, t),
                )  # fmt: skip
            samples = self._samples(data.x, data.y, weights)
        else:
            samples = self._samples(data, y, sample_weight)
            for _, target in leaves(samples.targets, "target"):
                self._warn_sorted(target, shuffle)
        if augment is not None:
            raise TypeError("fit: augment works on a single array of pictures with one target array and no sample_weight")
        return ArrayBatches(samples, batch_size, shuffle=shuffle, seed=self.seed)

    def _warn_sorted(self, targets: NDArray[Any], shuffle: bool) -> None:
        """Sorted classes, shown one after the other, hurt (S-72)."""
        if shuffle or targets.ndim != 1 or targets.dtype != np.int32 or len(targets) < 16:
            return
        if targets[0] != targets[-1] and bool((np.diff(targets) >= 0).all()):
            warnings.warn(
                "the samples are sorted by class and shuffle=False: every batch shows one class, and the net forgets the others; "
                "use shuffle=True",
                UserWarning,
                stacklevel=4,
            )

    # --- steps -----------------------------------------------------------------------------------------------------------------------

    def step(self, x: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """One step on one batch; returns its loss (before the update). For loops written by hand.

        Plans for the largest batch seen so far, so a smaller last batch needs no new program.
        """
        samples = self._samples(x, y, sample_weight)
        self._planned_step = max(getattr(self, "_planned_step", 0), len(samples))
        self._sums = _Sums()
        return self._train_on(samples, planned=self._planned_step)

    def apply(self, grads: Mapping[str, ArrayLike]) -> None:
        """One update from gradients by name, as ``wl.value_and_grad`` gives them: for hand-written or distributed gradients."""
        engine = self.net.engine
        with engine.lock:
            engine.refresh()
            store = self._store()
            layout = self._layout(store)
            missing = [name for name in layout.trainable if name not in grads]
            unexpected = [name for name in grads if name not in layout.params or layout.params[name].frozen]
            if missing or unexpected:
                what = f"missing: {', '.join(missing)}" if missing else f"not trained: {', '.join(unexpected)}"
                raise ValueError(f"apply: the gradients do not fit the net's trainable parameters; {what}")
            arrays = {name: np.asarray(grads[name], np.float32) for name in layout.trainable}
            for name, array in arrays.items():
                if array.shape != layout.params[name].type.shape:
                    raise ValueError(f"apply: the gradient of {name} has shape {array.shape}, expected {layout.params[name].type.shape}")
            runner = engine.runner(("update", *self._program_key()), lambda: self._compile_update(store, layout))
            for name, array in arrays.items():
                store.grad_buffer.view(layout.params[name].grad_offset, array.shape, "f32", True)[...] = array
            self._write_scalars(0, 0)
            self._run(runner, ("update",), [], [], 1)

    def _samples(self, x: Any, y: Any, sample_weight: Any) -> Samples:
        """Arrays of a batch or a data set, checked before anything is computed."""
        inputs, n = self.net.engine.check_inputs(x if isinstance(x, tuple) else (x,))
        targets = losses.target_arrays(self.loss, y)
        for name, array in leaves(targets, "targets"):
            if len(array) != n:
                raise ValueError(f"{name}: {len(array)} for {n} samples; they must be as many")
        weights = None
        if sample_weight is not None:
            weights = np.ascontiguousarray(sample_weight, np.float32)
            if weights.shape != (n,):
                raise ValueError(f"sample_weight has shape {weights.shape}, expected ({n},): one factor per sample")
            if not np.isfinite(weights).all() or (weights < 0).any():
                raise ValueError("sample_weight must be finite and at least 0")
        return Samples(tuple(inputs), targets, weights)

    def _train_on(self, samples: Samples, planned: int) -> float:
        """One step: forward and back for every piece of the batch, then the update. Returns the loss of the batch."""
        engine = self.net.engine
        with engine.lock:
            pieces = samples.pieces(self.accumulate) if self.accumulate > 1 else [samples]
            n = -(-planned // self.accumulate)
            key = ("train", signature(samples.inputs), _target_key(samples), max(n, len(pieces[0])), *self._program_key())
            runner = engine.runner(key, lambda: self._compile_training(pieces[0], max(n, len(pieces[0]))))
            batch_sums = _Sums()
            offset = 0
            for number, piece in enumerate(pieces):
                arrays = self._arrays(runner, piece, len(piece) / len(samples))
                self._write_scalars(number, offset)
                last = number == len(pieces) - 1
                outputs = _cut(runner.extra["buffers"], runner.compiled.outputs, len(piece))
                self._run(runner, ("forward", "grad", "update") if last else ("forward", "grad"), arrays, outputs, len(piece))
                batch_sums.add(runner, outputs, piece)
                offset += len(piece)
            self._sums.merge(batch_sums)
            return batch_sums.figures()["loss"]

    def _run(self, runner: Runner, entries: Sequence[str], arrays: Sequence[Any], outputs: Sequence[Any], n: int) -> None:
        """Runs entries; one that was stopped before its update leaves no trace, one that was updated counts."""
        store = runner.store
        states = runner.extra["states"]
        np.copyto(self._snapshot_like(states), states)
        marker = runner.extra["marker"]
        marker[0] = 0.0
        bits = runner.bits(*entries)
        try:
            self._in_core = True
            runner.instance.run(bits, arrays, outputs, n, self._scalars)
        except BaseException:
            self._in_core = False
            if marker[0] == 1.0:
                self._count(store)
            else:
                np.copyto(states, self._snapshot)
            raise
        self._in_core = False
        if "update" in entries:
            self._count(store)

    def _count(self, store: Store) -> None:
        self.step_count += 1
        store.weight_version += 1

    def _snapshot_like(self, states: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._snapshot.shape != states.shape:
            self._snapshot = np.empty_like(states)
        return self._snapshot

    def _write_scalars(self, micro_step: int, sample: int) -> None:
        self._scalars[_SEED] = self.seed
        self._scalars[_STEP] = self.step_count
        self._scalars[_MICRO_STEP] = micro_step
        self._scalars[_SAMPLE] = sample
        self._doubles[_ACCUMULATE] = float(micro_step > 0)
        self.optimizer.write_scalars(self._doubles, self.progress)

    @property
    def progress(self) -> Progress:
        """Updates and epochs done."""
        return Progress(self.step_count, self.epoch + (self.batch / self.batches if self.batches else 0.0))

    @property
    def lr(self) -> float:
        """The learning rate of the coming step (of group 0)."""
        return self.optimizer.schedules[0](self.progress)

    # --- evaluation ------------------------------------------------------------------------------------------------------------------

    def evaluate(self, data_or_x: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> dict[str, float]:
        """``{"loss": …, "accuracy": …}`` in inference mode. A sealed Dataset is logged, and warns from the second look on."""
        from wiesel.data import Dataset

        if isinstance(data_or_x, Dataset):
            data_or_x.note_look("Trainer.evaluate")
        return self._evaluate(data_or_x, y, sample_weight)

    def _evaluate(self, data_or_x: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> dict[str, float]:
        from wiesel.data import Dataset

        if isinstance(data_or_x, Dataset):
            data: Dataset | None = data_or_x
            samples = self._samples(*data.slice(0, 1), None)
            total = len(data)
        else:
            if y is None:
                raise TypeError("evaluate: targets are missing: evaluate(x, y) or evaluate(dataset)")
            data = None
            samples = self._samples(data_or_x, y, sample_weight)
            total = len(samples)
        engine = self.net.engine
        with engine.lock:
            key = ("evaluate", signature(samples.inputs), _target_key(samples), id(self._loss_function))
            runner = engine.runner(key, lambda: self._compile_evaluation(samples))
            sums = _Sums()
            for start in range(0, total, runner.n):
                stop = min(start + runner.n, total)
                if data is None:
                    piece = samples.map(lambda a, s=start, e=stop: a[s:e])  # type: ignore[misc]
                else:
                    piece = self._samples(*data.slice(start, stop), None)
                outputs = _cut(runner.extra["buffers"], runner.compiled.outputs, len(piece))
                runner.instance.run(runner.bits("forward"), self._arrays(runner, piece, 1.0), outputs, len(piece))
                sums.add(runner, outputs, piece)
            return sums.figures()

    # --- programs --------------------------------------------------------------------------------------------------------------------

    def _trace(self, samples: Samples, *, training: bool) -> tuple[Graph, Any, dict[str, int]]:
        limits: dict[str, int] = {}

        def add_loss(trace: ModuleTrace, outputs: Any) -> None:
            named = dict(leaves(samples.targets, "target"))
            tensors = {name: trace.input(name, losses.target_type(array)) for name, array in named.items()}
            targets = _rebuild(samples.targets, "target", tensors)
            weight = trace.input("sample_weight", Type((BATCH,))) if samples.weights is not None else None
            loss = self._loss_function(outputs, targets, weight)
            if loss.shape != ():
                raise ValueError(f"the loss must be a scalar, got {loss.type}: reduce it with wl.ops.mean or wl.ops.sum")
            trace.output("loss", loss)
            limits.update(trace.label_limits)

        graph, outputs = self.net.engine.trace_arrays(samples.inputs, training=training, seed=self.seed, then=add_loss)
        return graph, outputs, limits

    def _compile_training(self, samples: Samples, n: int) -> Runner:
        from wiesel.passes.autodiff import gradients, name_gradient

        graph, outputs, limits = self._trace(samples, training=True)
        store = self._store()
        layout = self._layout(store)
        prefix = self.net.engine.prefix
        trained = [name for name in layout.trainable if name in graph.params and name.startswith(prefix)]
        if not trained:
            raise ValueError("there is nothing to train: the net has no parameters, or all of them are frozen")
        loss = graph.outputs["loss"]
        seed = None
        if self.accumulate > 1:
            from wiesel.graph.ir import Value

            seed = graph.inputs["loss_scale"] = Value(Type(()), "input", "loss_scale")
        found = gradients(graph, {loss: seed}, [graph.params[name] for name in trained])
        for name in trained:
            value = found.get(graph.params[name])
            if value is not None:
                graph.grads[name] = value
                name_gradient(value, name)
        watched = _watched(outputs, samples.targets)
        runner = self.net.engine.assemble(
            graph,
            n=n,
            training=True,
            layout=layout,
            update=lambda em: self._emit_update(em, layout),
            opt=self._opt_buffer(layout),
            fetches=["loss", *watched],
            accumulate=self.accumulate > 1,
            outputs=outputs,
        )
        return self._finish(runner, watched, limits, layout)

    def _compile_update(self, store: Store, layout: Layout) -> Runner:
        graph = Graph()
        runner = self.net.engine.assemble(
            graph, n=1, training=True, layout=layout, update=lambda em: self._emit_update(em, layout), opt=self._opt_buffer(layout)
        )
        return self._finish(runner, {}, {}, layout)

    def _compile_evaluation(self, samples: Samples) -> Runner:
        graph, outputs, limits = self._trace(samples, training=False)
        watched = _watched(outputs, samples.targets)
        runner = self.net.engine.assemble(graph, n=planned_batch(graph), fetches=["loss", *watched], outputs=outputs)
        return self._finish(runner, watched, limits, None)

    def _finish(self, runner: Runner, watched: Mapping[str, str], limits: Mapping[str, int], layout: Layout | None) -> Runner:
        runner.extra["watched"] = watched
        runner.extra["limits"] = limits
        runner.extra["buffers"] = runner.new_outputs(runner.n)
        if layout is not None:
            runner.extra["states"] = runner.store.states_array()
            assert self._opt is not None
            runner.extra["marker"] = self._opt.view(self._marker_offset(layout), (1,), "f32", True)
        return runner

    def _emit_update(self, em: Emitter, layout: Layout) -> None:
        """The optimizer's steps, and at the end a mark that tells, after an interrupt, whether the update has happened."""
        self.optimizer.emit(em, layout, clip_norm=self.clip_norm, clip_value=self.clip_value)
        em.step("fill", [], [em.flat("opt", self._marker_offset(layout), 1, "updated")], value=1.0)

    def _marker_offset(self, layout: Layout) -> int:
        return self.optimizer.opt_bytes(layout)

    def _program_key(self) -> tuple[Any, ...]:
        return (id(self), self.accumulate, self.clip_norm, self.clip_value)

    def _store(self) -> Store:
        store = self.net.engine.store
        if store is None:
            raise ValueError("the net is not built: net.build((28, 28, 1)), or train a step first")
        return store

    def _layout(self, store: Store) -> Layout:
        return store.layout_for({name: self.optimizer.group_of(name) for name in store.params})

    def _opt_buffer(self, layout: Layout) -> _core.Buffer:
        """The optimizer's memory; where other parameters are frozen now, moments that stay are carried over."""
        from wiesel import _core

        if self._opt is None or self._opt_layout != layout:
            kept = self._moments() if self._opt is not None else self._opt_values or {}
            self._opt, self._opt_layout = _core.Buffer(self.optimizer.opt_bytes(layout) + 64), layout
            for name, values in kept.items():
                moment, parameter = name.split(".", 1)
                segment = layout.params.get(parameter)
                if segment is not None and not segment.frozen:
                    offset = int(moment.removeprefix("moment")) * layout.grad_bytes + segment.grad_offset
                    self._opt.view(offset, segment.type.shape, "f32", True)[...] = values
            self._opt_values = None
        return self._opt

    def _moments(self) -> dict[str, NDArray[Any]]:
        """Copies of the optimizer's state: "moment0.features.0.weight" and so on."""
        if self._opt is None or self._opt_layout is None:
            return dict(self._opt_values or {})
        layout, found = self._opt_layout, {}
        for moment in range(self.optimizer.moments):
            for name in layout.trainable:
                segment = layout.params[name]
                view = self._opt.view(moment * layout.grad_bytes + segment.grad_offset, segment.type.shape, "f32")
                found[f"moment{moment}.{name}"] = np.array(view)
        return found

    def _arrays(self, runner: Runner, samples: Samples, scale: float) -> list[NDArray[Any]]:
        """The arrays of the program's input slots; labels are checked here, before the step."""
        found = dict(zip(_names(samples), self.net.engine.convert_all(runner, samples.inputs), strict=True))
        for name, array in leaves(samples.targets, "target"):
            limit = runner.extra["limits"].get(name)
            if limit is not None:
                losses.check_labels(array, limit, name.replace("target", "targets", 1))
            found[name] = np.ascontiguousarray(array)
        if samples.weights is not None:
            found["sample_weight"] = np.ascontiguousarray(samples.weights)
        found["loss_scale"] = np.array(scale, np.float32)
        return [found[slot.name] for slot in runner.compiled.inputs]

    # --- checkpoints -----------------------------------------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> None:
        """Writes net, optimizer state and position in one step: the old file survives a full disk or a lost power supply."""
        from wiesel.checkpoint import save_trainer

        save_trainer(self, path)

    def resume(self, path: str | PathLike[str]) -> Trainer:
        """Takes over what ``save`` wrote: the coming ``fit`` continues to the same bytes as if it had never stopped. Returns self.

        Net, optimizer and batch size must be those of the checkpoint; ValueError names what differs. An unbuilt net is built.
        """
        from wiesel.checkpoint import resume_trainer

        resume_trainer(self, path)
        return self

    def profile(self, x: Any, y: Any, *, runs: int = 10) -> str:
        """A table of the time of each step of the training program on this batch; weights are put back afterwards."""
        from wiesel.profile import profile_training

        return profile_training(self, x, y, runs=runs)

    @contextmanager
    def _deferred_interrupts(self) -> Iterator[None]:
        """Inside, Ctrl-C stops the core between two ops, or else waits until the present step is counted."""
        self._interrupted = False
        default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if threading.current_thread() is not threading.main_thread() or not default:
            yield
            return

        def on_interrupt(number: int, frame: Any) -> None:
            if self._in_core or self._interrupted:  # a second one does not wait
                raise KeyboardInterrupt
            self._interrupted = True

        signal.signal(signal.SIGINT, on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class _EpochFunction(Callback):
    """A plain function as a callback: called after every epoch with the trainer and the record."""

    def __init__(self, function: Callable[[Trainer, Record], None]) -> None:
        self._function = function

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: Record) -> None:
        self._function(trainer, record)


class _Sums:
    """Loss and hits, added up over batches."""

    def __init__(self) -> None:
        self.samples = 0
        self.loss = 0.0
        self.hits: dict[str, int] = {}

    def add(self, runner: Runner, outputs: Sequence[NDArray[Any]], samples: Samples) -> None:
        n = len(samples)
        self.samples += n
        self.loss += float(outputs[0]) * n
        targets = dict(leaves(samples.targets, "target"))
        for array, (name, target) in zip(outputs[1:], runner.extra["watched"].items(), strict=True):
            figure = "accuracy" + name.removeprefix("output").replace(".", "_")
            truth = targets[target]
            truth = truth if truth.ndim == 1 else truth.argmax(axis=1)
            self.hits[figure] = self.hits.get(figure, 0) + int((array.argmax(axis=1) == truth).sum())

    def merge(self, other: _Sums) -> None:
        self.samples += other.samples
        self.loss += other.loss
        for figure, hits in other.hits.items():
            self.hits[figure] = self.hits.get(figure, 0) + hits

    def figures(self) -> dict[str, float]:
        if not self.samples:
            return {}
        return {"loss": self.loss / self.samples, **{figure: hits / self.samples for figure, hits in self.hits.items()}}


def _watched(outputs: Any, targets: Any) -> dict[str, str]:
    """Outputs (n, classes) that have class numbers or probabilities as targets, whose accuracy is counted: output -> target."""
    found = {}
    known = dict(leaves(targets, "target"))
    for name, tensor in outputs.leaves.items():
        target = "target" + name.removeprefix("output")
        array = known.get(target)
        if array is None or len(tensor.shape) != 2 or tensor.shape[1] < 2:
            continue
        labels = array.dtype == np.int32 and array.ndim == 1
        soft = array.dtype == np.float32 and array.shape[1:] == tensor.shape[1:] and bool(np.allclose(array.sum(axis=1), 1.0, atol=1e-3))
        if labels or soft:
            found[name] = target
    return found


def _cut(buffers: Sequence[NDArray[Any]], slots: Sequence[Any], n: int) -> list[NDArray[Any]]:
    """The output buffers, cut to n samples."""
    return [buffer[:n] if slot.type.has_batch else buffer for buffer, slot in zip(buffers, slots, strict=True)]


def _target_key(samples: Samples) -> tuple[Any, ...]:
    return tuple((name, array.shape[1:], array.dtype.char) for name, array in leaves(samples.targets, "target")) + (samples.weights is not None,)


def _rebuild(tree: Any, name: str, found: Mapping[str, Any]) -> Any:
    named = iter([found[leaf] for leaf, _ in leaves(tree, name)])
    return map_tree(lambda _: next(named), tree)


def _names(samples: Samples) -> list[str]:
    from wiesel.nn.tracing import input_names

    return input_names(len(samples.inputs))


def _plain(y: Any) -> bool:
    """Whether the targets are one array."""
    return not isinstance(y, (Mapping, tuple)) or (isinstance(y, tuple) and all(np.ndim(v) == 0 for v in y))
