"""U-12: after the parent ran, children of every kind run too, with the same bits and in good time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.queues import Queue

import numpy as np
import pytest

from core_programs import FORWARD, scalars, sgd, unary_chain
from wiesel import _core


def train(steps: int = 20) -> bytes:
    """Parameters after some steps on two threads."""
    params, grads = _core.Buffer(1024), _core.Buffer(1024)
    params.view(0, (256,), "f32", writable=True)[...] = 1
    instance = _core.Instance(_core.Program(sgd(8192, 256)), params=params, grads=grads, threads=2)
    x = np.random.default_rng(0).standard_normal((8192, 256), dtype=np.float32)  # enough work for two threads
    y = np.empty_like(x)
    for _ in range(steps):
        instance.run(14, [x], [y], scalars=scalars(1e-4))
    return params.view(0, (256,), "f32").tobytes()


def send(queue: Queue[bytes]) -> None:
    queue.put(train())


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_train(method: str) -> None:
    """U-12"""
    expected = train()
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [context.Process(target=send, args=(queue,)) for _ in range(2)]
    for child in children:
        child.start()
    try:
        assert [queue.get(timeout=30) for _ in children] == [expected] * 2
    finally:
        for child in children:
            child.join(5)
            child.kill()
    assert train() == expected


def wait_for(child: int, seconds: float) -> int:
    """Exit code of a child; -1 when it had to be killed."""
    for _ in range(int(seconds * 100)):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_an_instance_of_the_parent_works_in_the_child() -> None:
    instance = _core.Instance(_core.Program(unary_chain(256, 1024, kind="gelu", steps=4)), threads=2)
    x = np.random.default_rng(1).standard_normal((256, 1024), dtype=np.float32)
    expected = instance.call(x)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            good = all(np.array_equal(instance.call(x), expected) for _ in range(20))
            code = 0 if good else 2
        finally:
            os._exit(code)
    assert wait_for(child, 20) == 0
    np.testing.assert_array_equal(instance.call(x), expected)


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_ctrl_c_in_a_forked_child() -> None:
    """The steps run on the thread that forked; the interrupt reaches them."""
    instance = _core.Instance(_core.Program(unary_chain(64, 4096, kind="gelu", steps=20_000)), isa="ref", threads=1)
    x = np.zeros((64, 4096), np.float32)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            y = np.empty_like(x)
            instance.run(FORWARD, [x], [y])
            code = 3
        except KeyboardInterrupt:
            code = 42
        finally:
            os._exit(code)
    time.sleep(0.3)
    os.kill(child, signal.SIGINT)
    assert wait_for(child, 10) == 42
