"""The protocol of the benchmarks: statistics, contenders as processes, case lists, agreement of the nets with the peer's."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from bench_modules import FOLDER, load
from wiesel.summary import summarize

protocol = load("protocol")
sys.modules["protocol"] = protocol  # the one that compare and layers import
layers = load("layers")
compare = load("compare")
nets = load("nets")
shapes = load("shapes")
sys.modules["shapes"] = shapes
sweep = load("sweep")


def test_ratio_of_few_rounds_is_the_whole_range() -> None:
    r = protocol.ratio([1.0] * 5, [1.1, 1.5, 1.2, 1.3, 1.4])
    assert (r.median, r.low, r.high) == (1.3, 1.1, 1.5)
    assert r.confidence == 1 - 2 / 32


def test_ratio_of_many_rounds_leaves_out_the_ends() -> None:
    r = protocol.ratio([1.0] * 20, [float(i) for i in range(1, 21)])
    assert (r.low, r.high) == (6.0, 15.0)  # the classical interval of 20: 95.9 %
    assert 0.95 <= r.confidence < 0.97


def test_ratio_is_taken_round_by_round() -> None:
    r = protocol.ratio([1.0, 2.0, 4.0, 8.0, 16.0], [1.5, 3.0, 6.0, 12.0, 24.0])
    assert (r.low, r.median, r.high) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize(("low", "high", "verdict"), [(1.0, 1.2, "reached"), (0.9, 1.1, "not shown"), (0.8, 0.99, "missed")])
def test_an_interval_that_crosses_the_target_shows_nothing(low: float, high: float, verdict: str) -> None:
    assert protocol.Ratio((low + high) / 2, low, high, 0.95).verdict(1.0) == verdict


def test_machine_is_described() -> None:
    facts = protocol.machine()
    assert facts["cores"] >= 1
    assert facts["system"]


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A contender whose steps take 2 ms."""
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "pipe.py").write_text((FOLDER / "peers" / "pipe.py").read_text())
    (tmp_path / "peers" / "sleeper.py").write_text(
        "import time\nfrom pipe import serve, timed\n"
        "def run(seconds, least):\n    return timed(lambda i: time.sleep(0.002), seconds, least)\n"
        "def fail():\n    print('noise')\n    raise ValueError('on purpose')\n"
        "serve({'run': run, 'fail': fail, 'die': lambda: __import__('os')._exit(3)})\n"
    )
    monkeypatch.setattr(protocol, "HERE", tmp_path)
    monkeypatch.setattr(protocol, "PAUSE", 0.0)
    return "sleeper.py"


def test_contenders_take_turns(peer: str) -> None:
    pair = [protocol.Contender(name, sys.executable, peer, threads=1) for name in ("a", "b")]
    try:
        times = protocol.rounds(pair, 3, seconds=0.01, least=2)
    finally:
        for contender in pair:
            contender.close()
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}
    assert all(0.002 <= value < 0.1 for values in times.values() for value in values)


def test_a_contender_s_error_and_death_reach_the_driver(peer: str) -> None:
    contender = protocol.Contender("a", sys.executable, peer, threads=1)
    with pytest.raises(RuntimeError, match="a: ValueError: on purpose"):
        contender.ask("fail")
    assert contender.ask("run", seconds=0.0, least=1)["steps"] == 1, "it goes on after an error"
    with pytest.raises(RuntimeError, match=r"the process ended \(exit code 3\)"):
        contender.ask("die")


def test_results_are_named_by_kind_machine_and_date(tmp_path: Path) -> None:
    path = protocol.write("train", {"machine": {"cpu": "Some(R) CPU @ 2.50GHz"}, "a": 1}, "table\n", tmp_path)
    assert path.name.startswith("train-some-r-cpu-2-50ghz-20")
    assert path.read_text() == "table\n"
    assert json.loads(path.with_suffix(".json").read_text())["a"] == 1


def test_layer_lines() -> None:
    layer = layers.parse("n2 ih9 iw7 ic4 oc6 kh3 kw1 sh2 ph1 pw0 g2  # odd one")
    assert (layer.name, layer.sw, layer.dilw, layer.g) == ("odd one", 2, 1, 2)
    assert layer.flops == 2 * 2 * 5 * 4 * 6 * 3 * 1 * 2
    assert layer.kind == "everything else"
    assert layers.parse("n2 ih9 ic4 oc6 kh3 ph1  # plain").kind == "3x3, stride 1"
    found = layers.read(FOLDER / "layers.txt")
    assert len(found) > 150
    assert len({layer.name for layer in found}) == len(found)


def result(net: str, wiesel: float, peers: dict[str, float], **more: object) -> dict[str, object]:
    """A result of train.py with the same times in every round, and twice the memory for peers."""
    contenders = {"wiesel": {"times": [wiesel] * 5, "cost": {"planned": 2**20, "growth": 2**20}}}
    for name, seconds in peers.items():
        contenders[name] = {"times": [seconds] * 5, "cost": {"planned": None, "growth": 2**21}}
    rates = {"floor": [0.03] * 5, "forecast": [0.11] * 5}
    return {"kind": "train", "net": net, "batch": 8, "target": 2.0, **rates, "contenders": contenders, "failed": {}, **more}


def run_of(*results: dict[str, object], cpu: str = "some", rounds: int = 5) -> dict[str, object]:
    machine = {"cpu": cpu, "cores": 2, "isa": ["avx2"], "forced": {}}
    return {"machine": machine, "peaks": {"fma_GFLOP/s": 100.0}, "threads": 2, "rounds": rounds, "results": list(results)}


def test_comparison_takes_the_best_setting_of_the_best_peer() -> None:
    lines = compare.table([result("a", 0.1, {"torch nchw": 0.4, "torch channels_last": 0.3, "other": 0.2})])
    assert "| net | batch | wiesel | torch | other |" in lines[0]
    assert "| a | 8 | 100 ±0 % | 300 ±0 % | 200 ±0 % | 2.00 (2.00-2.00) | other | 2: reached | 0.50 | 0.30 | 1.10 |" in lines


def test_comparison_gives_geometric_means_and_says_what_did_not_run() -> None:
    first, second = result("a", 0.1, {"torch": 0.2}), result("b", 0.1, {"torch": 0.8}, failed={"torch compiled": "no compiler"})
    text = "\n".join(compare.report([run_of(first), run_of(second)]))
    assert "Geometric mean of 2 nets: 4.00 (4.00-4.00)." in text
    assert "0.50 of the peer's, target 0.7: reached" in text
    assert "Share of the floor, geometric mean without lenet5: 0.30, target 0.5: missed." in text
    assert "b: torch compiled did not run: no compiler" in text
    assert "no compiler" not in "\n".join(compare.report([run_of(first, second)], details=False))


def test_comparison_takes_the_last_measurement_of_a_net_and_one_machine_only() -> None:
    old, new = result("a", 0.2, {}), result("a", 0.1, {})
    assert compare.merged([run_of(old), run_of(new)]) == [new]
    last = result("resnet50", 0.1, {})
    assert compare.merged([run_of(old, last)]) == [last, old], "in the order of nets.py"
    with pytest.raises(SystemExit, match="different machines make no table"):
        compare.report([run_of(old), run_of(new, cpu="other")])


def test_comparison_writes_between_marks_and_draws(tmp_path: Path) -> None:
    begin, end = compare.MARKS
    assert compare.replaced(f"a\n{begin}\nold\n{end}\nb\n", ["new"]) == f"a\n{begin}\nnew\n{end}\nb\n"
    with pytest.raises(SystemExit, match="no lines"):
        compare.replaced("a\n", ["new"])
    pytest.importorskip("matplotlib")
    compare.picture([result("a", 0.1, {"torch nchw": 0.2, "other": 0.3}), result("b", 0.1, {"torch nchw": 0.2})], tmp_path / "bars.svg")
    assert (tmp_path / "bars.svg").read_text().count("torch") >= 1


def test_nets_are_chosen_by_name() -> None:
    assert [case.name for case in nets.choose("resnet50,train cifar10", recipes=True)] == ["resnet50", "train cifar10"]
    assert len(nets.choose("all", recipes=True)) == 11
    with pytest.raises(SystemExit, match="unknown nets vgg; known: lenet5, "):
        nets.choose("vgg", recipes=False)


def test_recipes_are_those_of_the_command_line() -> None:
    from wiesel.cli.recipes import _RECIPES

    for case in nets.RECIPES.values():
        recipe = _RECIPES[case.name.removeprefix("train ")]
        assert (case.net, case.batch) == (recipe.net, recipe.batch_size)
        assert (case.optimizer["momentum"], case.optimizer["weight_decay"]) == (recipe.momentum, recipe.weight_decay)


def test_floor_of_a_step_counts_arithmetic_and_the_bytes_of_large_tensors() -> None:
    from wiesel import nn

    floor = load("peers/wiesel_floor")
    plain = floor.floor_of(nn.Sequential(nn.Conv2d(8, 5), nn.Flatten(), nn.Linear(10)), (2, 8, 8, 3))
    conv, dense = 2 * 2 * 16 * 8 * 75, 2 * 2 * 128 * 10
    assert [operations for operations, _ in plain if operations] == [conv, conv, dense, dense, dense]
    assert all(size == 0 for _, size in plain)
    block = floor.floor_of(
        nn.Sequential(nn.Conv2d(32, 3, padding=1, bias=False), nn.BatchNorm2d(), nn.ReLU(), nn.MaxPool2d(2)), (16, 64, 64, 32)
    )
    large, small = 16 * 64 * 64 * 32 * 4, 0.0  # the pooled tensor stays in cache
    winograd = 2 * 16 * 64 * 64 * 32 * 32 * 9 / 2.7
    assert block[:2] == [(pytest.approx(winograd), 2 * large), (pytest.approx(winograd), 3 * large)]
    assert block[3:] == [(0, large + small), (0, large + small), (0, 2 * large)]
    assert floor.at_best(block[:1], flops=1e18, bandwidth=1e9) == 2 * large / 1e9
    assert floor.at_best(block[:1], flops=1e9, bandwidth=1e18) == pytest.approx(winograd / 0.95e9)


def test_share_of_the_floor_takes_the_rates_of_each_round() -> None:
    found = result("a", 0.1, {"torch": 0.2}, floor=[0.02, 0.03, 0.05, 0.06, 0.07])
    assert compare.by_rates(found, "floor") == pytest.approx(0.5)
    assert compare.by_rates(result("a", 0.1, {}, floor=[]), "floor") is None


def test_memory_of_a_step_is_what_it_adds_to_the_resident_memory() -> None:
    code = (
        "import pipe\npipe.mark()\nkept = b'x' * (30 << 20)\n"
        "print(pipe.growth(lambda number: len(b'y' * (50 << 20))))\nassert len(kept) == 30 << 20"
    )  # in a process of its own: what this one frees meanwhile would be counted too
    run = subprocess.run([sys.executable, "-c", code], cwd=FOLDER / "peers", capture_output=True, text=True, check=True)
    found = run.stdout.strip()
    assert found == "None" or 75 << 20 <= int(found) <= 100 << 20


def test_layers_are_averaged_by_class_and_direction() -> None:
    lines = ["n1 ih9 ic4 oc6 kh3 ph1  # a", "n1 ih9 ic4 oc6 kh3 ph1  # b", "n1 ih9 ic4 oc6 kh1  # c"]
    results = [
        {"layer": asdict(layers.parse(line)), "direction": "forward", "flops": 1, "times": {"wiesel": [1.0] * 5, "torch nchw": [peer] * 5}}
        for line, peer in zip(lines, (2.0, 8.0, 0.5), strict=True)
    ]
    text = layers.table(results, {}, 0.8)
    assert "- 3x3, stride 1, forward: geometric mean of 2 4.00 (4.00-4.00), target 2: reached" in text
    assert "- everything else, forward: geometric mean of 1 0.50 (0.50-0.50), target 1: missed" in text


def test_peers_do_not_import_wiesel() -> None:
    for path in (FOLDER / "peers").glob("*.py"):
        if not path.name.startswith("wiesel"):
            lines = path.read_text().splitlines()
            assert not [line for line in lines if line.startswith(("import wiesel", "from wiesel"))]


@pytest.mark.slow
@pytest.mark.skipif("WIESEL_PEER_PYTHON" not in os.environ, reason="set WIESEL_PEER_PYTHON to an interpreter that has torch")
def test_training_benchmark_compares_equal_nets(tmp_path: Path) -> None:
    command = [sys.executable, FOLDER / "train.py", "--peer-python", os.environ["WIESEL_PEER_PYTHON"], "--settings", "channels_last"]
    command += ["--nets", "lenet5,mnist,resnet18-32,train fashion-mnist", "--rounds", "5", "--seconds", "0.05", "--out", tmp_path]
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "| lenet5 | 64 |" in run.stdout


@pytest.mark.slow
@pytest.mark.skipif("WIESEL_PEER_PYTHON" not in os.environ, reason="set WIESEL_PEER_PYTHON to an interpreter that has torch")
def test_twins_have_as_many_parameters() -> None:
    from wiesel import models

    script = "from torch_nets import NETS; print({name: sum(p.numel() for p in make().parameters()) for name, make in NETS.items()})"
    environment = {**os.environ, "PYTHONPATH": str(FOLDER / "peers")}
    run = subprocess.run([os.environ["WIESEL_PEER_PYTHON"], "-c", script], env=environment, capture_output=True, text=True, check=True)
    theirs = ast.literal_eval(run.stdout)
    cases = {case.net: case for case in (*nets.CASES.values(), *nets.RECIPES.values())}
    assert theirs.keys() == cases.keys()
    options = {"lenet5": {"padding": 2}}
    ours = {name: summarize(models.create(name, **options.get(name, {})), case.shape).parameters for name, case in cases.items()}
    assert ours == theirs


def test_contenders_are_held_to_an_instruction_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in protocol.FORCED:
        monkeypatch.setenv(name, "")  # put back after the test
    monkeypatch.setattr(protocol, "peaks", lambda threads: {})
    arguments = ["--peer", "torch,ncnn", "--isa", "avx2", "--label", "four", "--out", str(tmp_path)]
    options = protocol.arguments("", peers=("torch", "ncnn"), seconds=1.0).parse_args(arguments)
    session = protocol.Session("train", options, ("torch", "ncnn"))
    assert session.facts["forced"] == protocol.HOLDS["avx2"]
    assert "ncnn" not in session.peers + session.absent, "nothing holds it"
    assert options.label == "four-avx2"


@pytest.mark.parametrize("op", shapes.OPS)
def test_random_shapes_are_legal_and_the_same_for_a_seed(op: str) -> None:
    drawn = [[shapes.draw(op, np.random.default_rng(seed)) for seed in range(5)] for _ in range(2)]
    assert drawn[0] == drawn[1]
    for words in drawn[0]:
        assert shapes.parse(shapes.text(words)) == words
        assert shapes.problem(op, words).kind


def test_multiply_adds_leave_out_padding() -> None:
    words = shapes.parse("n2 ih3 iw3 ic4 oc5 kh3 kw3 sh1 sw1 dh1 dw1 g1 pt1 pl1 pb1 pr1")
    assert shapes.macs("conv_fwd", words) == 2 * (2 + 3 + 2) ** 2 * 4 * 5


def test_sweep_measures_every_op_and_merges(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """O-18: what the sweep does; its figures are no test."""
    monkeypatch.setattr(shapes, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(shapes, "MOST_MACS", 1 << 20)
    rows = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["sweep.py", "--count", "1", "--seconds", "0", "--rows", str(rows)])
    assert sweep.main() == 0
    found = json.loads(rows.read_text())["rows"]
    assert {row["op"] for row in found} - {"conv_pack"} == set(shapes.OPS)
    assert all(row["floor"] > 0 and 0 < row["seconds"] < 1 for row in found)
    monkeypatch.setattr(sys, "argv", ["sweep.py", "--merge", str(rows), str(rows), "--out", str(tmp_path)])
    assert sweep.main() == 0
    assert f"{2 * len(found)} shapes" in capsys.readouterr().out
    assert len(list(tmp_path.glob("sweep-*.md"))) == 1


def test_sweep_holds_shapes_against_the_median_of_their_class() -> None:
    rows = [{"op": "matmul", "kind": "plain", "shape": f"m{i}", "seconds": 1.0, "floor": 0.5, "algorithm": ""} for i in range(8)]
    slow = {**rows[0], "shape": "m99", "floor": 0.1}
    other = {**slow, "kind": "few rows", "shape": "m1"}  # alone in its class: no median
    assert [(row["shape"], row["relative"]) for row in sweep.cliffs([*rows, slow, other])] == [("m99", 0.2)]
    text = "\n".join(sweep.report([*rows, slow, other]))
    assert "| matmul | plain | 9 | 0.50 | 0.10 | 1 |" in text
    assert "10 shapes, 1 below a third of the median of their class." in text
