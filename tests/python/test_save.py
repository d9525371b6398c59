"""Files: nets and trainers saved and read back, damaged files, full disks, resuming to the same bytes."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import wiesel as wl
from wiesel import callbacks, nn, ops, optim
from wiesel.data import Dataset

rng = np.random.default_rng(0)


def every_layer() -> nn.Module:
    shared = nn.Conv2d(6, 3, padding="same")
    return nn.Sequential(
        pixels=nn.Normalize((0.4, 0.5), 0.2),
        features=nn.Sequential(
            nn.Conv2d(6, 3, padding=((1, 0), (2, 1)), stride=(1, 2), activation="relu"), nn.BatchNorm2d(momentum=0.2),
            shared, nn.PReLU(), shared, nn.DepthwiseConv2d(3, padding=1, multiplier=2), nn.LeakyReLU(0.2),
            nn.LocalResponseNorm(3), nn.MaxPool2d(3, stride=2, padding=1),
            nn.ConvTranspose2d(4, 2, stride=2), nn.GELU(), nn.AvgPool2d(2, fit="pad"), nn.Dropout(0.3),
        ),
        head=nn.Sequential(nn.Flatten(), nn.Reshape(-1, 4), nn.Conv1d(3, 2), nn.Flatten(), nn.Linear(5)),
    )  # fmt: skip


class Residual(nn.Module):
    """A net of an own class, with a shortcut, an own parameter, a part used twice and two outputs."""

    def __init__(self) -> None:
        self.conv = nn.Conv2d(4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d()
        self.gain = nn.Parameter(np.ones(4))
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(3)

    def forward(self, x):
        y = ops.relu(self.norm(self.conv(x)) * self.gain + x)
        y = self.drop(ops.relu(self.norm(self.conv(y)) + x))
        return {"class": self.head(ops.global_avg_pool2d(y)), "map": ops.mean(y, 3)}


def test_built_in_layers_come_back_as_they_were(tmp_path: Path) -> None:
    net = every_layer().build((9, 10, 2), seed=3)
    x = rng.integers(0, 255, (4, 9, 10, 2), dtype=np.uint8)
    wl.Trainer(net, optimizer=optim.SGD(0.01)).fit(x, np.arange(4), epochs=1, batch_size=2)
    net.class_names = ["a", "b", "c", "d", "e"]
    net.features[0].freeze()
    wl.save(net, tmp_path / "net.wsl")
    back = wl.load(tmp_path / "net.wsl")
    assert type(back) is nn.Sequential
    assert [(p, type(m)) for p, m in back.named_modules()] == [(p, type(m)) for p, m in net.named_modules()]
    assert back.features[2] is back.features[4]
    assert [m.config() for _, m in back.named_modules()] == [m.config() for _, m in net.named_modules()]
    assert np.array_equal(back(x), net(x))
    assert list(back.predict(x)) == list(net.predict(x))
    assert {n for n, p in back.parameters().items() if not p.trainable} == {"features.0.weight", "features.0.bias"}


def test_own_classes_come_back_as_a_graph_that_trains(tmp_path: Path) -> None:
    net = Residual().build((6, 6, 4), seed=1)
    x = rng.normal(size=(8, 6, 6, 4)).astype(np.float32)
    y = {"class": np.arange(8) % 3, "map": rng.normal(size=(8, 6, 6)).astype(np.float32)}
    losses = {"class": "cross_entropy", "map": "mse"}
    wl.Trainer(net, losses, optim.SGD(0.05), seed=0).step(x, y)
    wl.save(net, tmp_path / "net.wsl")
    back = wl.load(tmp_path / "net.wsl")
    assert isinstance(back, nn.GraphModule)
    assert list(back.parameters()) == list(net.parameters())
    assert sorted(back.state_dict()) == sorted(net.state_dict())
    found, expected = back(x), net(x)
    for key in expected:
        assert np.array_equal(found[key], expected[key]), key
    np.testing.assert_array_equal(back.run(x, fetch="conv")["conv"], net.run(x, fetch="conv")["conv"])
    one, two = wl.Trainer(net, losses, optim.SGD(0.05), seed=0), wl.Trainer(back, losses, optim.SGD(0.05), seed=0)
    for _ in range(3):
        assert one.step(x, y) == two.step(x, y)
    for name, value in net.state_dict().items():
        assert np.array_equal(back.state_dict()[name], value), name
    back.conv.freeze()
    before = back.state_dict()["conv.weight"]
    two.step(x, y)
    assert np.array_equal(before, back.state_dict()["conv.weight"])
    for either in (net, back):
        either.freeze(False)
        either.norm.freeze()
    one.step(x, y)  # as many steps as two
    back.load_state_dict(net.state_dict())
    statistics = net.state_dict()["norm.running_mean"]
    assert one.step(x, y) == two.step(x, y), "frozen, both use their running statistics"
    assert np.array_equal(statistics, back.state_dict()["norm.running_mean"])
    wl.save(back, tmp_path / "again.wsl")
    assert np.array_equal(wl.load(tmp_path / "again.wsl")(x)["class"], back(x)["class"])


def test_safetensors(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    net = every_layer().build((9, 10, 2), seed=1)
    from wiesel.nn.values import write_safetensors

    write_safetensors(net, tmp_path / "net.safetensors")
    other = every_layer().build((9, 10, 2), seed=2)
    other.load_state_dict(str(tmp_path / "net.safetensors"))
    for name, value in net.state_dict().items():
        assert np.array_equal(other.state_dict()[name], value)


def test_state_dict_mistakes_are_all_named_and_nothing_is_written() -> None:
    net = nn.Sequential(nn.Linear(3), nn.Linear(2)).build((4,), seed=0)
    before = net.state_dict()
    values = {"0.weight": np.zeros((4, 3)), "0.bias": np.zeros(4), "1.weight": np.zeros((3, 2)), "extra": np.zeros(1)}
    with pytest.raises(ValueError, match="nothing was changed") as error:
        net.load_state_dict(values)
    for part in ("missing: 1.bias", "unexpected: extra", "0.bias: the net has (3,), the values (4,)"):
        assert part in str(error.value)
    assert all(np.array_equal(before[name], value) for name, value in net.state_dict().items())
    net.load_state_dict({"1.bias": np.ones(2)}, strict=False)
    assert net.state_dict()["1.bias"].tolist() == [1, 1]


def data(n: int = 70, seed: int = 1) -> Dataset:
    y = np.arange(n) % 3
    return Dataset((np.random.default_rng(seed).normal(size=(n, 5, 5, 1)) + y[:, None, None, None]).astype(np.float32), y)


def new_trainer() -> wl.Trainer:
    net = nn.Sequential(nn.Conv2d(4, 3), nn.BatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(3))
    return wl.Trainer(net, optimizer=optim.AdamW(optim.OneCycle(1e-2, epochs=3)), seed=5, accumulate=2)


def fit(trainer: wl.Trainer, **how):
    return trainer.fit(data(), epochs=3, batch_size=16, validation=data(30, 2), **how)


class StopAt(callbacks.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer, figures):
        if trainer.step_count == self.step:
            trainer.stop()


@pytest.mark.parametrize("step", [1, 4, 5, 6, 14, 15])
def test_resume_continues_to_the_same_bytes(tmp_path: Path, step: int) -> None:
    whole = new_trainer()
    expected = fit(whole)
    first = new_trainer()
    fit(first, callbacks=[StopAt(step)])
    assert first.step_count == step
    first.save(tmp_path / "run.wsl")
    second = new_trainer().resume(tmp_path / "run.wsl")
    history = fit(second)
    assert second.step_count == whole.step_count == 15
    for name, value in whole.net.state_dict().items():
        assert value.tobytes() == second.net.state_dict()[name].tobytes(), name
    for name, value in whole.memory.values().items():
        assert value.tobytes() == second.memory.values()[name].tobytes(), name
    assert history.loss == expected.loss
    assert history.accuracy == expected.accuracy
    assert len(fit(new_trainer().resume(tmp_path / "run.wsl"))) == 3
    second.save(tmp_path / "done.wsl")
    assert len(fit(new_trainer().resume(tmp_path / "done.wsl"))) == 3  # nothing left to do: the same three epochs


def test_a_checkpoint_is_a_net_too(tmp_path: Path) -> None:
    trainer = new_trainer()
    fit(trainer)
    trainer.save(tmp_path / "run.wsl")
    x = data().x
    assert np.array_equal(wl.load(tmp_path / "run.wsl")(x), trainer.net(x))
    wl.save(trainer.net, tmp_path / "net.wsl")
    with pytest.raises(ValueError, match="not a checkpoint"):
        new_trainer().resume(tmp_path / "net.wsl")
    other = wl.Trainer(nn.Sequential(nn.Linear(3)), optimizer=optim.SGD(0.1))
    with pytest.raises(ValueError, match="other settings"):
        other.resume(tmp_path / "run.wsl")


def test_interrupt_inside_a_step_leaves_a_valid_checkpoint(tmp_path: Path) -> None:
    """U-18, O-35: stopped between two ops of a step; the step is discarded and the run resumes to the same bytes."""
    from wiesel import _core

    whole = new_trainer()
    fit(whole)
    for after in (40, 41, 60, 90):
        trainer = new_trainer()
        trainer.net.build((5, 5, 1), seed=5)
        asked = [0]

        def stop(after: int = after, asked: list[int] = asked) -> bool:
            asked[0] += 1
            return asked[0] == after

        _core.stop_requested_hook(stop)
        try:
            with pytest.raises(KeyboardInterrupt):
                fit(trainer)
        finally:
            _core.stop_requested_hook(None)
        trainer.save(tmp_path / "run.wsl")
        resumed = new_trainer().resume(tmp_path / "run.wsl")
        fit(resumed)
        for name, value in whole.net.state_dict().items():
            assert value.tobytes() == resumed.net.state_dict()[name].tobytes(), (after, name)


def test_u18_ctrl_c_ends_fit(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        import numpy as np
        import wiesel as wl
        from wiesel import nn, optim
        r = np.random.default_rng(0)
        x, y = r.normal(size=(512, 24, 24, 3)).astype(np.float32), np.arange(512) % 3
        net = nn.Sequential(nn.Conv2d(16, 3), nn.BatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.Linear(3))
        trainer = wl.Trainer(net, optimizer=optim.SGD(1e-3, momentum=0.9))
        begun = lambda t, record: print("epoch", flush=True)
        try:
            trainer.fit(x, y, epochs=1000, batch_size=32, callbacks=[begun])
        except KeyboardInterrupt:
            trainer.save(sys.argv[1])
            print("saved", trainer.epoch * 16 + trainer.batch == trainer.step_count, flush=True)
        """
    )
    path = tmp_path / "run.wsl"
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "epoch\n"
    child.send_signal(signal.SIGINT)
    rest, _ = child.communicate(timeout=60)
    assert rest.splitlines()[-1] == "saved True"
    wl.load(path)


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.wsl"
    net = nn.Linear(3).build((4,), seed=0)
    wl.save(net, path)
    before = path.read_bytes()
    net.weight.assign(np.zeros((4, 3)))

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        wl.save(net, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["net.wsl"]


def test_a_file_size_limit_keeps_the_old_file(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import resource, signal, sys
        import numpy as np
        import wiesel as wl
        from wiesel import nn
        path = sys.argv[1]
        net = nn.Linear(300).build((400,), seed=0)
        wl.save(net, path)
        before = open(path, "rb").read()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        net.weight.assign(np.zeros((400, 300)))
        try:
            wl.save(net, path)
        except OSError as error:
            print(type(error).__name__, open(path, "rb").read() == before)
        """
    )
    found = subprocess.run([sys.executable, "-c", script, str(tmp_path / "net.wsl")], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["OSError", "True"]
    assert os.listdir(tmp_path) == ["net.wsl"]


def mutations(path: Path, count: int):
    """Damaged copies of a file: bits flipped, bytes set, cut off, prolonged; half of them with checksums made right again."""
    import struct
    import zlib

    original = path.read_bytes()
    r = np.random.default_rng(0)
    for i in range(count):
        damaged = bytearray(original)
        kind = i % 4
        if kind == 0:
            damaged[r.integers(len(damaged))] ^= 1 << r.integers(8)
        elif kind == 1:
            damaged = damaged[: r.integers(len(damaged))]
        elif kind == 2:
            for _ in range(r.integers(1, 5)):
                damaged[r.integers(len(damaged))] = r.integers(256)
        else:
            sections = struct.unpack_from("<I", original, 12)[0]
            where = int(r.integers(sections))
            offset, size = struct.unpack_from("<QQ", original, 32 + 32 * where + 8)
            at = offset + int(r.integers(min(size, 4000)))
            damaged[at] = r.integers(256)
            struct.pack_into("<I", damaged, 32 + 32 * where + 4, zlib.crc32(damaged[offset : offset + size]))
            struct.pack_into("<I", damaged, 24, zlib.crc32(damaged[32 : 32 + 32 * sections]))
        if bytes(damaged) != original:
            yield bytes(damaged)


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3), nn.BatchNorm2d(), nn.Flatten(), nn.Linear(3)).build((5, 5, 1))


@pytest.mark.parametrize("make", [small, lambda: Residual().build((6, 6, 4))])
def test_damaged_files_are_value_errors(tmp_path: Path, make) -> None:
    wl.save(make(), tmp_path / "net.wsl")
    refused = 0
    for damaged in mutations(tmp_path / "net.wsl", 300):
        (tmp_path / "bad.wsl").write_bytes(damaged)
        try:
            wl.load(tmp_path / "bad.wsl")
        except ValueError as error:
            refused += str(error).startswith(str(tmp_path / "bad.wsl"))
    assert refused >= 225  # a changed weight or name with a right checksum is a file like any other


@pytest.mark.slow
def test_ten_thousand_damaged_checkpoints(tmp_path: Path) -> None:
    trainer = new_trainer()
    fit(trainer)
    trainer.save(tmp_path / "run.wsl")
    for damaged in mutations(tmp_path / "run.wsl", 10_000):
        (tmp_path / "bad.wsl").write_bytes(damaged)
        with contextlib.suppress(ValueError):
            new_trainer().resume(tmp_path / "bad.wsl")


def test_an_unbuilt_net_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not built"):
        wl.save(nn.Linear(3), tmp_path / "net.wsl")
