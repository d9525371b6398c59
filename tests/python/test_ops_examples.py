"""The examples in the docstrings of ``wiesel.ops``, and that every public function has a docstring."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest

from oracle import isas
from wiesel import ops

MODULES = [module.name for module in pkgutil.iter_modules(ops.__path__)]


@pytest.mark.skipif(not isas(), reason="the extension is not built")
@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"wiesel.ops.{name}"), extraglobs={"np": np})
    assert found.failed == 0


def test_every_public_function_is_documented() -> None:
    for name in ops.__all__:
        function = getattr(ops, name)
        assert inspect.getdoc(function), name
        assert function.__module__.startswith("wiesel.ops."), name
