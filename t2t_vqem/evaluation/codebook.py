"""How a codebook is used, counted over a whole set and never over a batch.

A batch sees few codes of a large codebook: usage measured per batch says more of the batch than of the codes.
"""

from collections.abc import Mapping

import numpy as np


def code_counts(codes: np.ndarray, mask: np.ndarray, num_codes: int) -> np.ndarray:
    """Returns how often each code occurs in each slot, int64 [slots, num_codes].

    Args:
      codes: integers in [0, num_codes), [..., slots].
      mask: booleans [...]; False marks padding, which is not counted.

    Raises ValueError if a code that is not masked is out of range.
    """
    used = np.asarray(codes)[np.asarray(mask, bool)]
    if used.size and (used.min() < 0 or used.max() >= num_codes):
        raise ValueError(f"codes from {used.min()} to {used.max()} in a codebook of {num_codes}")
    return np.stack([np.bincount(slot, minlength=num_codes) for slot in used.T])


def perplexity(counts: np.ndarray) -> float:
    """Returns exp(H) of the codes' relative frequencies: how many evenly used codes have the same entropy.

    It lies between 1 (one code) and the number of codes; 0 if nothing was counted.
    """
    total = counts.sum()
    if total == 0:
        return 0.0
    frequencies = counts[counts > 0] / total
    return float(np.exp(-np.sum(frequencies * np.log(frequencies))))


def usage(counts: np.ndarray) -> Mapping[str, float]:
    """Returns the codebook's figures by name, from the counts [slots, num_codes] of a whole set; means over slots.

    `live_codes` is the number of codes that occur at all, `perplexity_per_code` the perplexity divided by the
    number of codes (1 for even use), `latents` the number of positions counted.
    """
    value = float(np.mean([perplexity(slot) for slot in counts]))
    return {
        "codebook_perplexity": value,
        "perplexity_per_code": value / counts.shape[1],
        "live_codes": float(np.count_nonzero(counts) / len(counts)),
        "latents": float(counts[0].sum()),
    }
