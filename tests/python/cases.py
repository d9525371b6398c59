"""Reads ``tests/cases/*.txt``: one problem per line, words of letters and a number, with or without spaces between; # starts a comment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "cases"
_WORD = re.compile(r"([a-z_]+)(\d+)")
_SHORT = {"pt": "pad_top", "pl": "pad_left", "pb": "pad_bottom", "pr": "pad_right", "dh": "dilh", "dw": "dilw"}


def problems(name: str) -> list[tuple[str, dict[str, int]]]:
    """(line, words) of every problem of ``tests/cases/<name>.txt``, with short forms written out: k, s, dil and pad set both axes."""
    found = []
    for line in (FOLDER / f"{name}.txt").read_text().splitlines():
        text = line.split("#")[0].strip()
        if not text:
            continue
        words: dict[str, int] = {}
        for word, number in _WORD.findall(text):
            if word in ("k", "s", "dil") and name != "matmul":
                words |= {word + "h": int(number), word + "w": int(number)}
            elif word == "pad":
                words |= dict.fromkeys(("pad_top", "pad_left", "pad_bottom", "pad_right"), int(number))
            else:
                words[_SHORT.get(word, word)] = int(number)
        words.setdefault("iw", words.get("ih", 1))
        found.append((text, words))
    return found


def window(words: dict[str, int]) -> dict[str, Any]:
    """Stride, padding and dilation as keywords of ``wiesel.ops``."""
    get = words.get
    return {
        "stride": (get("sh", 1), get("sw", 1)),
        "padding": ((get("pad_top", 0), get("pad_bottom", 0)), (get("pad_left", 0), get("pad_right", 0))),
        "dilation": (get("dilh", 1), get("dilw", 1)),
    }
