"""Pictures put side by side, as one picture."""

import numpy as np

_GROUND = 255


def grid(pictures: np.ndarray, scale: int = 1, gap: int = 1) -> np.ndarray:
    """Returns a picture, uint8 [height, width, 3], of `pictures` uint8 [rows, columns, h, w, 1 or 3].

    Each pixel becomes a square of `scale` x `scale`; between two pictures are `gap` pixels.
    """
    pictures = np.repeat(np.repeat(pictures, scale, axis=2), scale, axis=3)
    if pictures.shape[-1] == 1:
        pictures = np.repeat(pictures, 3, axis=-1)
    rows, columns, height, width, channels = pictures.shape
    whole = np.full([rows * (height + gap) - gap, columns * (width + gap) - gap, channels], _GROUND, np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            whole[top : top + height, left : left + width] = pictures[row, column]
    return whole


def beside(pairs: tuple[np.ndarray, ...], columns: int, scale: int = 1) -> np.ndarray:
    """Returns a grid of several sets of n pictures, each uint8 [n, h, w, channels]: a row of the first, below it one
    of the second, and so on; then the next `columns` of each."""
    count = len(pairs[0]) // columns * columns
    rows = [part[:count].reshape(-1, 1, columns, *part.shape[1:]) for part in pairs]
    stacked = np.concatenate(rows, axis=1)
    return grid(stacked.reshape(-1, columns, *pairs[0].shape[1:]), scale)
