import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.errors import UserError
from t2t_vqem.models.code_vqvae import CodeVQVAE
from t2t_vqem.training.optimizer import Adam, schedule
from t2t_vqem.training.step import TrainStep

SMALL = {"latents": 2, "latent_codes": 4, "latent_dim": 4, "num_strides": 1, "dim": 8, "layers": 1}
SMALL |= {"slot_layers": 1, "slot_dim": 8, "slot_heads": 2, "dropout": 0.0}


def make(code_shape=(3, 3, 1), num_codes=5, **hparams):
    keras.utils.set_random_seed(3)
    model = CodeVQVAE(code_shape, num_codes, 2, **(SMALL | hparams))
    model.build_weights()
    return model


def fields(rows=6):
    """Fields of one code each: what they are is one choice of four."""
    return tf.broadcast_to((tf.range(rows) % 4)[:, None, None, None], [rows, 3, 3, 1])


def train(model, targets, steps=300):
    variables = [variable.value for variable in model.trainable_variables]
    optimizer = Adam(schedule(1e-2, 10, "constant", steps), variables)
    step = TrainStep(model, optimizer, tf.distribute.get_strategy(), seed=1)
    labels = tf.zeros([steps, len(targets)], tf.int32)
    step({"inputs": labels, "targets": tf.repeat(targets[None], steps, axis=0)})
    return model


@pytest.fixture(scope="module")
def trained():
    return train(make(), fields(8))


def test_latents_say_what_the_first_code_cannot_know(trained):
    """From codes alone the first of four kinds costs log 4; the latents, which are paid for, tell it."""
    model = trained
    nll = model.code_nll({"inputs": tf.zeros([6], tf.int32), "targets": fields()}).numpy()
    assert nll[:, 0, 0, 0].mean() < 0.5 * math.log(4)
    assert model.side_nats == pytest.approx(2 * math.log(4))
    found = model.infer({"inputs": tf.zeros([6], tf.int32), "targets": fields()})
    assert found["latents"].shape == (6, 2)
    assert len({tuple(row) for row in found["latents"].numpy()[:4].tolist()}) == 4
    assert (found["outputs"] == fields()).numpy().mean() > 0.7


@pytest.mark.parametrize(("shape", "num_codes", "block"), [((1, 2, 1), 3, 1), ((2, 4, 1), 2, 2)])
def test_what_the_latents_cost_makes_a_bound_of_it(shape, num_codes, block):
    """Summed over all fields, each under its own latents, probabilities pass 1; with the latents' cost they do not."""
    codes = np.array(list(itertools.product(range(num_codes), repeat=math.prod(shape))))
    targets = tf.constant(codes.reshape(-1, *shape), tf.int32)
    model = train(make(shape, num_codes, block=block), targets)
    nats = tf.reduce_sum(
        model.code_nll({"inputs": tf.zeros([len(codes)], tf.int32), "targets": targets}), axis=[1, 2, 3]
    )
    assert float(tf.reduce_sum(tf.exp(-nats))) > 1.5
    assert float(tf.reduce_sum(tf.exp(-nats - model.side_nats))) <= 1.0


def test_samples_draw_their_own_latents(trained):
    model = trained
    drawn = model.sample(tf.zeros([16], tf.int32))
    again = model.sample(tf.zeros([16], tf.int32))
    few = model.sample(tf.zeros([4], tf.int32))
    np.testing.assert_array_equal(drawn, again)
    np.testing.assert_array_equal(drawn[:4], few)
    assert len({tuple(field) for field in tf.reshape(drawn, [16, -1]).numpy().tolist()}) > 1


def test_bad_hparams_are_named():
    with pytest.raises(UserError, match=r"code_vqvae\.latents is 0"):
        make(latents=0)
