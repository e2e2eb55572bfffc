"""How far two random halves of a split agree on the use of the codes."""

import math

import numpy as np

_SEED = 0


def halves(examples: int) -> np.ndarray:
    """Returns bool [examples]: which are in the second half; the same each time."""
    second = np.zeros(examples, bool)
    second[np.random.default_rng(_SEED).permutation(examples)[: examples // 2]] = True
    return second


def agreement(first: np.ndarray, second: np.ndarray) -> dict[str, float | None]:
    """Returns how like each other two usages of a codebook are, from counts [codes].

    `split_half_tv`: total variation distance of the two distributions, 0 for equal ones and 1 for disjoint ones;
    `split_half_tv_by_chance`: about what it is for two draws of as many codes from their common distribution, each
    code drawn for itself. `split_half_pearson`: the correlation of log(1 + count); `split_half_spearman`: that of
    the counts' ranks. None where there is no such number: a half without codes, counts that are all the same.
    """
    sizes = first.sum(), second.sum()
    found: dict[str, float | None] = {"split_half_tv": None, "split_half_tv_by_chance": None}
    if min(sizes) > 0:
        found["split_half_tv"] = float(np.abs(first / sizes[0] - second / sizes[1]).sum() / 2)
        share = (first + second) / sum(sizes)
        # E|a - b| of two shares that are nearly normal; of a code that seldom occurs it is at most twice its share.
        normal = np.sqrt(2 / math.pi * share * (1 - share) * (1 / sizes[0] + 1 / sizes[1]))
        found["split_half_tv_by_chance"] = float(np.minimum(normal, 2 * share).sum() / 2)
    found["split_half_pearson"] = _correlation(np.log1p(first), np.log1p(second))
    found["split_half_spearman"] = _correlation(_ranks(first), _ranks(second))
    return found


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns the rank of each value; equal values share the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    if a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def strangers(count: int) -> np.ndarray:
    """Returns for each of `count` things another one, the same each time; of one alone, itself.

    They are drawn, for neighbours may be alike: codes of some bottlenecks are numbers.
    """
    order = np.random.default_rng(_SEED).permutation(count)
    found = np.empty_like(order)
    found[order] = np.roll(order, -1)
    return found
