"""A small image model and priors over its codes, all of them far from their start."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.context import Training
from t2t_vqem.models.latent_prior import LatentPrior
from t2t_vqem.models.pixelcnn import PixelCNN
from t2t_vqem.models.vqvae import VQVAE
from t2t_vqem.training import strategy

SLOTS = {"slot_layers": 1, "slot_dim": 8, "slot_heads": 2, "dropout": 0.0, "dim": 8, "layers": 1}


@pytest.fixture(scope="session")
def make_prior():
    """A function (name, code_shape, num_codes, sharpness) -> a prior whose logits grow with the last."""

    def make(name, code_shape, num_codes=16, sharpness=1.0):
        keras.utils.set_random_seed(3)
        with strategy.dtype_policy("float64"):
            if name == "pixelcnn":
                prior = PixelCNN(code_shape, num_codes, 1, **SLOTS)
            else:
                block = 2 if name.endswith("in blocks") else 1
                prior = LatentPrior(code_shape, num_codes, 1, **SLOTS, filter_size=16, heads=2, block=block)
            prior.build_weights()
        for number, variable in enumerate(prior.trainable_variables):
            variable.assign(variable * 1.5 + 0.2 * tf.random.stateless_normal(variable.shape, [number, 1]))
        for weight in (prior.head.kernel, prior.head.bias):
            weight.assign(weight * sharpness)
        return prior

    return make


@pytest.fixture(scope="session")
def image_model():
    """Makes codes of 2 x 3 positions with 2 slots of 16 from pictures of 8 x 12."""
    keras.utils.set_random_seed(1)
    sizes = {"codebooks": 2, "code_dim": 4, "residual_units": 1, "dim": 8, "top_dim": 8}
    model = VQVAE((8, 12, 3), 1, num_codes=16, likelihood="gaussian", bottleneck="hard_em", **sizes)
    model.build_weights()
    noise = np.random.default_rng(0).integers(0, 256, [32, 8, 12, 3])
    batch = {"inputs": tf.zeros([32], tf.int32), "targets": tf.constant(noise, tf.uint8)}
    for step in range(4):
        output = model(batch, training=Training(0, tf.constant(step), tf.range(32), 32))
        model.bottleneck.m_step(output.statistics["codes"])
    return model
