"""A toy problem of pictures, for tests and first steps without data: one coloured shape on plain or textured ground.

Kind, place, size, turn, colours and ground of a picture come from a seed of its own, so that picture i of a split is
always the same. Edges are smooth: a pixel's colour is mixed by its signed distance from the outline.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import numpy as np

from t2t_vqem import registry
from t2t_vqem.errors import UserError
from t2t_vqem.problems.image import ImageProblem, Sample

_SIZES = {"train": 4000, "val": 500, "test": 500}
_CHUNK = 100  # pictures that are drawn at a time
_LEAST_CONTRAST = 0.45  # between shape and ground, as a distance in RGB, which goes from 0 to 1 a channel

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(x, y) [..., h, w] in units of the shape's size -> distance from its outline, negative inside."""


def _disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 0.9


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(x, y) - 0.7) - 0.22


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.8


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    sides = [np.cos(angle) * x + np.sin(angle) * y for angle in np.pi * np.array([1 / 2, 7 / 6, 11 / 6])]
    return np.maximum.reduce(sides) - 0.5


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    wide, high = (np.maximum(np.abs(a) - 0.95, np.abs(b) - 0.3) for a, b in ((x, y), (y, x)))
    return np.minimum(wide, high)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    turn = np.pi / 5  # half the angle between two of the five points
    angle = np.abs((np.arctan2(y, x) + turn) % (2 * turn) - turn)  # folded onto half a point
    radius = np.hypot(x, y)
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    # from a point at (1, 0) to the notch between two at radius 0.45
    notch = 0.45 * np.array([np.cos(turn), np.sin(turn)])
    normal = np.array([notch[1], 1.0 - notch[0]]) / np.hypot(notch[1], 1.0 - notch[0])
    return normal[0] * (along - 1.0) + normal[1] * across


KINDS: dict[str, Distance] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
}
_GROUNDS = ("plain", "slope", "stripes", "checks", "grain")


def draw(seeds: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws a picture for each seed.

    Args:
      seeds: int [n, k], a row of numbers for each picture.
      size: height and width in pixels.

    Returns:
      Pictures, uint8 [n, size, size, 3], and their labels, int [n], the places of their kinds in `KINDS`.
    """
    generators = [np.random.default_rng(seed) for seed in seeds.tolist()]
    u = np.stack([generator.random(16) for generator in generators])[:, :, None, None]  # [n, 16, 1, 1]
    grain = np.stack([generator.random((size, size), np.float32) for generator in generators])
    kinds = (u[:, 0, 0, 0] * len(KINDS)).astype(int)
    place = (np.arange(size) + 0.5) / size * 2 - 1  # from -1 to 1
    across, down = place[None, None, :], place[None, :, None]

    radius = 0.32 + 0.3 * u[:, 1]
    x, y = across - (2 * u[:, 2] - 1) * (0.95 - radius), down - (2 * u[:, 3] - 1) * (0.95 - radius)
    turn = (2 * u[:, 4] - 1) * np.pi / 8  # little: a square stays one
    cos, sin = np.cos(turn) / radius, np.sin(turn) / radius
    distances = _of_kinds(kinds, cos * x + sin * y, cos * y - sin * x) * radius
    cover = np.clip(0.5 - distances * size / 2, 0.0, 1.0)[..., None]

    colour, ground, other = (u[:, k : k + 3, 0].reshape(-1, 1, 1, 3) for k in (5, 8, 11))
    other = ground + 0.5 * (other - ground)
    pattern = _pattern((u[:, 14, 0, 0] * len(_GROUNDS)).astype(int), u[:, 15], across, down, grain)
    ground = ground + pattern[..., None] * (other - ground)
    mixed = ground + cover * (_apart(colour, (ground.mean(axis=(1, 2), keepdims=True))) - ground)
    return np.rint(255 * mixed).astype(np.uint8), kinds


def _of_kinds(kinds: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    distances = np.empty(np.broadcast_shapes(x.shape, y.shape))
    for kind, distance in enumerate(KINDS.values()):
        chosen = kinds == kind
        distances[chosen] = distance(x[chosen], y[chosen])
    return distances


def _pattern(
    grounds: np.ndarray, angle: np.ndarray, across: np.ndarray, down: np.ndarray, grain: np.ndarray
) -> np.ndarray:
    """Returns how much of the second colour the ground has, from 0 to 1, [n, size, size]."""
    turn = 2 * np.pi * angle
    along = np.cos(turn) * across + np.sin(turn) * down
    aside = np.cos(turn) * down - np.sin(turn) * across
    waves = 1.5 + 2.5 * (angle * 7 % 1)
    choices = {
        "plain": np.zeros_like(grain),
        "slope": np.clip(along / 2 + 0.5, 0, 1),
        "stripes": np.clip(2 * np.sin(np.pi * waves * along) + 0.5, 0, 1),
        "checks": np.clip(4 * np.sin(np.pi * waves * along) * np.sin(np.pi * waves * aside) + 0.5, 0, 1),
        "grain": grain,
    }
    return np.select(
        [grounds[:, None, None] == k for k in range(len(_GROUNDS))], [choices[g] for g in _GROUNDS]
    )


def _apart(colour: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Returns the colours, the opposite of the ground's brightness where they would hardly be seen on it."""
    near = np.linalg.norm(colour - ground, axis=-1, keepdims=True) < _LEAST_CONTRAST
    away = np.where(ground.mean(axis=-1, keepdims=True) < 0.5, 0.4 * colour + 0.6, 0.4 * colour)
    return np.where(near, away, colour)


@registry.problems.register("toy_shapes")
class ToyShapes(ImageProblem):
    """4,000 pictures to train on, 500 to validate and 500 to test, always the same; the label is the kind of shape."""

    name = "toy_shapes"
    num_classes = len(KINDS)
    label_names = tuple(KINDS)

    def __init__(self, size: int = 32):
        """`size` is height and width in pixels, 8 to 128."""
        if type(size) is not int or not 8 <= size <= 128:
            raise UserError(f"toy_shapes.size is {size!r}; it must be a whole number from 8 to 128")
        self._size = size
        self.image_shape = (size, size, 3)

    def settings(self) -> dict[str, int]:
        return super().settings() | {"size": self._size}

    def samples(self, split: str) -> Iterator[Sample]:
        count = _SIZES[split]
        for first in range(0, count, _CHUNK):
            numbers = np.arange(first, min(first + _CHUNK, count))
            seeds = np.stack([np.full_like(numbers, zlib.crc32(split.encode())), numbers], axis=1)
            yield from zip(*draw(seeds, self._size), strict=True)
