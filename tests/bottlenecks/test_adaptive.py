"""The codebook that chooses its size."""

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.bottlenecks.adaptive import AdaptiveEM, Clusters
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.context import Training
from t2t_vqem.errors import UserError

ROWS, DIM, ROOM = 300, 4, 16
CENTRES = 6.0 * np.random.default_rng(2).normal(size=(5, DIM)).astype(np.float32)


def learn(bottleneck, steps, clusters):
    @tf.function(autograph=False)
    def one(step):
        noise = tf.random.stateless_normal([ROWS, DIM], tf.stack([7, step]))
        points = tf.gather(CENTRES[:clusters], tf.range(ROWS) % clusters) + noise
        training = Training(0, step, tf.range(ROWS), ROWS)
        bottleneck.m_step(bottleneck.e_step(points, None, training).statistics)

    for step in steps:
        one(tf.constant(step))
    return bottleneck


@pytest.mark.parametrize("first_codes", [2, 14])
@pytest.mark.parametrize("clusters", [3, 5])
def test_it_finds_the_number_of_clusters_from_too_few_and_too_many(first_codes, clusters):
    settings = CodebookSettings(norm=None, decay=0.9, warmup_steps=0)
    bottleneck = AdaptiveEM(ROOM, DIM, settings, first_codes=first_codes, adapt_every=20, adapt_until=300)
    sizes = [int(learn(bottleneck, steps, clusters).usage()["size"]) for steps in (range(15), range(15, 320))]
    assert sizes == [first_codes, clusters]
    means = bottleneck.codebook.means.numpy()[bottleneck.codebook.born().numpy()]
    assert len(means) == clusters
    distances = np.linalg.norm(CENTRES[:clusters, None] - means[None], axis=-1)
    assert distances.min(axis=1).max() < 0.5  # every cluster has its code


def test_merging_keeps_positions_sums_and_errors():
    bottleneck = AdaptiveEM(4, 1, CodebookSettings(norm=None), adapt_every=1)
    book = bottleneck.codebook
    now = Clusters(
        tf.constant([[0.0], [1.0], [50.0], [9.0]]),
        tf.constant([2.0, 6.0, 5.0, 0.0]),
        tf.constant([20.0, 60.0, 5.0, 0.0]),
    )
    means, counts, errors = book._merged(now)
    np.testing.assert_allclose(means[:3, 0], [0.75, 0.0, 50.0])
    np.testing.assert_allclose(counts, [8.0, 0.0, 5.0, 0.0])
    np.testing.assert_allclose(errors, [20 + 60 + 2 * 0.75**2 + 6 * 0.25**2, 0.0, 5.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("first_codes", 0),
        ("first_codes", 17),
        ("adapt_every", 0),
        ("prune_share", 1.0),
        ("merge_ratio", -1.0),
        ("split_ratio", -0.5),
        ("adapt_until", 99),
    ],
)
def test_errors_name_the_parameter(parameter, value):
    with pytest.raises(UserError, match=f"{parameter} = {value!r}"):
        AdaptiveEM(ROOM, DIM, CodebookSettings(), **{parameter: value})
