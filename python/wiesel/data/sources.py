"""The data sets that are known by name, as train, validation and sealed test parts. Nothing is ever downloaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wiesel.data import cifar
from wiesel.data.dataset import Dataset, check_disjoint
from wiesel.data.idx import read_idx_images, read_idx_labels

_FASHION = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_DIGITS = tuple("0123456789")
_IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True)
class Splits:
    """Three parts without a sample in common. ``test`` is sealed: it is for one last look."""

    name: str
    train: Dataset
    validation: Dataset
    test: Dataset

    def __post_init__(self) -> None:
        check_disjoint(train=self.train, validation=self.validation, test=self.test)


def default_folder() -> Path:
    """Where the named data sets are looked for: ``$WIESEL_DATA``, else ``~/.cache/wiesel/data``."""
    given = os.environ.get("WIESEL_DATA")
    return Path(given) if given else Path.home() / ".cache" / "wiesel" / "data"


def load(name: str, folder: str | os.PathLike[str] | None = None, *, seed: int = 0) -> Splits:
    """A data set by name: ``"digits"`` (comes with scikit-learn), ``"mnist"``, ``"fashion-mnist"``, ``"cifar10"``.

    ``folder`` is where the published files are (default: ``default_folder()``), in a folder of the set's name or directly.
    MNIST, Fashion-MNIST and CIFAR-10 keep their published test pictures; 5,000 of the training pictures, stratified by class and
    chosen by ``seed``, are for validation. Digits is split 70 : 10 : 20.

    Raises ValueError for an unknown name, FileNotFoundError that says which files to put where.

    >>> load("digits").train.sample_shape
    (8, 8, 1)
    """
    try:
        reader = _READERS[name]
    except KeyError:
        raise ValueError(f"no data set named {name!r}; known: {', '.join(_READERS)}") from None
    return reader(Path(folder) if folder is not None else default_folder(), seed)


def names() -> tuple[str, ...]:
    """The known data sets."""
    return tuple(_READERS)


def digits() -> Dataset:
    """The 1,797 handwritten digits that scikit-learn carries, (8, 8, 1) uint8: the set that needs no files.

    Each pixel counts the inked points of a 4 x 4 square, 0 to 16, brought to 0 to 255. Source: Alpaydin and Kaynak 1998, UCI.

    Raises ModuleNotFoundError without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise ModuleNotFoundError("the digits come with scikit-learn: pip install 'wiesel[train]'") from None
    bunch = load_digits()
    x = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    return Dataset(x, bunch.target, class_names=_DIGITS, name="digits")


def _digits(_folder: Path, seed: int) -> Splits:
    return Splits("digits", *digits().split(validation=0.1, test=0.2, seed=seed))


def _idx(name: str, class_names: tuple[str, ...]) -> Callable[[Path, int], Splits]:
    def read(folder: Path, seed: int) -> Splits:
        places = [folder / name, folder / name / "raw", folder]
        candidates = {f: [p / (f + ext) for p in places for ext in (".gz", "")] for f in _IDX_FILES}
        found = [path for paths in candidates.values() if (path := next(filter(Path.is_file, paths), None))]
        if len(found) < len(_IDX_FILES):
            missing = [f + ".gz" for f, paths in candidates.items() if not any(map(Path.is_file, paths))]
            raise FileNotFoundError(
                f"{name}: not found: {', '.join(missing)}. Put the published files (gzipped or not) into {folder / name}, "
                f"or name their folder with --data-dir or WIESEL_DATA"
            )
        x, y, x_test, y_test = found
        whole = Dataset(read_idx_images(x), read_idx_labels(y), class_names=class_names, name=name)
        test = Dataset(read_idx_images(x_test), read_idx_labels(y_test), class_names=class_names, name=f"{name} test")
        return _held_out(name, whole, test, seed)

    return read


def _cifar10(folder: Path, seed: int) -> Splits:
    candidates = [p / n for p in (folder / "cifar-10", folder / "cifar10", folder) for n in (cifar.FOLDER, *cifar.ARCHIVES)]
    path = next((p for p in candidates if p.exists()), None)
    if path is None:
        raise FileNotFoundError(
            f"cifar10: not found: {cifar.ARCHIVES[0]} (or .tar.xz, or the unpacked {cifar.FOLDER}). Put it into {folder / 'cifar-10'}, "
            f"or name its folder with --data-dir or WIESEL_DATA"
        )
    (x_train, y_train), (x_test, y_test), class_names = cifar.read_cifar10(path)
    whole = Dataset(x_train, y_train, class_names=class_names, name="cifar10")
    return _held_out("cifar10", whole, Dataset(x_test, y_test, class_names=class_names, name="cifar10 test"), seed)


def _held_out(name: str, whole: Dataset, test: Dataset, seed: int) -> Splits:
    train, validation = whole.split(validation=min(5000, len(whole) // 10) / len(whole), seed=seed)
    return Splits(name, train, validation, test.seal())


_READERS: dict[str, Callable[[Path, int], Splits]] = {
    "digits": _digits,
    "mnist": _idx("mnist", _DIGITS),
    "fashion-mnist": _idx("fashion-mnist", _FASHION),
    "cifar10": _cifar10,
}
