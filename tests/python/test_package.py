"""What is installed: its size, what it depends on, and that no NumPy version is baked in."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest

import wiesel
from wiesel import _core

MEGABYTE = 1 << 20


def test_u39_the_installed_package_is_small() -> None:
    folder = Path(wiesel.__file__).parent
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert size <= 25 * MEGABYTE


def test_o08_numpy_is_the_one_dependency() -> None:
    try:
        requirements = importlib.metadata.requires("wiesel") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("wiesel runs from its source tree here: nothing is installed to look at")
    needed = [line for line in requirements if "extra ==" not in line]
    assert len(needed) == 1
    assert needed[0].startswith("numpy")


def test_u44_no_numpy_abi_is_compiled_in() -> None:
    """NumPy's C headers leave this message in every module that uses its ABI; the core goes by the buffer protocol alone.

    ``.ci/long`` runs the suite on the oldest and the newest NumPy.
    """
    modules = [_core.__file__, importlib.util.find_spec("wiesel.data._batch").origin]  # type: ignore[union-attr]
    for module in modules:
        assert b"module compiled against ABI version" not in Path(module).read_bytes()
