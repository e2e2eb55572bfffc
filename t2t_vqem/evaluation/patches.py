"""The places in pictures that codes stand at: patches, and their means."""

from collections.abc import Sequence

import numpy as np

from t2t_vqem.evaluation import picture_grid
from t2t_vqem.models.model import Model


def patch_shape(model: Model) -> tuple[int, int]:
    """Returns height and width of a position's part of a picture; at the far edges some may be less.

    A model says it as `patch_shape`; of one that does not, the positions share the picture evenly.
    """
    (height, width, _), (rows, columns, _) = model.image_shape, model.code_shape
    return getattr(model, "patch_shape", (-(-height // rows), -(-width // columns)))


def visible(height: int) -> int:
    """Returns by how much a patch is enlarged where it is shown."""
    return max(1, 16 // height)


def split(pictures: np.ndarray, code_shape: Sequence[int], patch: tuple[int, int]) -> np.ndarray:
    """Returns the patches of `pictures` uint8 [batch, height, width, channels], in the raster order of the field.

    Their shape is [batch, rows * columns, *patch, channels]; edges are repeated where the patches go beyond them.
    """
    (rows, columns, _), (high, wide) = code_shape, patch
    room = [(0, rows * high - pictures.shape[1]), (0, columns * wide - pictures.shape[2])]
    whole = np.pad(pictures, [(0, 0), *room, (0, 0)], mode="edge")
    parts = whole.reshape(len(whole), rows, high, columns, wide, -1).transpose(0, 1, 3, 2, 4, 5)
    return parts.reshape(len(whole), rows * columns, high, wide, -1)


class MeanPatches:
    """Sums of the patches that had each code of one slot.

    Attributes:
      counts: int64 [codes], how often each came.
    """

    def __init__(self, num_codes: int, shape: Sequence[int]):
        """`shape` is [height, width, channels] of a patch."""
        self._sums = np.zeros([num_codes, *shape])
        self.counts = np.zeros([num_codes], np.int64)

    def add(self, patches: np.ndarray, codes: np.ndarray) -> None:
        """Adds `patches` [any, height, width, channels], which have the `codes` [any]."""
        order = np.argsort(codes, kind="stable")
        used, starts, counts = np.unique(codes[order], return_index=True, return_counts=True)
        if used.size:
            self._sums[used] += np.add.reduceat(patches[order].astype(np.float64), starts)
            self.counts[used] += counts

    def means(self) -> np.ndarray:
        """Returns float64 [codes, height, width, channels]; 0 for codes that never came."""
        return self._sums / np.maximum(self.counts, 1)[:, None, None, None]

    def picture(self, most: int) -> np.ndarray:
        """Returns the means of the most frequent codes, side by side."""
        chosen = np.argsort(-self.counts, kind="stable")[:most]
        means = np.rint(self.means()[chosen]).astype(np.uint8)
        return picture_grid.grid(means[None], visible(means.shape[1]))
