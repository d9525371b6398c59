"""The command line, on small made files."""

from __future__ import annotations

import gzip
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import wiesel as wl
from wiesel.cli import recipes
from wiesel.cli.main import main

PYTHON = Path(wl.__file__).resolve().parents[1]


def idx(array: np.ndarray) -> bytes:
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes(), 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST's files with 600 + 100 pictures: class c is a bright bar at height 2c, in noise."""
    folder = tmp_path_factory.mktemp("data") / "mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, n in (("train", 600), ("t10k", 100)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        pictures = rng.integers(0, 120, (n, 28, 28), dtype=np.uint8)
        for picture, label in zip(pictures, labels, strict=True):
            picture[2 + 2 * label : 5 + 2 * label, 4:24] = 250
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(pictures))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    return folder.parent


@pytest.fixture(scope="module")
def trained(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a run of three epochs leaves."""
    out = tmp_path_factory.mktemp("run")
    assert main(["train", "mnist", "--data-dir", str(files), "--epochs", "3", "--batch-size", "32", "--out", str(out)]) == 0
    return out


def test_train_reports(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["net"] == "lenet5"
    assert summary["parameters"] == 61706
    assert len(summary["history"]) == 3
    assert summary["test"]["accuracy"] > 0.5
    assert len(summary["test"]["classes"]) == 10
    for name in ("confusion.png", "curve.png"):
        assert (trained / name).read_bytes()[:4] == b"\x89PNG"
    net = wl.load(trained / "net.wsl")
    assert net.class_names == list("0123456789")


def test_train_prints_progress_and_table(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "mnist", "--data-dir", str(files), "--epochs", "1", "--net", "mnist", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "540 training, 60 validation, 100 test pictures of 28x28x1, 10 classes" in shown
    assert "epoch 1/1" in shown
    assert "images/s" in shown
    assert "left" in shown
    assert "test accuracy" in shown
    assert "precision  recall" in shown


def test_s04_the_net_takes_raw_bytes(trained: Path, files: Path) -> None:
    net = wl.load(trained / "net.wsl")
    test = wl.data.load("mnist", files).test
    assert test.x.dtype == np.uint8
    assert net(test.x[:3]).shape == (3, 10)


def test_evaluate_repeats_the_figures_of_training(trained: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained / "net.wsl"), "mnist", "--data-dir", str(files), "--out", str(tmp_path)]) == 0
    accuracy = json.loads((trained / "summary.json").read_text())["test"]["accuracy"]
    assert f"accuracy {100 * accuracy:.2f} %" in capsys.readouterr().out
    assert (tmp_path / "confusion.png").is_file()
    assert main(["evaluate", str(trained / "net.wsl"), "mnist", "--data-dir", str(files), "--split", "validation"]) == 0


def test_predict_names_classes_and_bad_files(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    picture = np.full((56, 56), 60, np.uint8)
    picture[20:26, 8:48] = 250  # the bar of class 4, twice as large
    image.fromarray(picture).save(tmp_path / "four.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    assert main(["predict", str(trained / "net.wsl"), str(tmp_path / "bad.png"), str(tmp_path / "four.png"), "--top", "2"]) == 1
    out, err = capsys.readouterr()
    assert "bad.png: not a readable picture" in err
    assert "four.png: " in out
    assert out.count("%") == 2


def test_summary_and_explain(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", str(trained / "net.wsl"), "--config"]) == 0
    assert "61,706" in capsys.readouterr().out
    assert main(["summary", "resnet14", "--input", "32,32,3"]) == 0
    assert main(["explain", "lenet5", "--input", "32x32x1", "--training", "--batch-size", "8"]) == 0
    assert "conv_bwd_weights" in capsys.readouterr().out


def run(*arguments: str, **how: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(PYTHON), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "wiesel.cli.main", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_o07_ctrl_c_then_resume_gives_the_same_bytes(files: Path, tmp_path: Path) -> None:
    arguments = ["train", "mnist", "--data-dir", str(files), "--epochs", "4", "--batch-size", "16"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main([*arguments, "--out", str(whole)]) == 0
    process = run(*arguments, "--out", str(broken))
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 1/4"):
            break
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert not (broken / "net.wsl").exists()
    assert main(["train", "mnist", "--data-dir", str(files), "--resume", str(broken / "checkpoint.wsl")]) == 0
    assert (broken / "net.wsl").read_bytes() == (whole / "net.wsl").read_bytes()
    accuracies = [json.loads((folder / "summary.json").read_text())["test"]["accuracy"] for folder in (whole, broken)]
    assert accuracies[0] == accuracies[1]
    histories = [json.loads((folder / "summary.json").read_text())["history"] for folder in (whole, broken)]
    assert [epoch["loss"] for epoch in histories[0]] == [epoch["loss"] for epoch in histories[1]]


def test_resume_takes_the_settings_of_the_checkpoint(
    trained: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = str(trained / "checkpoint.wsl")
    assert main(["train", "mnist", "--data-dir", str(files), "--resume", checkpoint, "--lr", "1", "--net", "mnist"]) == 1
    assert "leave out --net, --lr" in capsys.readouterr().err
    assert main(["train", "digits", "--resume", checkpoint]) == 1
    assert "was trained on mnist, not digits" in capsys.readouterr().err
    assert main(["train", "mnist", "--resume", str(tmp_path / "none.wsl")]) == 1
    assert "no checkpoint at" in capsys.readouterr().err
    (tmp_path / "checkpoint.wsl").write_bytes((trained / "checkpoint.wsl").read_bytes())
    assert main(["train", "mnist", "--resume", str(tmp_path / "checkpoint.wsl")]) == 1
    assert "settings.json is missing" in capsys.readouterr().err
    (tmp_path / "settings.json").write_text('{"data": 1')
    assert main(["train", "mnist", "--resume", str(tmp_path / "checkpoint.wsl")]) == 1
    assert "not the settings of a training run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["train", "mnist", "--data-dir", "/nowhere"], "train-images-idx3-ubyte.gz"),
        (["train", "digits", "--net", "lenet6"], "no model named 'lenet6'; known:"),
        (["predict", "/nowhere/net.wsl", "a.png"], "/nowhere/net.wsl"),
        (["summary", "lenet5"], "--input 32,32,3"),
        (["summary", "nonsense"], "no model named 'nonsense'"),
        (["bench", "--nets", "vgg"], "no benchmark of vgg"),
    ],
)
def test_errors_are_one_line(arguments: list[str], match: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"wiesel {arguments[0]}: ")
    assert match in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "arguments", [[], ["train"], ["train", "imagenet"], ["train", "digits", "--epochs", "0"], ["summary", "x", "--input", "a"]]
)
def test_wrong_usage_is_exit_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_pixel_statistics_are_those_of_numpy() -> None:
    x = np.random.default_rng(0).integers(0, 256, (2500, 3, 4, 2), dtype=np.uint8)
    mean, std = recipes.pixel_statistics(wl.data.Dataset(x, np.zeros(2500, int)))
    assert mean == pytest.approx(x.mean(axis=(0, 1, 2)) / 255, abs=1e-4)
    assert std == pytest.approx(x.std(axis=(0, 1, 2)) / 255, abs=1e-4)


def test_a_recipe_survives_its_file(tmp_path: Path) -> None:
    train = wl.data.Dataset(np.zeros((4, 28, 28, 1), np.uint8), [0, 1, 2, 3])
    recipe = recipes.recipe_for("mnist", train, net=None, epochs=2, batch_size=None, lr=0.25, seed=7)
    assert (recipe.epochs, recipe.lr, recipe.seed, recipe.classes, recipe.options) == (2, 0.25, 7, 4, (("padding", 2),))
    recipe.save(tmp_path / "settings.json")
    assert recipes.Recipe.load(tmp_path / "settings.json") == recipe


def test_bench_prints_rates_and_step_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """O-25, O-19: rates of the machine, compile and step times, LeNet-5 beside its kernels, the profile, trace and picture."""
    options = ["--nets", "lenet5", "--seconds", "0.05", "--json", "b.json", "--trace", "t.json", "--roofline", "r.png"]
    assert main(["bench", *(str(tmp_path / o) if "." in o and o[0] in "btr" else o for o in options)]) == 0
    out = capsys.readouterr().out
    rates = ("GFLOP/s, ", "in products, memory")
    for part in (*rates, "from trace to program", "step/kernels", "predicted ms", "(O-19)", "inference, batch 1", "sgd_update"):
        assert part in out
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["machine"]["flops"] > 0
    assert all(value > 0 for value in found["nets"]["lenet5"].values())
    assert set(found["compile_ms"]) == {"lenet5", "resnet50"}
    assert all(row["ms"] > 0 and row["ratio"] > 0 for row in found["overheads"].values())
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert (tmp_path / "r.png").stat().st_size > 0


@pytest.mark.slow
def test_main_command_digits_98_percent(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    assert main(["train", "digits", "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["test"]["accuracy"] >= 0.98


@pytest.mark.slow
@pytest.mark.skipif("WIESEL_DATA" not in os.environ, reason="set WIESEL_DATA to the folder with the published files")
def test_s109_lenet5_reaches_99_percent_on_mnist(tmp_path: Path) -> None:
    assert main(["train", "mnist", "--net", "lenet5", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["test"]["accuracy"] >= 0.99
