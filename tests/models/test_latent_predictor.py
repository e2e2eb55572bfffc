"""The predictor of latents: its cached search against teacher forcing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import registry, search
from t2t_vqem.context import Training
from t2t_vqem.layers.block import Block
from t2t_vqem.models.latent_predictor import LatentPredictor

DIM, CODES = 8, 16


@pytest.fixture
def source():
    """An encoded source of three rows, of 5, 3 and 1 tokens."""
    return tf.random.stateless_normal([3, 5, DIM], [1, 2]), tf.sequence_mask([5, 3, 1], 5)


def make(name, dropout=0.0):
    keras.utils.set_random_seed(3)
    bottleneck = registry.bottlenecks.get(name)(num_codes=CODES, dim=DIM)
    for number, level in enumerate(getattr(bottleneck, "levels", [bottleneck])):
        book = level.codebook
        book.means.assign(tf.random.stateless_normal(book.means.shape, [number, 2]) * 2.0)
        book.counts.assign(tf.ones(book.counts.shape))
    predictor = LatentPredictor(bottleneck, 2, dim=DIM, filter_size=16, heads=2, dropout=dropout)
    if predictor.slots > 1:
        predictor.slot_places.assign(tf.random.stateless_normal([predictor.slots, DIM], [5, 5]))
    return predictor


@pytest.mark.parametrize("bottleneck", ["hard_em", "product"])
def test_given_its_own_codes_it_finds_each_of_them_likeliest_again(source, bottleneck):
    predictor, most = make(bottleneck), tf.constant([4, 4, 4])
    found = predictor.find(*source, tf.ones([3, 5], tf.int32), search.Settings(), most, 4)
    lengths = found.lengths[:, 0] // predictor.slots
    assert max(lengths) >= 2
    codes = tf.reshape(found.ids[:, 0, : 4 * predictor.slots], [3, 4, predictor.slots, 1])
    mask = tf.sequence_mask(lengths, 4)
    codes = tf.where(mask[:, :, None, None], codes, 0)
    logits = predictor(codes, mask, *source)
    likeliest = tf.argmax(logits[:, :-1, :CODES], axis=-1)  # the end has a rule of its own
    real = np.repeat(mask, predictor.slots, axis=1)
    np.testing.assert_array_equal(likeliest.numpy()[real], np.reshape(codes, real.shape)[real])


def test_its_prior_is_that_of_the_codes_before(source):
    predictor = make("hard_em")
    codes = tf.constant([[3, 7], [7, 3], [5, 0]])[..., None, None]
    mask = tf.sequence_mask([2, 2, 1], 2)
    prior = predictor.log_prior(codes, mask, *source)
    assert prior.shape == [3, 2, CODES]
    logits = predictor(codes, mask, *source)[:, :2]
    shares = tf.exp(logits) / tf.reduce_sum(tf.exp(logits[..., :CODES]), axis=-1, keepdims=True)
    np.testing.assert_allclose(tf.exp(prior), shares[..., :CODES], rtol=1e-5)
    other = predictor.log_prior(tf.constant([[3, 9], [9, 3], [5, 0]])[..., None, None], mask, *source)
    np.testing.assert_allclose(prior[:1], other[:1], rtol=1e-5)  # a code does not see itself
    assert np.max(np.abs(prior[1, 1] - other[1, 1])) > 1e-3


def test_no_dropout_touches_its_prior_in_the_training_of_a_model(source):
    class Model(Block):
        def __init__(self):
            super().__init__()
            self.predictor = make("hard_em", dropout=0.5)

        def call(self, codes, training=None):
            return self.predictor.log_prior(codes, tf.sequence_mask([2, 2, 1], 2), *source)

    model, codes = Model(), tf.constant([[3, 7], [7, 3], [5, 0]])[..., None, None]
    training = Training(0, tf.constant(5), tf.range(3), 3)
    np.testing.assert_array_equal(model(codes, training=training), model(codes))


def test_what_its_stack_reads_is_dropped_out_once(inputs_of, source):
    predictor, codes = make("hard_em", dropout=0.5), tf.constant([[3, 7], [7, 3], [5, 0]])[..., None, None]
    mask, read = tf.sequence_mask([2, 2, 1], 2), inputs_of(predictor, "stack")
    predictor(codes, mask, *source)
    predictor(codes, mask, *source, training=Training(0, tf.constant(5), tf.range(3), 3))
    whole, dropped = read
    kept = dropped != 0.0
    assert 0.3 < np.mean(kept[whole != 0.0]) < 0.7
    np.testing.assert_allclose(dropped[kept], 2.0 * whole[kept], rtol=1e-5)
