"""How far the codes of a bottleneck moved between two moments."""

import numpy as np
import tensorflow as tf

from t2t_vqem.bottlenecks.bottleneck import Bottleneck


def places(bottleneck: Bottleneck, most: int | None = None) -> np.ndarray:
    """Returns float32 [codes, slots, dim]: what the decoder reads of each code in each slot.

    Args:
      most: takes at most so many codes, evenly spaced over the codebook; None takes all.
    """
    count = bottleneck.num_codes
    chosen = np.arange(count) if most is None or most >= count else np.arange(most) * count // most
    codes = np.repeat(chosen[:, None], bottleneck.slots, axis=1)
    return bottleneck.parts(tf.constant(codes, tf.int32)).numpy()


def moved(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Returns float32 [codes, slots]: each code's way from `before` to `after`, both as `places` gives them.

    The unit is the root mean square of the norms of the slot's codes in `after`; all are 0 where that is 0.
    """
    norms = np.sqrt(np.mean(np.sum(np.square(after), axis=-1), axis=0))
    ways = np.linalg.norm(after - before, axis=-1)
    return np.divide(ways, norms, out=np.zeros_like(ways), where=norms > 0)
