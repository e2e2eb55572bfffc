"""What changes in a picture when one of its codes is another; `codebook_swaps` does so with texts."""

from typing import Any

import numpy as np
import tensorflow as tf

from t2t_vqem.evaluation.codebook_patches import png
from t2t_vqem.evaluation.codebook_reading import Reading
from t2t_vqem.evaluation.codebook_swaps import SHOWN, Swap
from t2t_vqem.evaluation.evenly import evenly
from t2t_vqem.models.model import Model

_ROWS = 32  # pictures decoded together


def study(model: Model, reading: Reading, chosen: list[Swap], patch: tuple[int, int]) -> dict[str, Any]:
    """Decodes the swaps of `codebook_swaps.choose` with an image model's `decode`.

    Args:
      patch: height and width of a position's part of a picture.

    Returns:
      "pictures", how many were decoded; "levels_inside" and "levels_outside": by how many of 255 levels a number
      changes, on the mean, in the position's own patch and elsewhere; "shown", some of the swaps, with PNGs in base64:
      "source", "before", "after".
    """
    decode = tf.function(model.decode, autograph=False)
    sums, shown, places = np.zeros([2, 2]), [], set(evenly(len(chosen), SHOWN))
    rows, columns, slots = model.code_shape
    for start in range(0, len(chosen), _ROWS):
        part = chosen[start : start + _ROWS]
        codes = np.stack([reading.codes[reading.examples == swap.example] for swap in part])
        labels = tf.constant([reading.features[swap.example]["inputs"] for swap in part], tf.int32)
        swapped = codes.copy()
        for row, swap in enumerate(part):
            swapped[row, swap.position, swap.slot] = swap.replacement
        before, after = (
            decode(tf.constant(these.reshape(-1, rows, columns, slots)), labels).numpy()
            for these in (codes, swapped)
        )
        for row, swap in enumerate(part):
            changed = np.abs(before[row].astype(int) - after[row].astype(int)).sum(axis=-1)
            top, left = (n * size for n, size in zip(divmod(swap.position, columns), patch, strict=True))
            inside = np.zeros(changed.shape, bool)
            inside[top : top + patch[0], left : left + patch[1]] = True
            channels = before.shape[-1]
            sums += [[changed[where].sum(), where.sum() * channels] for where in (inside, ~inside)]
            if start + row in places:
                pictures = {"source": reading.features[swap.example]["targets"]}
                pictures |= {"before": before[row], "after": after[row]}
                shown.append({name: png(picture) for name, picture in pictures.items()} | swap._asdict())
    names = ("levels_inside", "levels_outside")
    figures = {name: float(total / count) for name, (total, count) in zip(names, sums, strict=True) if count}
    return {"pictures": len(chosen), **figures, "shown": shown}
