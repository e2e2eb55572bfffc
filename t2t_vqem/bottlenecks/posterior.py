"""The posterior P(code | x) ~ P(code) exp(-|x - code|^2 / temperature) of an E-step: its mode, entropy and samples."""

import math
from typing import NamedTuple

import tensorflow as tf

from t2t_vqem.fusion import fused
from t2t_vqem.tiles import in_tiles

# Positions at a time. Fewer make the products slow, which pack all codes anew for each tile; more gain nothing.
TILE = 1024
# Of the tree in which codes are drawn: each step is written out for each child, so more take long to compile.
FANOUT = 32
# Rows of a power of two of numbers share their places in a CPU's caches, which halves the rate of a product that writes
# them. So each row gets this many numbers more where there are so many codes or a multiple of it.
_GAP, _ALIASED = 64, 2048


class Posterior(NamedTuple):
    """What is read of the posterior of each position.

    Attributes:
      codes: int32 [positions], the likeliest code, without a prior the nearest.
      samples: int32 [positions, m], codes drawn from it.
      effective_codes: float32 [positions], exp(entropy), between 1 and the number of codes.
    """

    codes: tf.Tensor
    samples: tf.Tensor
    effective_codes: tf.Tensor


def negative_distances(x: tf.Tensor, places: tf.Tensor, born: tf.Tensor) -> tf.Tensor:
    """Returns |x|^2 - |x - code|^2 [positions, codes] of `x` [positions, dim]; about -1e30 if unborn.

    The term |x|^2 is the same for all codes: neither the argmin nor the posterior depends on it.
    """
    return _negative_distances(x, places, _offsets(places, born))


def _offsets(places: tf.Tensor, born: tf.Tensor) -> tf.Tensor:
    """Returns -|code|^2 [codes], -1e30 if unborn."""
    return tf.where(born, -tf.reduce_sum(tf.square(places), axis=-1), -1e30)


def _negative_distances(x: tf.Tensor, places: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
    # What can be done to x is not done to the [positions, codes] products: each pass over these shows.
    return tf.matmul(2.0 * x, places, transpose_b=True) + offsets


def posterior(
    x: tf.Tensor,
    places: tf.Tensor,
    born: tf.Tensor,
    temperature: tf.Tensor | float,
    draws: tf.Tensor | None,
    log_prior: tf.Tensor | None = None,
) -> Posterior:
    """Returns the posterior of `x` [positions, dim] over the codes `places` [codes, dim] that are `born` [codes].

    Positions do not depend on each other: they are taken TILE or fewer at a time, so that no tensor is
    [positions, codes]. Nothing has a gradient.

    Args:
      draws: [positions, m], uniform in (0, 1); None takes the likeliest code for the only sample.
      log_prior: [positions, codes], log P(code) up to a constant a position; None is the uniform prior.
    """
    places = tf.stop_gradient(places)
    offsets = _offsets(places, born)
    if places.shape[0] % _ALIASED == 0:  # codes that are farther away than any, the unborn ones included
        places = tf.pad(places, [[0, _GAP], [0, 0]])
        offsets = tf.pad(offsets, [[0, _GAP]], constant_values=-2e30)
        log_prior = None if log_prior is None else tf.pad(log_prior, [[0, 0], [0, _GAP]])
    given = {"x": x, "draws": draws, "log_prior": log_prior}
    given = {name: tf.stop_gradient(rows) for name, rows in given.items() if rows is not None}

    def find(*rows: tf.Tensor) -> Posterior:
        found = dict(zip(given, rows, strict=True))
        draws, negative = found.get("draws"), _negative_distances(found["x"], places, offsets)
        if "log_prior" in found:
            negative += temperature * found["log_prior"]
        codes = tf.argmax(negative, axis=-1, output_type=tf.int32)
        with tf.control_dependencies([codes]):  # then nobody else reads `negative`, and it can be overwritten
            samples, effective_codes = _drawn(negative, temperature, draws)
        return Posterior(codes, codes[:, None] if samples is None else samples, effective_codes)

    return in_tiles(find, list(given.values()), TILE, Posterior(tf.int32, tf.int32, tf.float32))


def _drawn(
    negative: tf.Tensor, temperature: tf.Tensor | float, draws: tf.Tensor | None
) -> tuple[tf.Tensor | None, tf.Tensor]:
    """Returns samples [positions, m], None without `draws`, and exp(entropy) [positions].

    From each weight e^-60 of the largest is taken, to 0 at least: that is far under the resolution of the draws
    (2^-24), and no subnormal number is left that one operation flushes to 0 and another does not.
    """
    # Written so that each step can overwrite the one before.
    logits = (negative - tf.reduce_max(negative, axis=-1, keepdims=True)) / temperature
    weights = tf.nn.relu(tf.exp(logits) - math.exp(-60.0))
    total = tf.reduce_sum(weights, axis=-1)
    entropy = tf.math.log(total) - tf.reduce_sum(weights * logits, axis=-1) / total
    return None if draws is None else sample(weights, draws), tf.exp(entropy)


def sample(weights: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Draws codes by inverting the cumulative distribution, from a tree of masses down to the codes.

    FANOUT neighbouring codes have a parent, whose mass is theirs together, and so on up to at most FANOUT of them.
    This holds [positions, m, FANOUT] numbers; a cumulative sum over all K codes and a search in it take several
    times as long, and XLA's own categorical makes noise for every position, sample and code.

    Args:
      weights: [positions, codes], not negative, not all 0; they need not add to 1.
      draws: [positions, m], uniform in (0, 1).

    Returns:
      int32 [positions, m], always codes of positive weight.
    """
    masses, families = weights, []
    while masses.shape[-1] > FANOUT:
        parents = -(-masses.shape[-1] // FANOUT)
        orphans = parents * FANOUT - masses.shape[-1]
        masses = tf.pad(masses, [[0, 0], [0, orphans]]) if orphans else masses
        families.append(tf.reshape(masses, [-1, parents, FANOUT]))
        masses = tf.reduce_sum(families[-1], axis=-1)
    return _descended(draws, masses, *reversed(families))


@fused
def _descended(draws: tf.Tensor, top: tf.Tensor, *families: tf.Tensor) -> tf.Tensor:
    """Returns codes [positions, m], found from `top` [positions, nodes] down through [positions, parents, FANOUT]."""
    node, rest = _taken(top[:, None, :], draws * tf.reduce_sum(top, axis=-1, keepdims=True))
    for children in families:
        child, rest = _taken(tf.gather(children, node, batch_dims=1), rest)
        node = node * FANOUT + child
    return node


def _taken(masses: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns which of `masses` [positions, m or 1, nodes] holds the target [positions, m], and how far into it.

    That is the last of positive mass before which the masses add up to the target or less; the sums are made in one
    order, so that they never fall. Rounding can leave a target above the sum of all: the last of positive mass has it.
    """
    index, start, rest = tf.zeros_like(targets, tf.int32), tf.zeros_like(targets), targets
    for node, mass in enumerate(tf.unstack(masses, axis=-1)):
        reached = tf.logical_and(start <= targets, mass > 0.0)
        index = tf.where(reached, node, index)
        rest = tf.where(reached, targets - start, rest)
        start += mass
    return index, rest
