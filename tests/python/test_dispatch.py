"""Ops on arrays: conversion of inputs, symbolic mode, the cache of programs and its limit."""

import re
import threading
from pathlib import Path

import numpy as np
import pytest

from graphs import trace
from wiesel import _core, ops
from wiesel.graph.build import Trace
from wiesel.graph.ir import Type
from wiesel.graph.tensor import Tensor
from wiesel.ops.dispatch import call, to_array
from wiesel.program import eager


@pytest.fixture(autouse=True)
def _fresh_cache():
    eager.clear_cache()
    yield
    eager.clear_cache()


def test_arrays_are_computed_at_once():
    y = call("binary", [np.array([1.0, 2.0]), 3.0], {"kind": "add"})
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, [4.0, 5.0])


def test_symbolic_inputs_make_nodes():
    with Trace() as t:
        y = call("binary", [np.array([1.0, 2.0]), t.input("x", Type((2,)))], {"kind": "add"})
    assert isinstance(y, Tensor)
    assert len(t.graph.nodes) == 1


@pytest.mark.parametrize("convert", [
    lambda x: x.astype(np.float64),
    lambda x: x.astype(np.float16),
    lambda x: x.astype(">f4"),
    lambda x: np.asfortranarray(x),
    lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    lambda x: x[::-1][::-1],
    lambda x: x.tolist(),
    lambda x: np.broadcast_to(x, (2, *x.shape))[1],
])  # fmt: skip
def test_strides_and_dtypes_do_not_matter(convert):
    x = np.array([[1.0, -2.0, 0.5], [0.25, -0.0, 8.0]], np.float32)
    given = convert(x)
    if isinstance(given, np.ndarray):
        given.flags.writeable = False
    np.testing.assert_array_equal(ops.relu(given), np.maximum(x, 0))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int64, np.uint64, bool])
def test_integers_become_floats_where_floats_are_meant(dtype):
    np.testing.assert_array_equal(ops.add(np.array([0, 1, 1], dtype), 0.5), np.array([0.5, 1.5, 1.5], np.float32))


@pytest.mark.parametrize("bad", [np.array([1j]), np.array(["a"]), np.array([None]), np.array(["2020-01-01"], "datetime64[D]"), object()])
def test_what_is_no_number_is_refused_by_name(bad):
    with pytest.raises(TypeError, match=r"unary: input 0 has dtype"):
        ops.relu(bad)


def test_meaning_is_not_lost_silently():
    with pytest.raises(ValueError, match="beyond the range of float32"):
        ops.relu(np.array([1e300]))
    np.testing.assert_array_equal(ops.relu(np.array([np.inf, 1e-300])), np.array([np.inf, 0.0], np.float32))
    assert np.isnan(ops.relu(np.array([np.nan])))[0]
    with pytest.raises(ValueError, match="beyond the range of int32"):
        to_array(np.array([2**40]), ("i32",), "op", 1)
    with pytest.raises(TypeError, match="expected int32"):
        to_array(np.array([1.5]), ("i32",), "op", 1)
    assert to_array(np.array([7], np.int64), ("i32", "f32"), "op", 1).dtype == np.int32
    assert to_array(np.array([7.0]), ("i32", "f32"), "op", 1).dtype == np.float32
    assert to_array(np.array([7], np.uint8), ("f32", "u8"), "op", 1).dtype == np.uint8
    assert to_array(3, ("f32",), "op", 0).shape == ()


def test_empty_arrays_are_refused():
    with pytest.raises(ValueError, match="input 0 is empty"):
        ops.relu(np.zeros((0, 3)))


def test_inputs_are_not_changed():
    x = np.array([[-1.0, 2.0]], np.float32)
    y = ops.relu(x)
    z = ops.reshape(x, (2,))
    assert not np.shares_memory(x, y)
    assert not np.shares_memory(x, z)
    np.testing.assert_array_equal(x, [[-1.0, 2.0]])


def test_aliases_slices_and_transposes():
    x = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(ops.reshape(x, (4, 6)), x.reshape(4, 6))
    np.testing.assert_array_equal(ops.transpose(x, (2, 0, 1)), x.transpose(2, 0, 1))
    np.testing.assert_array_equal(ops.slice(x, [None, slice(1, 3), slice(0, 4, 2)]), x[:, 1:3, ::2])
    np.testing.assert_array_equal(ops.concat([x, x[:, :, :1]]), np.concatenate([x, x[:, :, :1]], 2))


def test_repeated_calls_use_one_program():
    for _ in range(3):
        ops.relu(np.ones((2, 3)))
    ops.relu(np.ones((2, 3), np.float32))
    assert eager.cache_info()["programs"] == 1
    ops.tanh(np.ones((2, 3)))
    ops.relu(np.ones((3, 2)))
    assert eager.cache_info()["programs"] == 3


def test_u01_the_cache_keeps_to_its_limit(monkeypatch):
    ops.relu(np.ones((1, 1)))
    one = eager.cache_info()["bytes"]
    monkeypatch.setattr(eager, "CACHE_BYTES", 20 * one)
    hot = np.ones((1, 1), np.float32)
    for i in range(1, 100):
        ops.relu(np.ones((1, i)))
        ops.relu(hot)
        info = eager.cache_info()
        assert info["bytes"] <= 20 * one
        assert info["programs"] <= 20
    kept = {key[1][1] for key in eager._cache}
    assert (1, 1) in kept  # used all the time
    assert (1, 99) in kept
    assert (1, 2) not in kept
    monkeypatch.setattr(eager, "CACHE_BYTES", 10)
    np.testing.assert_array_equal(ops.relu(np.ones((7, 7))), np.ones((7, 7)))


def test_u01_two_thousand_shapes_do_not_grow_the_memory():
    resource = pytest.importorskip("resource")
    for i in range(1, 201):
        ops.relu(np.ones((i, 3)))
    before = eager.cache_info()["bytes"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert before[0] < eager.CACHE_BYTES
    eager.clear_cache()
    assert eager.cache_info()["bytes"] == 0


def test_large_outputs_take_the_memory_of_those_that_are_gone():
    def address(array):
        return array.__array_interface__["data"][0]

    x = np.ones((512, 1024), np.float32)
    y = ops.relu(x)
    first, part = address(y), y[1:]
    del y
    z = ops.relu(-x)
    assert address(z) != first  # a view holds it
    np.testing.assert_array_equal(part, x[1:])
    np.testing.assert_array_equal(z, np.zeros_like(x))
    assert z.flags.c_contiguous
    assert z.flags.writeable
    del part
    assert eager.cache_info()["outputs"] == x.nbytes
    again = ops.exp(np.zeros_like(x))
    assert address(again) == first
    assert eager.cache_info()["outputs"] == 0
    np.testing.assert_array_equal(again, x)
    del again, z
    eager.clear_cache()
    assert eager.cache_info()["outputs"] == 0


def test_u01_memory_of_outputs_keeps_to_its_limit():
    for rows in range(12):
        ops.relu(np.ones((256 + rows, 1 << 15), np.float32))  # 32 MB and more, each of another size
        assert eager.cache_info()["outputs"] <= _core.MOST_KEPT
    assert eager.cache_info()["outputs"] > _core.MOST_KEPT // 2
    small = ops.relu(np.ones(16, np.float32))
    assert small.flags.owndata


def offered_to_the_system() -> int:
    """Bytes of this process that the operating system may take when it needs memory."""
    rollup = Path("/proc/self/smaps_rollup")
    text = rollup.read_text() if rollup.exists() else ""
    found = re.search(r"LazyFree:\s*(\d+) kB", text)
    if not found:
        pytest.skip("no LazyFree in /proc/self/smaps_rollup")
    return int(found[1]) * 1024


def test_memory_of_the_youngest_outputs_stays_and_of_the_others_is_offered():
    before = offered_to_the_system()
    for rows in range(4):
        ops.relu(np.ones((256 + rows, 1 << 10), np.float32))  # some megabytes, in all
    assert offered_to_the_system() == before
    for rows in range(12):
        ops.relu(np.ones((256 + rows, 1 << 15), np.float32))
    kept = eager.cache_info()["outputs"]
    assert kept // 2 < offered_to_the_system() - before <= kept - (32 << 20)  # one of these at least is among the youngest 64 MB


def test_threads_share_the_cache():
    errors: list[Exception] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(50):
                x = rng.standard_normal((rng.integers(1, 5), 8)).astype(np.float32)
                np.testing.assert_array_equal(ops.relu(x), np.maximum(x, 0))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_unknown_ops_and_attributes():
    with pytest.raises(KeyError, match="no op named 'nothing'"):
        call("nothing", [np.ones(2)])
    with pytest.raises(TypeError, match="unknown attribute 'knd'"):
        call("unary", [np.ones(2)], {"knd": "relu"})
    with pytest.raises(TypeError, match="unknown attribute 'knd'"):
        trace(lambda t: call("unary", [t.input("x", Type((2,)))], {"knd": "relu"}))
