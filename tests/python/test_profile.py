"""The profiler (O-25), the machine's measured rates, and what a step is said to do."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import wiesel as wl
from wiesel import nn, optim
from wiesel.probe import Machine
from wiesel.profile import Profile


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(8, 3, activation="relu"), nn.BatchNorm2d(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5))


@pytest.fixture(scope="module")
def training() -> Profile:
    rng = np.random.default_rng(0)
    trainer = wl.Trainer(small().build((12, 12, 3), seed=0), optimizer=optim.SGD(0.1, momentum=0.9))
    return trainer.profile(rng.standard_normal((6, 12, 12, 3)), rng.integers(0, 5, 6), runs=3)


def test_machine_is_measured_once_per_instruction_set_and_threads() -> None:
    found = wl.machine()
    assert found is wl.machine()
    assert (found.isa, found.threads) == (wl.isa(), wl.num_threads())
    assert found.flops > found.bandwidth > 1e8
    rates = [rate for _, rate in found.levels]
    assert rates == sorted(rates, reverse=True)
    assert found.levels[-1][1] == found.copy
    assert f"{found.isa}, {found.threads} thread" in str(found)
    with pytest.raises(ValueError, match="vax"):
        wl.machine("vax")


def test_bandwidth_between_two_levels() -> None:
    m = Machine("ref", 1, 1e9, 0.9e9, 5.0, 4.0, ((100, 64.0), (10000, 4.0)))
    assert [m.bandwidth_of(n) for n in (1, 100, 10000, 1e9)] == [64.0, 64.0, 4.0, 4.0]
    assert m.bandwidth_of(1000) == pytest.approx(16.0)
    assert (m.bandwidth, m.ridge) == (5.0, 2e8)


def test_rows_say_operations_and_bytes_of_the_batch_at_hand(training: Profile) -> None:
    """O-25: per step time, operations by the direct formula, bytes of the operands once; for forward, gradient and update steps."""
    assert training.batch == 6
    rows = {(row.opcode, row.path): row for row in training.rows}
    conv = rows["conv_fwd", "0"]
    assert conv.flops == 2 * 6 * 10 * 10 * 27 * 8
    assert conv.output == "6×10×10×8"
    assert conv.nbytes >= 4 * 6 * (12 * 12 * 3 + 10 * 10 * 8)
    assert rows["conv_bwd_weights", "0"].flops == conv.flops
    update = next(row for row in training.rows if row.entry == "update" and row.opcode == "sgd_update")
    assert update.flops > 0
    running = rows["bn_running", "1"]
    assert running.nbytes == 4 * 6 * 8, "x is asked for its extents only"
    assert all(row.seconds >= row.combining >= 0 for row in training.rows)
    assert training.wall > 0
    assert training.total == pytest.approx(sum(row.seconds for row in training.rows))


def test_inference_counts_the_pictures_given_not_those_planned() -> None:
    net = small().build((12, 12, 3))
    one, three = (net.profile(np.zeros((n, 12, 12, 3)), runs=1) for n in (1, 3))
    assert [row.flops * 3 for row in one.rows] == [row.flops for row in three.rows]
    assert three.rows[-1].output == "3×5"
    assert all(row.entry == "forward" for row in three.rows)


def test_combining_is_counted_where_partial_sums_are_added_up() -> None:
    """Batch statistics and weight gradients are sums of the tasks' own sums; backward-data has none."""
    rng = np.random.default_rng(0)
    trainer = wl.Trainer(nn.Sequential(nn.Conv2d(16, 3), nn.BatchNorm2d(), nn.Flatten(), nn.Linear(3)).build((32, 32, 3), seed=0))
    found = trainer.profile(rng.standard_normal((16, 32, 32, 3)), rng.integers(0, 3, 16), runs=3)
    assert 0 < found.combining < found.total
    assert {row.opcode for row in found.rows if row.combining > 0} >= {"conv_fwd", "bn_bwd", "conv_bwd_weights"}
    assert all(row.combining == 0 for row in found.rows if row.opcode == "conv_bwd_data")


def test_profiling_leaves_program_and_bits_alone() -> None:
    """No cost when off: the program that is profiled is the one that runs, without a step more, and its results are the same."""
    net, x = small().build((12, 12, 3), seed=0), np.random.default_rng(1).standard_normal((4, 12, 12, 3)).astype(np.float32)
    before = net(x)
    runner = net.engine.inference([x], len(x), None)
    found = net.profile(x, runs=2)
    assert net.engine.inference([x], len(x), None) is runner
    assert len(found.rows) == sum(step["entry"] == "forward" for step in runner.compiled.steps())
    assert np.array_equal(net(x), before)


def test_table_is_aligned_and_sorted(training: Profile) -> None:
    """O-25: the table."""
    lines = str(training).splitlines()
    head, body, total = lines[0], lines[1 : 1 + len(training.rows)], lines[1 + len(training.rows)]
    for title in ("ms", "share", "GFLOP/s", "% peak", "GB/s", "% band", "entry", "step", "path", "output", "algorithm"):
        assert title in head
    times = [float(line.split()[0]) for line in body]
    assert times == sorted(times, reverse=True)
    assert all(line[head.index("entry") - 1] == " " for line in body)
    assert "batch 6" in total
    assert "ordered combining" in str(training)
    assert str(training.machine) in str(training)


@pytest.mark.parametrize("key", ["opcode", "module", "entry", "algorithm"])
def test_sums(training: Profile, key: str) -> None:
    sums = training.by(key)
    assert sum(row.seconds for row in sums.rows) == pytest.approx(training.total)
    assert sum(row.flops for row in sums.rows) == sum(row.flops for row in training.rows)
    assert sum(row.steps for row in sums.rows) == len(training.rows)
    assert key in str(sums).splitlines()[0]


def test_unknown_key_and_no_runs() -> None:
    net = nn.Sequential(nn.Linear(2)).build((3,))
    with pytest.raises(ValueError, match="'colour'; known: opcode, module"):
        net.profile(np.zeros((1, 3)), runs=1).by("colour")
    with pytest.raises(ValueError, match="at least 1"):
        net.profile(np.zeros((1, 3)), runs=0)


def test_chrome_trace_loads(training: Profile, tmp_path: Path) -> None:
    """O-25: the trace is the JSON that chrome://tracing reads: complete events, one after the other, in microseconds."""
    training.chrome_trace(tmp_path / "trace.json")
    found = json.loads((tmp_path / "trace.json").read_text())
    events = [event for event in found["traceEvents"] if event["ph"] == "X"]
    assert [event["name"] for event in events] == [f"{row.opcode} {row.path}".strip() for row in training.rows]
    assert all(event.keys() >= {"name", "cat", "ts", "dur", "pid", "tid", "args"} for event in events)
    for event, after in itertools.pairwise(events):
        assert event["ts"] + event["dur"] == pytest.approx(after["ts"])
    assert sum(event["dur"] for event in events) == pytest.approx(1e6 * training.total)


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_roofline_picture(training: Profile, tmp_path: Path) -> None:
    """O-25: the roofline picture."""
    training.roofline(tmp_path / "roof.png")
    assert (tmp_path / "roof.png").read_bytes().startswith(b"\x89PNG")
    training.roofline(tmp_path / "roof.svg")
    text = (tmp_path / "roof.svg").read_text()
    assert text.lstrip().startswith("<?xml")
    idle = nn.Sequential(nn.Flatten()).build((4, 4, 1)).profile(np.zeros((1, 4, 4, 1)), runs=1)
    with pytest.raises(ValueError, match="arithmetic"):
        idle.roofline(tmp_path / "none.png")
