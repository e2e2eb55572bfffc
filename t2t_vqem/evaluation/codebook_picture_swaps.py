"""What changes in a picture when one of its codes is another; `codebook_swaps` does so with texts."""

from typing import Any

import numpy as np
import tensorflow as tf

from t2t_vqem.evaluation.codebook_patches import png
from t2t_vqem.evaluation.codebook_reading import Reading
from t2t_vqem.evaluation.codebook_swaps import Swap, decoded
from t2t_vqem.models.model import Model


def study(model: Model, reading: Reading, chosen: list[Swap], patch: tuple[int, int]) -> dict[str, Any]:
    """Decodes the swaps of `codebook_swaps.choose` with an image model's `decode`.

    Args:
      patch: height and width of a position's part of a picture.

    Returns:
      "pictures", how many were decoded; "levels_inside" and "levels_outside": by how many of 255 levels a number
      changes, on the mean, in the position's own patch and elsewhere; "shown", some of the swaps, with PNGs in base64:
      "source", "before", "after".
    """
    traced = tf.function(model.decode, autograph=False)
    rows, columns, slots = model.code_shape

    def batch(part: list[Swap]) -> tuple[np.ndarray, tuple[tf.Tensor]]:
        codes = np.stack([reading.codes[reading.examples == swap.example] for swap in part])
        labels = [reading.features[swap.example]["inputs"] for swap in part]
        return codes, (tf.constant(labels, tf.int32),)

    def decode(codes: np.ndarray, labels: tf.Tensor) -> tf.Tensor:
        return traced(tf.constant(codes.reshape(-1, rows, columns, slots)), labels)

    sums, shown = np.zeros([2, 2]), []
    for swap, before, after, show in decoded(chosen, batch, decode):
        changed = np.abs(before.astype(int) - after.astype(int))
        top, left = (n * size for n, size in zip(divmod(swap.position, columns), patch, strict=True))
        inside = np.zeros(changed.shape, bool)
        inside[top : top + patch[0], left : left + patch[1]] = True
        sums += [[changed[where].sum(), where.sum()] for where in (inside, ~inside)]
        if show:
            pictures = {"source": reading.features[swap.example]["targets"], "before": before, "after": after}
            shown.append({name: png(picture) for name, picture in pictures.items()} | swap._asdict())
    names = ("levels_inside", "levels_outside")
    figures = {name: float(total / count) for name, (total, count) in zip(names, sums, strict=True) if count}
    return {"pictures": len(chosen), **figures, "shown": shown}
