"""Attention and transformer stacks: masks, causality, cache."""

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.context import Training
from t2t_vqem.layers.attention import CrossAttention, SelfAttention, positions
from t2t_vqem.layers.transformer import Transformer


@pytest.fixture
def x():
    return tf.random.stateless_normal([3, 7, 8], [1, 2])


@pytest.fixture
def mask():
    return tf.sequence_mask([7, 4, 1], 7)


def stack(**kwargs):
    return Transformer(2, 8, 16, 2, **kwargs)


def expected(query, key, value):
    """Attention of two heads, of projections [batch, length, 8]."""
    contexts = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = np.exp(query[:, :, head] @ key[:, :, head].transpose(0, 2, 1) / np.sqrt(4))
        contexts.append(weights / weights.sum(-1, keepdims=True) @ value[:, :, head])
    return np.concatenate(contexts, axis=-1)


def test_attention_is_the_softmax_of_scaled_products(x):
    everything = tf.ones([1, 1, 1, 7], tf.bool)
    own = SelfAttention(8, 2)
    out = own(x, mask=everything)
    context = expected(*np.split(own.project(x).numpy(), 3, axis=-1))
    np.testing.assert_allclose(out, own.combine(context), atol=1e-5)

    other, memory = CrossAttention(8, 2), x[:, ::-1] * 2.0
    out = other(x[:, :3], other.key_values(memory), mask=everything)
    context = expected(other.query(x[:, :3]).numpy(), *np.split(other.key_value(memory).numpy(), 2, axis=-1))
    np.testing.assert_allclose(out, other.combine(context), atol=1e-5)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="heads"):
        SelfAttention(8, 3)


def test_padding_changes_nothing_where_there_is_text(x, mask):
    layers = stack()
    other = tf.where(mask[:, :, None], x, 100.0)
    np.testing.assert_allclose(
        tf.boolean_mask(layers(x, mask=mask), mask),
        tf.boolean_mask(layers(other, mask=mask), mask),
        atol=1e-5,
    )


def test_a_causal_stack_does_not_look_ahead_and_another_does(x):
    mask = tf.ones([3, 7], tf.bool)
    changed = tf.concat([x[:, :5], x[:, 5:, ::-1]], axis=1)
    causal, both = stack(causal=True), stack()
    np.testing.assert_allclose(causal(x, mask=mask)[:, :5], causal(changed, mask=mask)[:, :5], atol=1e-6)
    assert np.abs(both(x, mask=mask)[:, :5] - both(changed, mask=mask)[:, :5]).max() > 1e-3


def test_steps_with_a_cache_equal_the_whole(x, mask):
    layers = stack(causal=True, cross_attention=True)
    memory = tf.random.stateless_normal([3, 7, 8], [5, 6])
    whole = layers(x, mask=tf.ones([3, 7], tf.bool), memory=memory, memory_mask=mask)
    caches, key_values = layers.start(memory, 7)
    for i in range(7):
        out, caches = layers.step(x[:, i : i + 1], caches, tf.constant(i), key_values, mask)
        np.testing.assert_allclose(out[:, 0], whole[:, i], atol=1e-5)


def test_dropout_acts_in_training_alone(x):
    layers = stack(dropout=0.3)
    mask = tf.ones([3, 7], tf.bool)
    training = Training(0, tf.constant(0), tf.range(3), 3)
    np.testing.assert_array_equal(layers(x, mask=mask), layers(x, mask=mask))
    assert np.abs(layers(x, mask=mask, training=training) - layers(x, mask=mask)).max() > 1e-2


def test_positions_are_sines_then_cosines():
    table = positions(5, 8, tf.float32).numpy()
    np.testing.assert_allclose(table[0], [0, 0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_allclose(table[:, 0], np.sin(np.arange(5)), atol=1e-6)
    np.testing.assert_allclose(table[:, 3], np.sin(np.arange(5) / 10_000), atol=1e-6)
