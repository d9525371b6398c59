"""The protocol of the benchmarks: statistics, contenders as processes, case lists, agreement of the nets with the peer's."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location(f"bench_{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(FOLDER))


protocol = load("protocol")
layers = load("layers")


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
    found = layers.read(FOLDER / "layers.txt")
    assert len(found) > 20
    assert len({layer.name for layer in found}) == len(found)


def test_peers_do_not_import_wiesel() -> None:
    for path in (FOLDER / "peers").glob("*.py"):
        if not path.name.startswith("wiesel"):
            lines = path.read_text().splitlines()
            assert not [line for line in lines if line.startswith(("import wiesel", "from wiesel"))]


@pytest.mark.slow
@pytest.mark.skipif("WIESEL_PEER_PYTHON" not in os.environ, reason="set WIESEL_PEER_PYTHON to an interpreter that has torch")
def test_training_benchmark_compares_equal_nets(tmp_path: Path) -> None:
    command = [sys.executable, FOLDER / "train.py", "--peer-python", os.environ["WIESEL_PEER_PYTHON"], "--peer-settings", "channels_last"]
    command += ["--nets", "lenet5,mnist,resnet18-32", "--rounds", "5", "--seconds", "0.05", "--out", tmp_path]
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "| lenet5 | 64 |" in run.stdout
