"""Programs and instances through the bindings: loading, running, errors, interrupts, threads, memory."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from core_programs import FORWARD, GRAD, PREPARE, UPDATE, scalars, sgd, unary_chain
from wiesel import _core


def relu(n: int = 8, columns: int = 5, **options: Any) -> _core.Instance:
    return _core.Instance(_core.Program(unary_chain(n, columns)), **options)


def rows(n: int, columns: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, columns), dtype=np.float32)


def test_program_describes_itself() -> None:
    program = _core.Program(unary_chain(8, 5, steps=3))
    assert program.batch == 8
    memory = program.memory(threads=2)
    assert memory["arena"] == 192
    assert set(memory) == {"arena", "workspace", "prepared", "params", "grads", "state", "opt", "consts"}
    steps = program.steps()
    assert [s["opcode"] for s in steps] == ["unary"] * 3
    assert steps[0]["entry"] == "forward"
    assert steps[0]["path"] == "chain"
    assert steps[0]["inputs"][0]["shape"] == (8, 5)
    assert steps[0]["outputs"][0]["name"] == "t"


def test_damaged_programs_are_refused() -> None:
    data = unary_chain(8, 5)
    for size in range(0, len(data), 7):
        with pytest.raises(ValueError, match="byte"):
            _core.Program(data[:size])
    for offset in range(0, len(data), 11):
        damaged = bytearray(data)
        damaged[offset] ^= 0x10
        with pytest.raises(ValueError, match="byte"):
            _core.Program(bytes(damaged))
    with pytest.raises(TypeError):
        _core.Program("text")
    _core.Program(memoryview(data))


@pytest.mark.parametrize("isa", _core.isas())
def test_runs_any_batch_up_to_the_planned_one(isa: str) -> None:
    instance = relu(isa=isa)
    for n in (8, 1, 7, 8):
        x = rows(n)
        y = np.full_like(x, 9)
        instance.run(FORWARD, [x], [y])
        np.testing.assert_array_equal(y, np.maximum(x, 0))
        instance.run(entries=FORWARD, inputs=(x,), outputs=(y,), n=n)
        np.testing.assert_array_equal(instance.call(x), np.maximum(x, 0))


def test_training_entries_and_shared_buffers() -> None:
    program = _core.Program(sgd(8, 4))
    params, grads = _core.Buffer(64), _core.Buffer(64)
    w = params.view(0, (4,), "f32", writable=True)
    w[...] = [1, 2, 3, 4]
    one = _core.Instance(program, params=params, grads=grads)
    other = _core.Instance(program, params=params, grads=grads)
    x, y = np.ones((8, 4), np.float32), np.empty((8, 4), np.float32)
    one.run(FORWARD | GRAD | UPDATE, [x], [y], scalars=scalars(lr=0.125))
    np.testing.assert_array_equal(grads.view(0, (4,), "f32"), [8, 16, 24, 32])
    np.testing.assert_array_equal(w, [0, 0, 0, 0])
    w[...] = 2
    other.run(FORWARD, [x], [y])
    np.testing.assert_array_equal(y, 2 * x)
    one.run(PREPARE, (), ())


def test_missing_or_small_buffers() -> None:
    program = _core.Program(sgd(8, 4))
    with pytest.raises(ValueError, match="64 bytes of params, got 0"):
        _core.Instance(program)
    with pytest.raises(ValueError, match="64 bytes of grads, got 32"):
        _core.Instance(program, params=_core.Buffer(64), grads=_core.Buffer(32))
    with pytest.raises(ValueError, match="threads is -1"):
        relu(threads=-1)
    with pytest.raises(ValueError, match="isa 'nosuch'"):
        relu(isa="nosuch")


BAD_RUNS: list[tuple[str, Callable[[], tuple[Any, ...]]]] = [
    ("must be 1 to 15", lambda: (0, [rows(8)], [rows(8)])),
    ("must be 1 to 15", lambda: (16, [rows(8)], [rows(8)])),
    ("1 input slots, got 0", lambda: (2, [], [rows(8)])),
    ("1 output slots, got 2", lambda: (2, [rows(8)], [rows(8), rows(8)])),
    ("planned for 1 to 8", lambda: (2, [rows(9)], [rows(9)])),
    ("a batch of 0", lambda: (2, [rows(0)], [rows(0)])),
    ("planned for 1 to 8", lambda: (2, [rows(8)], [rows(8)], -3)),
    (r"input 0 \('x'\).*float32.*\(8, 5\).*got float64", lambda: (2, [rows(8).astype(np.float64)], [rows(8)])),
    (r"got float32 of shape \(8, 6\)", lambda: (2, [rows(8, 6)], [rows(8)])),
    (r"got float32 of shape \(40,\)", lambda: (2, [rows(8).ravel()], [rows(8)], 8)),
    (r"not contiguous", lambda: (2, [rows(8, 10)[:, ::2]], [rows(8)])),
    (r"not contiguous", lambda: (2, [rows(5, 8).T], [rows(8)])),
    (r"got a list", lambda: (2, [rows(8).tolist()], [rows(8)], 8)),
    (r"output 0 \('y'\).*\(8, 5\).*got float32 of shape \(7, 5\)", lambda: (2, [rows(8)], [rows(7)])),
    (r"foreign byte order", lambda: (2, [rows(8).astype(">f4")], [rows(8)])),
    (r"scalars must be", lambda: (2, [rows(8)], [rows(8)], 8, np.zeros(3, np.int64))),
    (r"scalars must be", lambda: (2, [rows(8)], [rows(8)], 8, np.zeros(_core.SLOTS["count"]))),
    (r"step_seconds must be", lambda: (2, [rows(8)], [rows(8)], 8, None, np.zeros(0))),
]


@pytest.mark.parametrize(("message", "arguments"), BAD_RUNS)
def test_bad_arrays_are_refused(message: str, arguments: Callable[[], tuple[Any, ...]]) -> None:
    with pytest.raises(ValueError, match=message):
        relu().run(*arguments())


def test_outputs_must_be_writable_and_apart() -> None:
    x = rows(8)
    fixed = rows(8)
    fixed.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        relu().run(FORWARD, [x], [fixed])
    with pytest.raises(ValueError, match="shares memory"):
        relu().run(FORWARD, [x], [x])
    relu().run(FORWARD, [fixed], [x])
    block = rows(16)
    with pytest.raises(ValueError, match="shares memory"):
        relu().run(FORWARD, [block[:8]], [block[4:12]])
    relu().run(FORWARD, [block[:8]], [block[8:]])


def test_bad_arguments() -> None:
    instance = relu()
    for arguments, keywords in (
        ((2,), {}),
        ((2, [], [], 1, None, None, None, None), {}),
        ((2, [rows(8)], [rows(8)]), {"m": 1}),
        ((2, [rows(8)], [rows(8)], 8), {"n": 8}),
        (("2", [rows(8)], [rows(8)]), {}),
        ((2, 5, [rows(8)]), {}),
    ):
        with pytest.raises(TypeError):
            instance.run(*arguments, **keywords)


def test_call_leaves_converting_to_python() -> None:
    """U-24: one layer through Python is one C call; what does not fit as it is comes back as None."""
    instance = relu()
    for x in (rows(8).astype(np.float64), rows(5, 8).T, rows(9), rows(0), rows(8, 4), rows(8).ravel(), rows(8).tolist(), np.float32(3)):
        assert instance.call(x) is None
    x = rows(3)
    y = instance.call(x)
    assert y is not None
    assert y.flags.c_contiguous
    assert y.flags.writeable
    assert y.flags.owndata
    many = _core.Instance(_core.Program(sgd(8, 4)), params=_core.Buffer(64), grads=_core.Buffer(64))
    assert many.call(rows(8, 4)) is not None
    with pytest.raises(TypeError):
        instance.call()


def test_no_heap_allocation_while_running() -> None:
    """O-05: between two runs the core takes nothing from the heap."""
    instance = _core.Instance(_core.Program(sgd(512, 64)), params=_core.Buffer(256), grads=_core.Buffer(256), threads=2)
    x, y, s = rows(512, 64), rows(512, 64), scalars(0.01)
    instance.run(15, [x], [y], scalars=s)
    before = _core.heap_allocations()
    for _ in range(48):
        instance.run(15, [x], [y], 512, s)
        instance.call(x)
    assert _core.heap_allocations() == before
    _core.Buffer(64)
    assert _core.heap_allocations() > before


def test_arena_high_water() -> None:
    instance = _core.Instance(_core.Program(unary_chain(8, 16, steps=2)))
    assert instance.arena_high_water == 0
    instance.call(rows(4, 16) + 10)
    assert instance.arena_high_water == 4 * 16 * 4
    instance.call(rows(8, 16) + 10)
    assert instance.arena_high_water == 8 * 16 * 4


def test_profile_per_step() -> None:
    program = _core.Program(unary_chain(64, 1000, kind="gelu", steps=4))
    seconds = np.zeros(4)
    x = rows(64, 1000)
    for _ in range(5):
        _core.Instance(program).run(FORWARD, [x], [np.empty_like(x)], step_seconds=seconds)
    assert (seconds > 0).all()


def test_same_bits_for_any_thread_count() -> None:
    """O-01: bits do not depend on the number of threads."""
    results = set()
    for threads in (1, 2, 3, 4, 7, 16):
        params, grads = _core.Buffer(256), _core.Buffer(256)
        params.view(0, (64,), "f32", writable=True)[...] = rows(1, 64, seed=5)[0]
        instance = _core.Instance(_core.Program(sgd(512, 64)), params=params, grads=grads, threads=threads)
        x, y = rows(512, 64), rows(512, 64)
        for _ in range(10):
            instance.run(14, [x], [y], scalars=scalars(1e-4))
        results.add(params.view(0, (64,), "f32").tobytes())
    assert len(results) == 1


def test_set_num_threads_holds_for_instances_that_follow_it() -> None:
    before = _core.num_threads()
    try:
        _core.set_num_threads(4)
        instance = relu(512, 512)
        x = rows(512, 512)
        expected = instance.call(x)
        for n in (1, 2, 8):
            _core.set_num_threads(n)
            np.testing.assert_array_equal(instance.call(x), expected)
    finally:
        _core.set_num_threads(before)


def test_two_threads_on_one_instance_and_on_two() -> None:
    shared = relu(64, 300)
    failures = []

    def work(seed: int) -> None:
        own = relu(64, 300)
        for i in range(100):
            x = rows(1 + (seed + i) % 64, 300, seed=seed)
            for instance in (shared, own):
                if not np.array_equal(instance.call(x), np.maximum(x, 0)):
                    failures.append((seed, i))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_floating_point_mode_is_the_callers() -> None:
    """Denormals count as zero inside a run and nowhere else."""
    x = np.full((8, 5), 1e-40, np.float32)
    instance = _core.Instance(_core.Program(sgd(8, 5)), params=(p := _core.Buffer(64)), grads=_core.Buffer(64), threads=2)
    p.view(0, (5,), "f32", writable=True)[...] = 1
    y = instance.call(x)
    assert y is not None
    assert not y.any()
    assert (x * np.float32(1)).any()


def long_running() -> tuple[_core.Instance, np.ndarray]:
    """About three seconds of many short steps."""
    program = _core.Program(unary_chain(64, 4096, kind="gelu", steps=20_000))
    return _core.Instance(program, isa="ref", threads=1), rows(64, 4096)


def test_ctrl_c_raises_between_two_steps() -> None:
    instance, x = long_running()
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        instance.call(x)
    assert time.perf_counter() - start < 1.5
    timer.join()
    np.testing.assert_array_equal(relu().call(rows(3)), np.maximum(rows(3), 0))


def test_signal_handlers_run_during_a_run() -> None:
    instance, x = long_running()

    class Stop(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise Stop

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Stop):
            instance.call(x)
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_the_gil_is_released() -> None:
    instance, x = long_running()
    done = threading.Event()
    count = 0

    def run() -> None:
        try:
            instance.call(x)
        except KeyboardInterrupt:
            pass
        finally:
            done.set()

    stop = False
    _core.stop_requested_hook(lambda: stop)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.1)
        count = sum(range(100_000))
        assert not done.is_set()
        reader = threading.Thread(target=lambda: instance.arena_high_water)  # waits for the run, not with the GIL
        reader.start()
        time.sleep(0.05)
        stop = True
        reader.join(5)
        thread.join(5)
        assert not reader.is_alive()
        assert done.is_set()
        assert count
    finally:
        _core.stop_requested_hook(None)


def test_stop_hook_never_interrupts_an_update() -> None:
    program = _core.Program(sgd(8, 4))
    params = _core.Buffer(64)
    w = params.view(0, (4,), "f32", writable=True)
    instance = _core.Instance(program, params=params, grads=_core.Buffer(64))
    x, y = np.ones((8, 4), np.float32), np.empty((8, 4), np.float32)
    asked: list[int] = []
    for stop_at in range(4):
        w[...] = 1
        asked.clear()

        def hook(stop_at: int = stop_at) -> bool:
            asked.append(1)
            return len(asked) == stop_at + 1

        _core.stop_requested_hook(hook)
        try:
            if stop_at < 3:  # before forward, before grad, before update
                with pytest.raises(KeyboardInterrupt):
                    instance.run(14, [x], [y], scalars=scalars(0.1))
                np.testing.assert_array_equal(w, 1)
            else:
                instance.run(14, [x], [y], scalars=scalars(0.1))
                assert (w != 1).all()
        finally:
            _core.stop_requested_hook(None)

    def broken() -> bool:
        raise RuntimeError("from the hook")

    _core.stop_requested_hook(broken)
    try:
        with pytest.raises(RuntimeError, match="from the hook"):
            instance.run(14, [x], [y])
    finally:
        _core.stop_requested_hook(None)


def test_combining_seconds_are_checked_and_part_of_the_step() -> None:
    program = _core.Program(unary_chain(64, 1000, kind="gelu", steps=2))
    x = rows(64, 1000)
    seconds, combining = np.zeros(2), np.zeros(2)
    _core.Instance(program).run(FORWARD, [x], [np.empty_like(x)], step_seconds=seconds, combining_seconds=combining)
    assert (seconds > 0).all()
    assert (combining == 0).all(), "nothing is summed here"
    with pytest.raises(ValueError, match="combining_seconds must be"):
        _core.Instance(program).run(FORWARD, [x], [np.empty_like(x)], step_seconds=seconds, combining_seconds=np.zeros(1))
