"""``Trainer``: batches in, weights better."""

from __future__ import annotations

import signal
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from wiesel import losses
from wiesel.batches import ArrayBatches, Batches, DatasetBatches, Samples, leaves
from wiesel.callbacks import Callback, History, Record
from wiesel.graph.ir import NUMPY_DTYPES, Graph, Type, Value
from wiesel.nn import structure
from wiesel.nn.engine import Runner
from wiesel.objective import LOSS_SCALE, Figures, Objective
from wiesel.optim import SGD, Optimizer, Progress
from wiesel.optim.memory import OptimizerMemory

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray

    from wiesel.data import Augmentation, Dataset
    from wiesel.nn.module import Module
    from wiesel.nn.store import Store
    from wiesel.profile import Profile
    from wiesel.program.compile import Compiled
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
    keep_grads : every parameter's ``grad`` can be read after a step. By default those of dense weights from 4 MB on are used block by
        block where they are computed, and never written; the weights get the same bits.

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
        keep_grads: bool = False,
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
        self.keep_grads = keep_grads
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
        self.planned = 0
        """The largest batch that ``step`` has seen, for which it plans."""
        self.objective = Objective(net, loss, loss_weights, seed=self.seed)
        self.memory = OptimizerMemory(self.optimizer)
        self._resuming = False
        self._sums = Figures()
        self._seconds = 0.0
        self._last_lr = 0.0
        self._stopping = False
        self._interrupted = False
        self._in_core = False
        self._recent: _Recent | None = None
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
        from wiesel.data import Dataset

        data, held_back = self._split(data_or_x, y, validation)
        batches = self._batches(data, None if data is not data_or_x else y, batch_size, shuffle, augment, sample_weight, workers)
        if isinstance(data, Dataset) and self.net.class_names is None and data.class_names is not None:
            self.net.class_names = list(data.class_names)
        heard = [hook if isinstance(hook, Callback) else _EpochFunction(hook) for hook in callbacks]
        if self._resuming:
            if self.batch and batch_size != self.batch_size:
                raise ValueError(f"fit: the checkpoint lies within an epoch of batch_size {self.batch_size}; resume with it")
        else:
            self.fit_begin, self.batch, self._sums, self._seconds = self.epoch, 0, Figures(), 0.0
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
                self._sums.merge(self._figures_of_step(samples, min(self.batch_size, batches.samples)))
                self.batch += 1
                if heard:
                    figures = {**self._sums.means(), "batch": self.batch, "samples": self._sums.samples, "lr": self._last_lr}
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
        record: Record = {**self._sums.means(), "lr": self._last_lr, "seconds": self._seconds}
        record["images_per_second"] = self._sums.samples / max(self._seconds, 1e-9)
        if held_back is not None:
            record |= {f"val_{name}": value for name, value in self._evaluate(*held_back).items()}
        self.history.records.append(record)
        self.epoch, self.batch, self._sums, self._seconds = epoch + 1, 0, Figures(), 0.0
        for hook in heard:
            hook.on_epoch_end(self, epoch, record)
        if self._interrupted:
            raise KeyboardInterrupt

    def _figures_of_step(self, samples: Samples, planned: int) -> Figures:
        if len(samples.inputs) == 1 and samples.weights is None:
            repeated = self._repeat(samples.inputs[0], samples.targets, planned)
            if repeated is not None:
                figures = Figures()
                figures.add(*repeated, samples)
                return figures
        return self._train_on(samples, planned)

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
            samples = self.objective.samples(data, y, None)
            data = Dataset(samples.inputs[0], samples.targets) if samples.inputs[0].ndim > 1 and samples.targets.ndim <= 2 else data
        if isinstance(data, Dataset):
            self._warn_sorted(data.y, shuffle)
            weights = None if sample_weight is None else np.asarray(sample_weight)
            if weights is None:
                first = self.objective.samples(*data.slice(0, 1))
                self.objective.check_labels(Samples(first.inputs, losses.target_arrays(self.loss, data.y)))
                return DatasetBatches(
                    data, batch_size, shuffle=shuffle, seed=self.seed, augment=augment, workers=workers,
                    targets=lambda t: losses.target_arrays(self.loss, t),
                )  # fmt: skip
            samples = self.objective.samples(data.x, data.y, weights)
        else:
            samples = self.objective.samples(data, y, sample_weight)
            for _, target in leaves(samples.targets, "target"):
                self._warn_sorted(target, shuffle)
        self.objective.check_labels(samples)
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
        self._interrupted = False
        repeated = None if sample_weight is not None else self._repeat(x, y, self.planned)
        if repeated is not None:
            loss = float(repeated[1][0])
        else:
            samples = self.objective.samples(x, y, sample_weight)
            self.planned = max(self.planned, len(samples))
            loss = self._train_on(samples, self.planned).means()["loss"]
        if self._interrupted:
            raise KeyboardInterrupt
        return loss

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
            runner = engine.runner(("update", *self._program_key()), lambda: self._compile_update(layout))
            for name, array in arrays.items():
                store.grad_buffer.view(layout.params[name].grad_offset, array.shape, "f32", True)[...] = array
            self._write_scalars(0, 0)
            with runner.extra["guard"]:
                self._run(runner, ("update",), [], [], 1)

    def _train_on(self, samples: Samples, planned: int) -> Figures:
        """One step: forward and back for every piece of the batch, then the update. Returns the figures of the batch."""
        engine = self.net.engine
        figures = Figures()
        with engine.lock:
            pieces = samples.pieces(self.accumulate) if self.accumulate > 1 else [samples]
            n = max(-(-planned // self.accumulate), len(pieces[0]))
            key = ("train", *self.objective.key(samples), n, *self._program_key())
            runner = engine.runner(key, lambda: self._compile_training(pieces[0], n))
            offset = 0
            with runner.extra["guard"]:
                for number, piece in enumerate(pieces):
                    arrays = self.objective.arrays(runner, piece, len(piece) / len(samples))
                    self._write_scalars(number, offset)
                    outputs = Objective.buffers(runner, len(piece))
                    last = number == len(pieces) - 1
                    self._run(runner, ("forward", "grad", "update") if last else ("forward", "grad"), arrays, outputs, len(piece))
                    figures.add(runner, outputs, piece)
                    offset += len(piece)
            self._remember(runner, samples)
        return figures

    def _remember(self, runner: Runner, samples: Samples) -> None:
        """Notes the program of a step on one array with one target array, for ``_repeat``."""
        slots = [slot.name for slot in runner.compiled.inputs]
        self._recent = None
        if sorted(slots) == ["input", "target"] and not runner.compiled.prepares:
            limit = runner.extra["limits"].get("target", 0)
            dtypes = samples.inputs[0].dtype, samples.targets.dtype
            self._recent = _Recent((structure.now(), self._program_key()), weakref.ref(runner), *dtypes, limit, slots[0] == "input")

    def _repeat(self, x: Any, y: Any, planned: int) -> tuple[Runner, list[NDArray[Any]]] | None:
        """The step once more on a batch of the same kind as the last one, without the detours; None where anything is different.

        Returns its program and the outputs (loss, then the watched ones), good until the next step.
        """
        recent = self._recent
        runner = None if recent is None else recent.runner()
        if recent is None or runner is None or recent.key != (structure.now(), self._program_key()) or runner.n != planned:
            return None
        if type(x) is not np.ndarray or type(y) is not np.ndarray:
            return None
        n = len(x)
        of_x, of_y = (slot.type for slot in (runner.compiled.inputs if recent.input_first else reversed(runner.compiled.inputs)))
        if (
            not 0 < n <= runner.n or n != len(y) or x.dtype != recent.x_dtype or x.dtype != NUMPY_DTYPES[of_x.dtype]
            or not x.flags.c_contiguous or x.shape[1:] != of_x.shape[1:] or y.shape[1:] != of_y.shape[1:]
        ):  # fmt: skip
            return None
        if recent.limit and y.dtype.kind in "iu":
            if y.min() < 0 or y.max() >= recent.limit:
                return None
            target = y.astype(np.int32) if y.dtype != np.int32 or not y.flags.c_contiguous else y
        elif y.dtype == recent.y_dtype and y.flags.c_contiguous and (y.dtype.kind != "f" or np.isfinite(y).all()):
            target = y
        else:
            return None
        if target.dtype != recent.y_dtype:
            return None
        with self.net.engine.lock:
            outputs = Objective.buffers(runner, n)
            with runner.extra["guard"]:
                self._write_scalars(0, 0)
                self._run(runner, ("forward", "grad", "update"), [x, target] if recent.input_first else [target, x], outputs, n)
        return runner, outputs

    def _run(self, runner: Runner, entries: Sequence[str], arrays: Sequence[Any], outputs: Sequence[Any], n: int) -> None:
        bits = runner.bits(*entries)
        try:
            self._in_core = True
            runner.instance.run(bits, arrays, outputs, n, self._scalars)
        except KeyboardInterrupt:
            if not runner.extra["guard"].updated:
                raise
            self._interrupted = True  # the update is made: the step counts, and whoever called it is interrupted after it
        finally:
            self._in_core = False

    def _write_scalars(self, micro_step: int, sample: int) -> None:
        self._scalars[_SEED] = self.seed
        self._scalars[_STEP] = self.step_count
        self._scalars[_MICRO_STEP] = micro_step
        self._scalars[_SAMPLE] = sample
        self._doubles[_ACCUMULATE] = float(micro_step > 0)
        progress = self.progress
        self._last_lr = self.optimizer.schedules[0](progress)
        self.optimizer.write_scalars(self._doubles, progress)

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
            data, total = data_or_x, len(data_or_x)

            def piece_of(start: int, stop: int) -> Samples:
                return self.objective.samples(*data.slice(start, stop))

        else:
            if y is None:
                raise TypeError("evaluate: targets are missing: evaluate(x, y) or evaluate(dataset)")
            everything = self.objective.samples(data_or_x, y, sample_weight)
            total = len(everything)

            def piece_of(start: int, stop: int) -> Samples:
                return everything.map(lambda a: a[start:stop])

        samples = piece_of(0, 1)
        engine = self.net.engine
        with engine.lock:
            runner = engine.runner(("evaluate", *self.objective.key(samples)), lambda: self.objective.evaluation(samples))
            sums = Figures()
            for start in range(0, total, runner.n):
                stop = min(start + runner.n, total)
                piece = piece_of(start, stop)
                outputs = Objective.buffers(runner, len(piece))
                runner.instance.run(runner.bits("forward"), self.objective.arrays(runner, piece), outputs, len(piece))
                sums.add(runner, outputs, piece)
            return sums.means()

    # --- programs --------------------------------------------------------------------------------------------------------------------

    def training_program(self, samples: Samples, n: int) -> Compiled:
        """The program of one step on batches of up to ``n`` like ``samples``; not kept, not run."""
        return self._compile_training(samples, n).compiled

    def _compile_training(self, samples: Samples, n: int) -> Runner:
        from wiesel.passes.autodiff import gradients, name_gradient

        engine = self.net.engine
        graph, outputs, notes = self.objective.trace(samples, training=True)
        layout = self._layout(self._store())
        trained = [name for name in layout.trainable if name in graph.params]
        if not trained:
            raise ValueError("there is nothing to train: the net has no parameters, or all of them are frozen")
        seed = None
        if self.accumulate > 1:
            seed = graph.inputs[LOSS_SCALE] = Value(Type(()), "input", LOSS_SCALE)
        found = gradients(graph, {graph.outputs["loss"]: seed}, [graph.params[name] for name in trained])
        for name in trained:
            value = found.get(graph.params[name])
            if value is not None:
                graph.grads[name] = value
                name_gradient(value, name)
        whole = self.keep_grads or self.accumulate > 1 or self.clip_norm is not None  # gradients that are wanted all together
        runner = engine.assemble(
            graph,
            n=n,
            training=True,
            layout=layout,
            update=lambda em, taken: self._emit_update(em, layout, taken),
            take=None if whole else lambda segment: self.optimizer.take(layout, segment, self.clip_value),
            opt=self.memory.buffer(layout),
            fetches=["loss", *notes["watched"]],
            accumulate=self.accumulate > 1,
            outputs=outputs,
        )
        runner.extra.update(notes)
        return self._finish(runner, layout)

    def _compile_update(self, layout: Layout) -> Runner:
        runner = self.net.engine.assemble(
            Graph(),
            n=1,
            training=True,
            layout=layout,
            update=lambda em, taken: self._emit_update(em, layout, taken),
            opt=self.memory.buffer(layout),
        )
        return self._finish(runner, layout)

    def _finish(self, runner: Runner, layout: Layout) -> Runner:
        runner.extra.update(buffers=runner.instance.new_outputs(runner.n), guard=_Guard(self, runner.store, self.memory.mark(layout)))
        return runner

    def _emit_update(self, em: Emitter, layout: Layout, taken: Collection[str]) -> None:
        self.optimizer.emit(em, layout, taken=taken, clip_norm=self.clip_norm, clip_value=self.clip_value)
        self.memory.emit_mark(em, layout)

    def _program_key(self) -> tuple[Any, ...]:
        return (self.objective.token, self.accumulate, self.clip_norm, self.clip_value, self.keep_grads)

    def _store(self) -> Store:
        store = self.net.engine.store
        if store is None:
            raise ValueError("the net is not built: net.build((28, 28, 1)), or train a step first")
        return store

    def _layout(self, store: Store) -> Layout:
        return store.layout_for({name: self.optimizer.group_of(name) for name in store.params})

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

    def profile(self, x: Any, y: Any, *, runs: int = 10) -> Profile:
        """Where the time of a training step on this batch goes: see ``wiesel.profile.Profile``. Printed, a table; its effects are undone.

        Medians over ``runs`` runs after one that is not counted. Steps are timed only here: a run that nobody profiles reads no clock.

        >>> import numpy as np
        >>> import wiesel as wl
        >>> from wiesel import nn
        >>> trainer = wl.Trainer(nn.Sequential(nn.Linear(8, activation="relu"), nn.Linear(3)))
        >>> found = trainer.profile(np.ones((4, 16)), np.array([0, 1, 2, 0]), runs=3)
        >>> [row.name for row in found.by("entry").rows if row.name == "update"]
        ['update']
        """
        from wiesel.profile import profile_training

        return profile_training(self, x, y, runs=runs)

    def without_trace(self, x: Any, y: Any, use: Callable[..., Any]) -> Any:
        """``use(runner, entries, arrays, outputs, n, scalars)`` with the program of one step, whose effects are undone afterwards."""
        samples = self.objective.samples(x, y)
        engine = self.net.engine
        with engine.lock:
            self.planned = max(self.planned, len(samples))
            key = ("train", *self.objective.key(samples), self.planned, *self._program_key())
            runner = engine.runner(key, lambda: self._compile_training(samples, self.planned))
            self._write_scalars(0, 0)
            values, moments = self.net.state_dict(), self.memory.values()
            try:
                n = len(samples)
                arrays, outputs = self.objective.arrays(runner, samples), Objective.buffers(runner, n)
                return use(runner, ("forward", "grad", "update"), arrays, outputs, n, self._scalars)
            finally:
                self.net.load_state_dict(values)
                self.memory.restore(moments)
                engine.release()

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


@dataclass(frozen=True, slots=True)
class _Recent:
    """The program of the last step, and for which arrays it may be run again at once. The net owns it: ``release`` drops it."""

    key: tuple[Any, ...]
    runner: weakref.ref[Runner]
    x_dtype: np.dtype[Any]
    y_dtype: np.dtype[Any]
    limit: int
    input_first: bool


class _Guard:
    """Round a step: one that is stopped before its update leaves no trace; one whose update has happened counts."""

    def __init__(self, trainer: Trainer, store: Store, mark: NDArray[np.float32]) -> None:
        self._trainer = weakref.ref(trainer)
        self._store, self._mark = store, mark
        self._states = store.states_array()
        self._snapshot = np.empty_like(self._states)

    @property
    def updated(self) -> bool:
        return bool(self._mark[0] == 1.0)

    def __enter__(self) -> None:
        np.copyto(self._snapshot, self._states)
        self._mark[0] = 0.0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        trainer = self._trainer()
        if self.updated and trainer is not None:
            trainer.step_count += 1
            self._store.weight_version += 1
        else:
            np.copyto(self._states, self._snapshot)


class _EpochFunction(Callback):
    """A plain function as a callback: called after every epoch with the trainer and the record."""

    def __init__(self, function: Callable[[Trainer, Record], None]) -> None:
        self._function = function

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: Record) -> None:
        self._function(trainer, record)


def _plain(y: Any) -> bool:
    """Whether the targets are one array."""
    return not isinstance(y, (Mapping, tuple)) or (isinstance(y, tuple) and all(np.ndim(v) == 0 for v in y))
