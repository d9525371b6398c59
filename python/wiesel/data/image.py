"""Picture files to arrays."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHANNELS = {"L": 1, "RGB": 3}


def load_image(path: str | os.PathLike[str], mode: str = "RGB", *, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """The picture in a file as (height, width, channels) uint8, 0 (black) to 255 (white).

    ``mode`` is ``"RGB"`` (three channels in the order red, green, blue) or ``"L"`` (grey, one channel:
    (299 R + 587 G + 114 B) / 1000, ITU-R 601-2). ``size=(height, width)`` resizes bilinearly with antialiasing. The camera's
    rotation flag (Exif) is applied. Transparency is dropped, as is everything but the first frame.

    Raises FileNotFoundError, ValueError when the file is not a picture that Pillow reads, ModuleNotFoundError without Pillow.

    >>> load_image("cat.png", mode="L").shape   # doctest: +SKIP
    (480, 640, 1)
    """
    if mode not in _CHANNELS:
        raise ValueError(f"load_image: mode must be 'RGB' or 'L', got {mode!r}")
    pillow = _pillow()
    try:
        with pillow.Image.open(path) as opened:
            picture = pillow.ImageOps.exif_transpose(opened).convert(mode)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)}: not a readable picture ({error})") from None
    if size is not None:
        height, width = size
        picture = picture.resize((width, height), pillow.Image.Resampling.BILINEAR, reducing_gap=None)
    return np.array(picture, dtype=np.uint8).reshape(picture.height, picture.width, _CHANNELS[mode])


def _pillow() -> Any:
    try:
        import PIL.Image
        import PIL.ImageOps
    except ModuleNotFoundError:
        raise ModuleNotFoundError("reading pictures needs Pillow: pip install 'wiesel[train]'") from None
    import PIL

    return PIL
