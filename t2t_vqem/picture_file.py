"""One picture in a file: read, checked, and brought to size where that is asked for; or written."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3}  # of Pillow's modes that need no decision
_CONVERTIBLE = {*_CHANNELS, "LA", "PA", "RGBA", "CMYK", "YCbCr"}
_MODES = {1: "L", 3: "RGB"}


class BadPicture(Exception):
    """What is the matter with a file; the text goes on behind its path.

    Attributes:
      channels: that the file would have to be converted to, if that is all that is the matter.
    """

    def __init__(self, text: str, channels: int | None = None):
        super().__init__(text)
        self.channels = channels


class Wanted(NamedTuple):
    """What a picture is to be.

    Attributes:
      size: (height, width).
      channels: 1 or 3.
      resize: whether another size is cropped and resized, not refused.
      convert: whether other channels are converted, not refused.
    """

    size: tuple[int, int]
    channels: int
    resize: bool = False
    convert: bool = False


def read(path: str, wanted: Wanted) -> np.ndarray:
    """Returns the picture as uint8 [height, width, channels], upright as a camera meant it.

    Raises:
      BadPicture: it is none, it is damaged, or it is not as wanted.
    """
    height, width = wanted.size
    picture = _opened(path)
    channels = _channels(picture.mode, wanted.channels if wanted.convert else None)
    if channels != wanted.channels:
        kinds = {1: "grey", 3: "RGB"}
        raise BadPicture(
            f"is {kinds[channels]} ({channels} channel{'s' * (channels > 1)}) where {kinds[wanted.channels]} is wanted",
            wanted.channels,
        )
    if not wanted.resize and picture.size != (width, height):
        raise BadPicture(f"is {picture.height} x {picture.width} pixels where {height} x {width} are wanted")
    picture = picture.convert(_MODES[channels])
    if wanted.resize:
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return np.array(picture).reshape(height, width, channels)


def png(picture: np.ndarray) -> bytes:
    """Returns the PNG file of a picture, uint8 [height, width, 1 or 3]."""
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(buffer, format="png")
    return buffer.getvalue()


def shape(path: str, channels: int | None) -> tuple[int, int, int]:
    """Returns (height, width, channels) of the picture in a file; `channels` is what it is converted to, if it is.

    Raises:
      BadPicture: as `read`.
    """
    picture = _opened(path)
    return picture.height, picture.width, _channels(picture.mode, channels)


def _opened(path: str) -> Image.Image:
    try:
        with Image.open(path, formats=_FORMATS) as file:
            file.load()
            return ImageOps.exif_transpose(file)
    except UnidentifiedImageError:
        raise BadPicture("is no picture in PNG, JPEG, WebP or BMP") from None
    except Exception as error:  # decoders raise what they like
        raise BadPicture(f"is a damaged picture ({error})") from error


def _channels(mode: str, convert: int | None) -> int:
    """Returns the channels of a picture in one of Pillow's modes, or `convert` if it can be converted to so many."""
    if convert is not None and mode in _CONVERTIBLE:
        return convert
    if mode not in _CHANNELS:
        wanted = 3 if mode in _CONVERTIBLE else None
        raise BadPicture(f"has the colours {mode} where RGB or grey of 8 bits is wanted", wanted)
    return _CHANNELS[mode]
