"""Pictures in and out of an image model: a folder of files rebuilt from their codes, samples of a prior."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from t2t_vqem import files, picture_file
from t2t_vqem.errors import UserError
from t2t_vqem.models.model import Model
from t2t_vqem.models.prior import PriorModel

BATCH = 32
_CONTRACT = ("image_shape", "code_shape", "num_codes", "classes", "look", "encode", "decode", "interpolate")


class Picture(NamedTuple):
    """A picture, uint8 [height, width, channels], and the name of its file without folder and ending."""

    name: str
    pixels: np.ndarray


def paths(source: str) -> list[str]:
    """Returns the files in a folder in the order of their names, hidden ones left out, or the one file `source`.

    Raises:
      UserError: there is no such folder, nothing in it, or a folder in it.
    """
    if os.path.isfile(source):
        return [source]
    if not os.path.isdir(source):
        raise UserError(f'there is no folder or picture "{source}"; is --input right?')
    names = sorted(name for name in os.listdir(source) if not name.startswith("."))
    if not names:
        raise UserError(f"the folder {source} is empty: there is nothing to read")
    found = [os.path.join(source, name) for name in names]
    for path in found:
        if os.path.isdir(path):
            raise UserError(f"{path} is a folder; --input takes a folder of pictures alone")
    by_stem: dict[str, str] = {}
    for path in found:
        if by_stem.setdefault(stem(path), path) != path:
            raise UserError(f"{path} has the same name as another picture but for its ending; rename one")
    return found


def stem(path: str) -> str:
    """Returns a file's name without folder and ending."""
    return os.path.splitext(os.path.basename(path))[0]


def read(found: Sequence[str], image_shape: Sequence[int]) -> Iterator[Picture]:
    """Yields the pictures in files, every one of which must have the shape (height, width, channels).

    Raises:
      UserError: a file is no picture, is damaged or is not of that shape; the text names it.
    """
    height, width, channels = image_shape
    for path in found:
        try:
            yield Picture(stem(path), picture_file.read(path, picture_file.Wanted((height, width), channels)))
        except picture_file.BadPicture as bad:
            raise UserError(f"{path} {bad}") from None


def batches(pictures: Iterator[Picture], rows: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yields the names of at most `rows` pictures, and the pictures `filled` to so many rows."""
    while batch := list(itertools.islice(pictures, rows)):
        yield (
            [picture.name for picture in batch],
            filled(np.stack([picture.pixels for picture in batch]), rows),
        )


def filled(batch: np.ndarray, rows: int) -> np.ndarray:
    """Returns `batch` with so many zeros below it that it has `rows` rows."""
    return np.concatenate([batch, np.zeros([rows - len(batch), *batch.shape[1:]], batch.dtype)])


def write(pictures: Iterable[Picture], folder: str) -> list[str]:
    """Makes the new folder `folder`, the value of --output, of PNG files; returns their paths once it is whole."""
    names = []
    with files.new_folder(folder, "output") as made:
        for picture in pictures:
            names.append(f"{picture.name}.png")
            files.write_atomic(os.path.join(made, names[-1]), picture_file.png(picture.pixels))
    return [os.path.join(folder, name) for name in names]


def require_codes(model: Model, reader: str, needed: Sequence[str] = _CONTRACT) -> None:
    """Raises a UserError unless an image model has codes and what goes with them, as `VQVAE` has; `reader` needs it."""
    missing = [name for name in needed if not hasattr(model, name)]
    if missing:
        raise UserError(
            f"the model {type(model).__name__} has no {', '.join(missing)}, which {reader} needs; see vqvae, whose "
            "contract it is"
        )


def draws_codes(model: Model) -> bool:
    """Returns whether a picture has a distribution of codes, not the likeliest alone, and `model` draws from it."""
    able = hasattr(model, "draw") and hasattr(model, "nats")
    return able and any(bottleneck.stochastic for bottleneck in model.bottlenecks.values())


def warn_of_class(model: Model) -> None:
    """Warns where pictures without classes go through a model that is told them: it is told the first."""
    if model.classes is not None:
        logging.warning("the model is class-conditional and files have no class: all count as of the first")


def rebuilt(model: Model, pictures: Iterator[Picture]) -> Iterator[Picture]:
    """Yields of each picture what `model` makes of its codes.

    A class-conditional decoder is told the first class, for files have none.
    """
    infer = tf.function(model.infer, autograph=False)
    for names, pixels in batches(pictures, BATCH):
        found = infer({"inputs": tf.zeros([BATCH], tf.int32), "targets": tf.constant(pixels)})
        yield from map(Picture, names, found["outputs"].numpy())


def samples(
    model: Model,
    prior: PriorModel,
    count: int,
    *,
    num_classes: int,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Iterator[np.ndarray]:
    """Yields `count` pictures, uint8 [height, width, channels], decoded from codes that `prior` draws.

    The `num_classes` classes take turns, where prior or decoder know them. A picture depends on seed and number alone.

    Raises:
      UserError: temperature, top_k or top_p is out of range.
    """
    decode = tf.function(model.decode, autograph=False)
    for first in range(0, count, BATCH):
        numbers = tf.range(first, first + BATCH)
        labels = numbers % num_classes
        codes = prior.sample(labels, numbers, seed=seed, temperature=temperature, top_k=top_k, top_p=top_p)
        yield from decode(codes, labels).numpy()[: count - first]
