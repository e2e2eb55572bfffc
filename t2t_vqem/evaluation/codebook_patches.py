"""What part of a picture each code stands at."""

import base64
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from t2t_vqem import picture_file
from t2t_vqem.context import LossTerm
from t2t_vqem.evaluation import patches, picture_grid
from t2t_vqem.evaluation.codebook_reading import Reading
from t2t_vqem.evaluation.codebook_stability import strangers
from t2t_vqem.evaluation.evenly import evenly
from t2t_vqem.models.model import Features, Model

_SHOWN = 8  # patches that are shown of each code, evenly spaced over the split
_LEAST_COMPARED = 5  # times that a code occurs in each half, or its mean patches are not compared


def look(model: Model, batch: Features) -> tuple[dict[str, LossTerm], Features]:
    """Returns what `codebook_reading.read` asks for, of a batch of pictures."""
    output, found = model.look(batch)
    shape = tf.shape(found["codes"])
    codes = tf.reshape(found["codes"], [shape[0], -1, model.code_shape[-1]])
    return output.metrics, {"codes": codes, "code_mask": tf.ones(tf.shape(codes)[:2], tf.bool)}


def png(picture: np.ndarray) -> str:
    """Returns a picture uint8 [height, width, channels] as a PNG in base64, which JSON and HTML can hold."""
    return base64.b64encode(picture_file.png(picture)).decode()


class CodePatches:
    """The codes of a split of pictures, and the patches at their places. A code knows more of a picture than its patch.

    Attributes:
      figure: what the mean of `likeness` is called.
      patch_shape: height and width of a patch.
    """

    figure = "patch_likeness"

    def __init__(
        self, reading: Reading, code_shape: Sequence[int], patch_shape: tuple[int, int], num_codes: int
    ):
        self._codes, self._examples, self._num_codes = reading.codes, reading.examples, num_codes
        self.patch_shape = patch_shape
        pictures = np.stack([row["targets"] for row in reading.features])
        parts = patches.split(pictures, code_shape, patch_shape)
        self._patches = parts[reading.examples, reading.positions]  # uint8 [latents, height, width, channels]

    def of_slot(self, slot: int) -> dict[int, dict[str, str]]:
        """Returns of each code that occurs in the slot PNGs: "mean", of its patches, and "patches", some."""
        means = np.rint(self._means(slot).means()).astype(np.uint8)
        codes = self._codes[:, slot]
        order = np.argsort(codes, kind="stable")
        used, starts = np.unique(codes[order], return_index=True)
        found = {}
        for code, places in zip(used.tolist(), np.split(order, starts[1:]), strict=True):
            shown = self._patches[places[evenly(len(places), _SHOWN)]]
            found[code] = {"mean": png(means[code]), "patches": png(picture_grid.grid(shown[None]))}
        return found

    def likeness(self, slot: int, second: np.ndarray) -> tuple[dict[int, float], float | None]:
        """Returns how far two halves of the split agree on the mean patch of each code.

        Args:
          second: bool [examples], which are in the second half.

        Returns:
          code -> cosine of its two mean patches, from each of which the mean of all patches of its half is taken,
          for codes that are frequent enough in each; and the mean cosine of two codes that have nothing to do with
          each other (each code's first half against the second half of another), None for fewer than two codes.
        """
        half = second[self._examples]
        sides, often = [], np.ones(self._num_codes, bool)
        for part in (half, ~half):
            if not part.any():
                return {}, None
            found = self._means(slot, part)
            often &= found.counts >= _LEAST_COMPARED
            sides.append(found.means() - self._patches[part].mean(axis=0))
        codes = np.flatnonzero(often)
        first, other = (side[codes].reshape(len(codes), math.prod(side.shape[1:])) for side in sides)
        own = dict(zip(codes.tolist(), _cosines(first, other).tolist(), strict=True))
        if len(codes) < 2:
            return own, None
        return own, float(_cosines(first, other[strangers(len(codes))]).mean())

    def _means(self, slot: int, where: np.ndarray | None = None) -> patches.MeanPatches:
        means = patches.MeanPatches(self._num_codes, self._patches.shape[1:])
        chosen = slice(None) if where is None else where
        means.add(self._patches[chosen], self._codes[chosen, slot])
        return means


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the cosine of each row of `a` and that of `b`, 0 where one has no length."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(a)), where=lengths > 0)
