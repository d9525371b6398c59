"""Data sets, readers, splits, batches."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import logging
import os
import pickle
import pickletools
import struct
import tarfile
import threading
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

from wiesel import data
from wiesel.data import Dataset, Loader
from wiesel.data.pickled import loads

# --- the data set ---------------------------------------------------------------------------------------------------------------------


def numbered(n: int = 100, classes: int = 4) -> Dataset:
    """Pictures that carry their own number, so that a batch shows which samples it has."""
    x = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1).repeat(3, axis=1).repeat(2, axis=2)
    return Dataset(x, np.arange(n) % classes, class_names=[f"c{i}" for i in range(classes)])


def test_dataset_holds_what_it_is_given() -> None:
    d = numbered()
    assert (len(d), d.classes, d.sample_shape, d.x_dtype, d.y_dtype) == (100, 4, (3, 2, 1), np.uint8, np.int32)
    assert d.counts().tolist() == [25, 25, 25, 25]
    part = d.take([7, 3, 99])
    assert part.x[:, 0, 0, 0].tolist() == [7, 3, 99]
    assert part.y.tolist() == [3, 3, 3]
    assert part.take([2, 0]).x[:, 0, 0, 0].tolist() == [99, 7]
    assert part._x is d._x, "a part shares the arrays"


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.zeros((2, 3), np.float64), np.float32),
        (np.zeros((2, 3), np.int16), np.float32),
        (np.zeros((2, 3), bool), np.uint8),
        (np.zeros((2, 3), np.uint8), np.uint8),
        (np.zeros((3, 4), np.float32).T[:2], np.float32),
    ],
)
def test_s03_any_real_array_becomes_uint8_or_float32(x: np.ndarray, expected: type) -> None:
    d = Dataset(x, [0, 1])
    assert d.x.dtype == expected
    assert d.x.flags.c_contiguous


@pytest.mark.parametrize(
    ("x", "y", "names", "match"),
    [
        (np.zeros((0, 2)), [], None, "not empty"),
        (np.zeros(3), [0, 1, 2], None, "samples, ..."),
        (np.zeros((3, 2)), [0, 1], None, "3 samples in x and 2 targets"),
        (np.zeros((3, 2)), [0, 1, 2], ["a", "b"], "0 to 1, got 0 to 2"),
        (np.zeros((3, 2)), [0, -1, 2], None, "0 or more, got -1"),
        (np.zeros((3, 2)), [0.0, np.nan, 1.0], None, r"y\[1\] is NaN"),
        (np.zeros((3, 2)), [[0], [1], [1]], None, "class numbers must be"),
    ],
)
def test_dataset_refuses(x: np.ndarray, y: list, names: list[str] | None, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Dataset(x, y, class_names=names)


def test_dataset_refuses_text() -> None:
    with pytest.raises(TypeError, match="numbers"):
        Dataset(np.array([["a"], ["b"]]), [0, 1])
    with pytest.raises(TypeError, match="class numbers or floats"):
        Dataset(np.zeros((2, 1)), ["a", "b"])


def test_take_checks_its_range() -> None:
    with pytest.raises(IndexError, match="0 to 99, got 0 to 100"):
        numbered().take([0, 100])
    with pytest.raises(ValueError, match="non-empty"):
        numbered().take([])


# --- splits ---------------------------------------------------------------------------------------------------------------------------


def test_u33_split_is_stratified_and_seeded() -> None:
    y = np.repeat([0, 1, 2], [70, 20, 10])
    d = Dataset(np.arange(100, dtype=np.float32)[:, None], y)
    train, validation, test = d.split(validation=0.2, test=0.3, seed=5)
    assert [part.counts().tolist() for part in (train, validation, test)] == [[35, 10, 5], [14, 4, 2], [21, 6, 3]]
    everything = np.concatenate([part.x[:, 0] for part in (train, validation, test)])
    assert sorted(everything.tolist()) == list(range(100))
    again = d.split(validation=0.2, test=0.3, seed=5)
    other = d.split(validation=0.2, test=0.3, seed=6)
    assert np.array_equal(again[1].x, validation.x)
    assert not np.array_equal(other[1].x, validation.x)
    assert test.sealed
    assert not train.sealed


def test_u33_a_class_absent_from_a_part_is_an_error_unless_allowed() -> None:
    d = Dataset(np.zeros((101, 1)), [0] * 100 + [1], class_names=["cat", "dog"])
    with pytest.raises(ValueError, match=r"validation part .* no sample of class dog"):
        d.split(validation=0.2)
    train, validation = d.split(validation=0.2, allow_missing=True)
    assert len(train) + len(validation) == 101


def test_split_refuses_shares_that_leave_nothing() -> None:
    for shares in ({"test": 1.0}, {"validation": 0.5, "test": 0.5}, {}, {"test": -0.1}):
        with pytest.raises(ValueError, match="leave something"):
            numbered().split(**shares)


def test_s78_sealed_data_are_logged_once_and_warn_twice(caplog: pytest.LogCaptureFixture) -> None:
    test = numbered().split(test=0.2)[1]
    with caplog.at_level(logging.INFO, "wiesel.data"), warnings.catch_warnings():
        warnings.simplefilter("error")
        test.note_look("evaluate")
    assert "look 1 by evaluate" in caplog.text
    with pytest.warns(data.SealedTestWarning, match="evaluated 2 times"):
        test.note_look("evaluate")


def test_s78_the_same_data_in_two_parts_is_an_error() -> None:
    d = Dataset(np.random.default_rng(0).integers(0, 256, (200, 4, 4, 1), dtype=np.uint8), np.arange(200) % 2)
    train, validation, test = d.split(validation=0.2, test=0.2)
    data.check_disjoint(train=train, validation=validation, test=test)
    with pytest.raises(ValueError, match="train and test share 40 samples"):
        data.check_disjoint(train=d, test=test)
    with pytest.raises(ValueError, match="train and validation hold the same data: 40 samples"):
        data.check_disjoint(train=d, validation=Dataset(validation.x.copy(), validation.y))
    with pytest.raises(ValueError, match="share"):
        data.Splits("x", train, validation, validation)


def test_a_few_equal_pictures_are_no_error(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (300, 16), dtype=np.uint8) for _ in range(2))
    b[0] = a[7]
    with caplog.at_level(logging.INFO, "wiesel.data"):
        data.check_disjoint(train=Dataset(a, np.zeros(300, int)), test=Dataset(b, np.zeros(300, int)))
    assert "1 samples of train" in caplog.text


# --- batches --------------------------------------------------------------------------------------------------------------------------


def shown(loader: Loader, epoch: int, **how: int) -> list[list[int]]:
    return [batch.x[:, 0, 0, 0].tolist() for batch in loader.epoch(epoch, **how)]


def chained(batches: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(batches))


def test_s71_every_epoch_is_a_permutation_of_seed_and_epoch() -> None:
    loader = Loader(numbered(), 16, seed=3)
    first, second = shown(loader, 0), shown(loader, 1)
    for epoch in (first, second):
        assert sorted(chained(epoch)) == list(range(100))
        assert [len(batch) for batch in epoch] == [16] * 6 + [4]
    assert first != second
    assert shown(Loader(numbered(), 16, seed=3), 1) == second
    assert shown(Loader(numbered(), 16, seed=4), 1) != second
    assert chained(shown(Loader(numbered(), 7, seed=3), 1)) == chained(second), "the order does not depend on the batch size"


def test_targets_travel_with_their_samples() -> None:
    for batch in Loader(numbered(), 16, seed=3).epoch(2):
        assert np.array_equal(batch.y, batch.x[:, 0, 0, 0] % 4)


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (2, 2), (4, 3), (3, 8)])
def test_batches_do_not_depend_on_the_workers(workers: int, prefetch: int) -> None:
    d = Dataset(np.random.default_rng(0).integers(0, 256, (150, 9, 9, 3), dtype=np.uint8), np.zeros(150, int))

    def content(w: int, p: int) -> list[bytes]:
        loader = Loader(d, 16, seed=1, augment=data.CropFlip(2), workers=w, prefetch=p)
        return [batch.x.tobytes() for batch in loader.epoch(4)]

    assert content(workers, prefetch) == content(1, 2)


def test_an_epoch_can_begin_in_the_middle() -> None:
    loader = Loader(numbered(), 16, seed=3)
    assert shown(loader, 1, start=4) == shown(loader, 1)[4:]
    assert shown(loader, 1, start=7) == []


def test_drop_last_and_small_sets() -> None:
    assert [len(b) for b in shown(Loader(numbered(), 30, drop_last=True), 0)] == [30, 30, 30]
    assert [len(b) for b in shown(Loader(numbered(10), 64), 0)] == [10]
    assert len(Loader(numbered(), 30)) == 4


def test_micro_batches_cover_a_batch() -> None:
    batch = next(iter(Loader(numbered(), 20, shuffle=False).epoch()))
    pieces = list(batch.micro(8))
    assert [len(p) for p in pieces] == [8, 8, 4]
    assert [p.first for p in pieces] == [0, 8, 16]
    assert np.array_equal(np.concatenate([p.x for p in pieces]), batch.x)


def test_unshuffled_batches_are_views() -> None:
    d = numbered()
    batch = next(iter(Loader(d, 10, shuffle=False).epoch()))
    assert np.shares_memory(batch.x, d.x)
    part = d.take(np.arange(50, 100))
    assert shown(Loader(part, 30, shuffle=False), 0) == [list(range(50, 80)), list(range(80, 100))]


def test_a_batch_holds_until_the_next_is_asked_for() -> None:
    for batch in Loader(numbered(), 16, seed=0, workers=3, prefetch=3).epoch():
        before = batch.x.copy()
        threading.Event().wait(0.002)
        assert np.array_equal(before, batch.x)


def test_leaving_an_epoch_early_ends_its_threads() -> None:
    batches = Loader(numbered(), 4, seed=0, workers=2).epoch()
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("wiesel-loader")]


def test_an_error_in_augmentation_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="pad 4 is too large"):
        list(Loader(numbered(), 4, augment=data.CropFlip(4)).epoch())


def test_memory_of_an_epoch_is_bounded() -> None:
    d = Dataset(np.zeros((4000, 32, 32, 1), np.float32), np.zeros(4000, int))
    loader = Loader(d, 100, prefetch=2)
    tracemalloc.start()
    for _ in loader.epoch():
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 100 * 32 * 32 * 4 + 500_000


def test_crop_flip_shifts_and_mirrors() -> None:
    x = np.arange(1, 26, dtype=np.uint8).reshape(1, 5, 5, 1)
    out = np.empty_like(x)
    crop = data.CropFlip(2)
    crop(x, np.array([[0.5, 0.5, 0.9]], np.float32), out)
    assert np.array_equal(out, x)
    crop(x, np.array([[0.5, 0.5, 0.1]], np.float32), out)
    assert np.array_equal(out, x[:, :, ::-1])
    crop(x, np.array([[0.0, 0.99, 0.9]], np.float32), out)  # dy = -2, dx = +2
    assert np.array_equal(out[0, 2:, :3], x[0, :3, 2:])
    assert not out[0, :2].any()
    assert not out[0, :, 3:].any()


# --- idx ------------------------------------------------------------------------------------------------------------------------------


def idx(array: np.ndarray, element: int = 8) -> bytes:
    big = array.astype(array.dtype.newbyteorder(">"))
    return bytes([0, 0, element, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + big.tobytes()


@pytest.mark.parametrize("packed", [False, True])
def test_idx_is_read_plain_and_gzipped(tmp_path: Path, packed: bool) -> None:
    x = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(idx(x)) if packed else idx(x))
    assert np.array_equal(data.read_idx_images(path)[..., 0], x)
    path.write_bytes(idx(np.array([3, 1, 4], np.uint8)))
    labels = data.read_idx_labels(path)
    assert labels.dtype == np.int32
    assert labels.tolist() == [3, 1, 4]


def test_idx_of_other_elements(tmp_path: Path) -> None:
    path = tmp_path / "floats"
    path.write_bytes(idx(np.array([[1.5, -2.0]], np.float32), 0x0D))
    assert data.read_idx(path).tolist() == [[1.5, -2.0]]
    assert data.read_idx(path).dtype == np.dtype("f4")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\0\0", "ends at offset 2"),
        (b"\x89PNG" + bytes(100), "magic number at offset 0 is"),
        (b"\0\0\x07\x03" + bytes(12), "magic number"),
        (b"\0\0\x08\x03" + bytes(5), "header needs 16 bytes and the file ends at offset 9"),
        (idx(np.zeros((5, 4, 3), np.uint8))[:-1], "truncated, .* needs 76 bytes, the file ends at offset 75"),
        (idx(np.zeros((5, 4, 3), np.uint8)) + b"xy", "2 bytes too many after offset 76"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + bytes(10), "truncated"),
        (gzip.compress(idx(np.zeros((50, 4, 3), np.uint8)), mtime=0)[:-12], "gzip stream is not finished"),
        (b"\x1f\x8b" + bytes(20), "damaged gzip stream"),
        (idx(np.zeros(5, np.uint8)), "three axes .magic 2051., this has 1 axes"),
    ],
)
def test_malformed_idx_names_file_and_offset(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "train-images"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match) as caught:
        data.read_idx_images(path)
    assert str(path) in str(caught.value)


def test_pictures_are_not_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(idx(np.zeros((5, 4, 3), np.uint8)))
    with pytest.raises(ValueError, match=r"one axis \(magic 2049\), this has 3 axes"):
        data.read_idx_labels(path)


# --- pickles, read without running them -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(
    "value",
    [
        {"labels": [1, 2, 300, -5, 70000], "name": "batch", "t": (1, (2.5, "é")), "none": None, "yes": [True, False], "big": 1 << 40},
        {"data": np.arange(24, dtype=np.uint8).reshape(2, 3, 4)},
        {"fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)), "twice": []},
        [],
    ],
)
def test_plain_pickles_are_read(protocol: int, value: object) -> None:
    found = loads(pickle.dumps(value, protocol=protocol))
    if isinstance(value, dict):
        assert found.keys() == value.keys()
        for key, item in value.items():
            assert np.array_equal(found[key], item) if isinstance(item, np.ndarray) else found[key] == item
    else:
        assert found == value


class Harmful:
    def __reduce__(self) -> tuple:
        return (os.system, ("touch /tmp/wiesel-was-here",))


@pytest.mark.parametrize("blob", [pickle.dumps({"data": Harmful()}, protocol=2), b"\x80\x02cbuiltins\neval\nU\x011\x85R."])
def test_a_pickle_that_names_anything_else_is_refused(blob: bytes) -> None:
    with pytest.raises(ValueError, match=r"asks for \w+\.\w+; only plain values and NumPy arrays are read at offset"):
        loads(blob, source="data_batch_1")


def test_object_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="offset"):
        loads(pickle.dumps({"data": np.array([Harmful()], dtype=object)}, protocol=2))


def test_every_truncation_and_many_mutations_give_a_value_error() -> None:
    blob = pickle.dumps({"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [1, 2, 3], "n": ["a", b"\xff"]}, protocol=2)
    for end in range(len(blob)):
        with pytest.raises(ValueError, match="offset"):
            loads(blob[:end])
    rng = np.random.default_rng(0)
    for _ in range(3000):
        mutated = bytearray(blob)
        for position in rng.integers(0, len(blob), rng.integers(1, 4)):
            mutated[position] = rng.integers(0, 256)
        with contextlib.suppress(ValueError):  # anything else is a fault
            loads(bytes(mutated))


# --- CIFAR-10 -------------------------------------------------------------------------------------------------------------------------

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def python2(value: object) -> bytes:
    """A protocol-2 pickle whose strings are Python 2's (BINSTRING), as the published files have them."""
    out = io.BytesIO()
    blob = pickle.dumps(value, protocol=2)
    position = 0
    for opcode, argument, start in pickletools.genops(blob):
        if opcode.name == "BINUNICODE" and argument.isascii():
            text = argument.encode()
            end = start + 5 + len(text)
            out.write(blob[position:start] + b"T" + struct.pack("<i", len(text)) + text)
            position = end
    return out.getvalue() + blob[position:]


def cifar_files(per_batch: int = 4) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {}
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        planes = rng.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
        labels = [(i + k) % 10 for k in range(per_batch)]
        files[name] = python2({"batch_label": "b", "labels": labels, "data": planes, "filenames": ["x.png"] * per_batch})
    files["batches.meta"] = python2({"num_cases_per_batch": per_batch, "label_names": NAMES, "num_vis": 3072})
    return files


def archive(path: Path, files: dict[str, bytes], mode: str) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("form", ["gz", "xz", "folder"])
def test_cifar10_is_read_from_archive_and_folder(tmp_path: Path, form: str) -> None:
    files = cifar_files()
    if form == "folder":
        path = tmp_path
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
    else:
        path = archive(tmp_path / f"cifar-10-python.tar.{form}", files, f"w:{form}")
    (x, y), (x_test, y_test), names = data.read_cifar10(path)
    assert x.shape == (20, 32, 32, 3)
    assert x_test.shape == (4, 32, 32, 3)
    assert names == tuple(NAMES)
    assert y[:8].tolist() == [0, 1, 2, 3, 1, 2, 3, 4]
    assert y_test.tolist() == [5, 6, 7, 8]
    planes = loads(files["data_batch_2"])["data"]
    assert x[5, 3, 7].tolist() == [planes[1, c * 1024 + 3 * 32 + 7] for c in range(3)], "red, green, blue of row 3, column 7"


@pytest.mark.parametrize(
    ("name", "content", "error", "match"),
    [
        ("test_batch", None, FileNotFoundError, "no test_batch inside"),
        (
            "data_batch_3",
            python2({"data": np.zeros((4, 3000), np.uint8), "labels": [0] * 4}),
            ValueError,
            "data_batch_3: 'data' must be uint8",
        ),
        (
            "data_batch_3",
            python2({"data": np.zeros((4, 3072), np.uint8), "labels": [0] * 3}),
            ValueError,
            "'labels' must be 4 class numbers",
        ),
        ("data_batch_3", python2({"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 2, 10]}), ValueError, "from 0 to 9"),
        ("data_batch_3", python2([1, 2]), ValueError, "a batch is a dict"),
        ("data_batch_3", cifar_files()["data_batch_3"][:5000], ValueError, "data_batch_3: the file ends early"),
        ("batches.meta", python2({"label_names": []}), ValueError, "no list of label_names"),
    ],
)
def test_malformed_cifar10(tmp_path: Path, name: str, content: bytes | None, error: type[Exception], match: str) -> None:
    files = cifar_files()
    if content is None:
        del files[name]
    else:
        files[name] = content
    with pytest.raises(error, match=match):
        data.read_cifar10(archive(tmp_path / "c.tar.gz", files, "w:gz"))


def test_truncated_cifar10_archive(tmp_path: Path) -> None:
    for form in ("gz", "xz"):
        path = archive(tmp_path / f"c.tar.{form}", cifar_files(), f"w:{form}")
        path.write_bytes(path.read_bytes()[:20000])
        with pytest.raises(ValueError, match="damaged or truncated archive"):
            data.read_cifar10(path)


# --- pictures -------------------------------------------------------------------------------------------------------------------------


def test_s01_grey_picture_is_one_channel(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.array([[0, 128, 255]], np.uint8)).save(tmp_path / "grey.png")
    x = data.load_image(tmp_path / "grey.png", mode="L")
    assert (x.shape, x.dtype) == ((1, 3, 1), np.uint8)
    assert x[0, :, 0].tolist() == [0, 128, 255]


def test_s02_rgb_picture_is_three_matrices(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    colours = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [1, 2, 3]]], np.uint8)
    image.fromarray(colours).save(tmp_path / "colours.png")
    x = data.load_image(tmp_path / "colours.png")
    assert x.shape == (2, 2, 3)
    assert np.array_equal(x, colours)
    assert data.load_image(tmp_path / "colours.png", mode="L").shape == (2, 2, 1)
    assert data.load_image(tmp_path / "colours.png", size=(4, 6)).shape == (4, 6, 3)


def test_a_file_that_is_no_picture(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"a\.png: not a readable picture"):
        data.load_image(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError):
        data.load_image(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="mode must be"):
        data.load_image(tmp_path / "a.png", mode="CMYK")


# --- sets by name ---------------------------------------------------------------------------------------------------------------------


def test_digits_come_with_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    parts = data.load("digits", seed=1)
    assert [len(p) for p in (parts.train, parts.validation, parts.test)] == [1258, 180, 359]
    assert parts.test.sealed
    assert parts.train.x.max() == 255


def test_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"wiesel\[train\]"):
        data.digits()


def test_mnist_files_where_they_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part, n in (("train", 200), ("t10k", 50)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx((np.arange(n) % 10).astype(np.uint8)))
    for place in (tmp_path, folder):
        parts = data.load("mnist", place)
        assert [len(p) for p in (parts.train, parts.validation, parts.test)] == [180, 20, 50]
    monkeypatch.setenv("WIESEL_DATA", str(tmp_path))
    assert len(data.load("mnist").train) == 180


@pytest.mark.parametrize(("name", "wanted"), [("mnist", "train-images-idx3-ubyte.gz"), ("cifar10", "cifar-10-python.tar.gz")])
def test_missing_files_are_named_with_their_place(tmp_path: Path, name: str, wanted: str) -> None:
    with pytest.raises(FileNotFoundError, match=wanted) as caught:
        data.load(name, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "--data-dir" in str(caught.value)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="no data set named 'imagenet'; known: digits, mnist"):
        data.load("imagenet")


real = pytest.mark.skipif("WIESEL_DATA" not in os.environ, reason="set WIESEL_DATA to the folder with the published files")


@real
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_idx_sets(name: str) -> None:
    parts = data.load(name)
    assert len(parts.train) + len(parts.validation) == 60000
    assert len(parts.test) == 10000
    assert parts.train.sample_shape == (28, 28, 1)


@real
@pytest.mark.slow
def test_real_cifar10() -> None:
    parts = data.load("cifar10")
    assert len(parts.train) + len(parts.validation) == 50000
    assert parts.test.counts().tolist() == [1000] * 10
