"""Tables, kernel selection, thread counts, buffers, random numbers, checksums and the batch loops of the compiled modules."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from wiesel import _core
from wiesel.data._batch import gather_rows

ROOT = Path(__file__).resolve().parents[2]


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=False)


def test_tables_mirror_the_lists() -> None:
    ops = re.findall(r"^WL_OP\((\d+),\s*(\w+)\)", (ROOT / "cpp/ops/ops.inc").read_text(), re.MULTILINE)
    assert {name: int(number) for number, name in ops} == _core.OPCODES
    attrs = re.findall(r"^WL_ATTR\((\d+),\s*(\w+),\s*(\w+)\)", (ROOT / "cpp/ops/attrs.inc").read_text(), re.MULTILINE)
    assert {name: (int(number), kind) for number, name, kind in attrs} == _core.ATTRS
    assert _core.DTYPES == {"f32": 0, "f64": 1, "bf16": 2, "f16": 3, "u8": 4, "i8": 5, "i32": 6}
    assert list(_core.BUFFERS) == ["arena", "params", "grads", "state", "opt", "prepared", "consts", "input", "output"]
    assert _core.UNARY_KINDS["relu"] == 1
    assert set(_core.UNARY_SAVES.values()) == {"x", "y", "n"}
    assert _core.UNARY_KINDS.keys() == _core.UNARY_SAVES.keys()
    assert _core.SLOTS["first_group"] == 8
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert version[1] == _core.VERSION


def test_isa_can_be_forced() -> None:
    """U-41: WIESEL_ISA forces, isa() reports, what cannot run is an error that names what can."""
    isas = _core.isas()
    assert isas[0] == "ref"
    for isa in isas:
        done = python("from wiesel import _core; print(_core.isa())", WIESEL_ISA=isa)
        assert done.stdout.strip() == isa, done.stderr
    done = python("from wiesel import _core; _core.isa()", WIESEL_ISA="amx9")
    assert "ValueError" in done.stderr
    assert "amx9" in done.stderr
    assert ", ".join(isas) in done.stderr


def test_thread_counts() -> None:
    assert 1 <= _core.default_threads() <= 1024
    before = _core.num_threads()
    try:
        _core.set_num_threads(3)
        assert _core.num_threads() == 3
        for n in (0, -1, 5000):
            with pytest.raises(ValueError, match="number of threads"):
                _core.set_num_threads(n)
    finally:
        _core.set_num_threads(before)
    assert python("from wiesel import _core; print(_core.num_threads())", OMP_NUM_THREADS="3").stdout.strip() == "3"
    pinned = python(
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from wiesel import _core; print(_core.num_threads())"
    )
    if "OMP_NUM_THREADS" not in os.environ:
        assert pinned.stdout.strip() == "1"


def test_buffer_views() -> None:
    buffer = _core.Buffer(1 << 12)
    assert buffer.nbytes == 1 << 12
    a = buffer.view(64, (3, 5), "f32", writable=True)
    b = buffer.view(64, (15,), "f32")
    assert a.ctypes.data % 64 == 0
    assert not a.any()
    a[...] = np.arange(15).reshape(3, 5)
    np.testing.assert_array_equal(b, np.arange(15))
    assert not b.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        b[0] = 1
    del buffer, a
    gc.collect()
    np.testing.assert_array_equal(b, np.arange(15))  # the view keeps the memory
    assert _core.Buffer(0).view(0, (0,), "u8").size == 0
    assert _core.Buffer(64).view(60, (), "i32").shape == ()


@pytest.mark.parametrize(
    ("offset", "shape", "dtype"),
    [
        (-4, (1,), "f32"),
        (2, (1,), "f32"),
        (64, (1,), "u8"),
        (0, (17,), "f32"),
        (0, (-1,), "f32"),
        (0, (2**62, 2**62), "u8"),
        (0, (1,), "complex64"),
    ],
)
def test_views_outside_a_buffer_are_refused(offset: int, shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ValueError, match=r"does not fit|unknown dtype"):
        _core.Buffer(64).view(offset, shape, dtype)


def test_buffer_sizes() -> None:
    with pytest.raises(ValueError, match="-1 bytes"):
        _core.Buffer(-1)
    with pytest.raises(MemoryError):
        _core.Buffer(1 << 60)
    large = _core.Buffer(5 << 20)
    assert large.view(0, (5 << 20,), "u8").ctypes.data % (2 << 20) == 0


def test_buffer_memory_goes_back() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    before = resident()
    buffer = _core.Buffer(64 << 20)
    assert resident() - before < 8 << 20  # not touched yet
    buffer.view(0, (64 << 20,), "u8", writable=True)[...] = 1
    assert resident() - before > 60 << 20
    del buffer
    assert resident() - before < 8 << 20


def test_crc32_is_zlibs() -> None:
    data = np.random.default_rng(0).integers(0, 256, 10_001, dtype=np.uint8).tobytes()
    for size in (0, 1, 7, 8, 9, 10_001):
        assert _core.crc32(data[:size]) == zlib.crc32(data[:size])
    assert _core.crc32(memoryview(data)[3:]) == zlib.crc32(data[3:])


def test_random_numbers() -> None:
    a = _core.random_fill("uniform", 1, 0, 2, 3, (1000, 7))
    assert a.dtype == np.float32
    assert a.shape == (1000, 7)
    assert a.min() >= 0
    assert a.max() < 1
    np.testing.assert_array_equal(a, _core.random_fill("uniform", 1, 0, 2, 3, (1000, 7)))
    np.testing.assert_array_equal(a.ravel()[:10], _core.random_fill("uniform", 1, 0, 2, 3, (10,)))
    for other in ((2, 0, 2, 3), (1, 1, 2, 3), (1, 0, 3, 3), (1, 0, 2, 4)):
        assert not np.array_equal(a, _core.random_fill("uniform", *other, (1000, 7)))
    z = _core.random_fill("normal", 5, 0, 0, 0, (100_000,))
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.02
    assert _core.random_fill("normal", 0, 0, 0, 0, ()).shape == ()
    with pytest.raises(ValueError, match="kind 'cauchy'"):
        _core.random_fill("cauchy", 0, 0, 0, 0, (1,))


def test_random_permutation() -> None:
    p = _core.random_permutation(1000, 0, 1, 0, 0)
    assert p.dtype == np.int64
    assert sorted(p) == list(range(1000))
    assert not np.array_equal(p, _core.random_permutation(1000, 0, 1, 0, 1))
    assert _core.random_permutation(0, 0, 1, 0, 0).size == 0
    with pytest.raises(ValueError, match="at least 0"):
        _core.random_permutation(-1, 0, 1, 0, 0)
    first = [int(_core.random_permutation(3, seed, 1, 0, 0)[0]) for seed in range(3000)]
    assert np.bincount(first).min() > 900


def test_gather_rows() -> None:
    rng = np.random.default_rng(0)
    source = rng.integers(0, 256, (50, 37), dtype=np.uint8)
    index = rng.integers(0, 50, 64)
    out = np.zeros((64, 37), np.uint8)
    gather_rows(source, index, out)
    np.testing.assert_array_equal(out, source[index])
    source.setflags(write=False)
    gather_rows(source, index[:0], out[:0])
    with pytest.raises(ValueError, match="37 bytes"):
        gather_rows(source, index, np.zeros((64, 36), np.uint8))
    with pytest.raises(ValueError, match="64 indices for 63 rows"):
        gather_rows(source, index, out[:63])
    for bad in (50, -1):
        index[5] = bad
        with pytest.raises(IndexError, match=f"index {bad} at 5"):
            gather_rows(source, index, out)


def test_choose_reports_and_refuses() -> None:
    attrs = {"stride_h": 1, "stride_w": 1, "pad_top": 1, "pad_left": 1, "pad_bottom": 1, "pad_right": 1, "groups": 1}
    inputs = [("f32", (8, 16, 16, 32)), ("f32", (3, 3, 32, 64)), None, None]
    outputs = [("f32", (8, 16, 16, 64))]
    for isa in _core.isas():
        choice = _core.choose("conv_fwd", inputs, outputs, attrs, isa=isa, threads=2)
        assert choice["algorithm"] in _core.ALGORITHMS
        assert choice["workspace"] >= 0
        assert isinstance(choice["refused"], list)
    with pytest.raises(ValueError, match="unknown opcode"):
        _core.choose("convolve", inputs, outputs, attrs)
    with pytest.raises(ValueError, match="unknown attribute"):
        _core.choose("conv_fwd", inputs, outputs, {"stride": 1})
    with pytest.raises(ValueError, match="conv_fwd: "):
        _core.choose("conv_fwd", inputs, [("f32", (8, 17, 16, 64))], attrs)
    with pytest.raises(ValueError, match="isa 'mmx'"):
        _core.choose("conv_fwd", inputs, outputs, attrs, isa="mmx")
    with pytest.raises(ValueError, match="extent of 0"):
        _core.choose("conv_fwd", [("f32", (0, 1))], outputs, attrs)


def test_probe() -> None:
    for isa in _core.isas():
        assert _core.probe_flops(0.002, isa, 1) > 1e6
        assert _core.probe_products(0.002, isa, 1) > 1e6
    assert _core.probe_bytes("read", 1 << 16, 0.002) > 1e6
    assert _core.probe_bytes("copy", 1 << 16, 0.002, None, 2) > 1e6
    with pytest.raises(ValueError, match="known: read, copy"):
        _core.probe_bytes("write", 1 << 16, 0.002)
    with pytest.raises(ValueError, match="4096"):
        _core.probe_bytes("read", 100, 0.002)
    with pytest.raises(ValueError, match="vax"):
        _core.probe_flops(0.002, "vax")
