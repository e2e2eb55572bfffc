"""What translation models share."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.context import Training

SIZES = {"dim": 32, "filter_size": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
LATENTS = {"num_codes": 16, "num_compress_steps": 1, "predictor_layers": 1, "reveal": 0.0}
MODELS = {"transformer": {}, "nat": {}, "nat_ctc": {}, "latent_nat": LATENTS}
READERS = [*((name, "encoder") for name in MODELS), ("transformer", "decoder"), ("nat", "decoder")]


@pytest.mark.parametrize(("name", "stack"), [*READERS, ("latent_nat", "compressor")])
def test_embeddings_are_dropped_out_once(inputs_of, name, stack):
    keras.utils.set_random_seed(3)
    model = registry.models.get(name)(30, dropout=0.5, **SIZES, **MODELS[name])
    model.build_weights()
    ids = tf.constant(np.random.default_rng(0).integers(3, 30, [8, 12]), tf.int32)
    read = inputs_of(model, stack)
    features = {"inputs": ids, "targets": ids}
    model(features)
    model(features, training=Training(0, tf.constant(5), tf.range(8), 8))
    whole, dropped = read
    kept = dropped != 0.0
    assert abs(np.mean(kept) - 0.5) < 0.05
    np.testing.assert_allclose(dropped[kept], 2.0 * whole[kept], rtol=1e-5)


def test_revealed_tokens_are_dropped_out_once(inputs_of):
    keras.utils.set_random_seed(3)
    model = registry.models.get("latent_nat")(30, dropout=0.5, **SIZES, **LATENTS | {"reveal": 0.99})
    model.build_weights()
    ids = tf.constant(np.random.default_rng(0).integers(3, 30, [8, 12]), tf.int32)
    read = inputs_of(model, "decoder")
    model({"inputs": ids, "targets": ids}, training=Training(0, tf.constant(0), tf.range(8), 8))
    [dropped] = read
    kept = dropped != 0.0
    shown = np.isclose(dropped, 2.0 * model.tokens.placed(model.tokens(ids)), rtol=1e-4)
    assert np.mean(shown[kept]) > 0.95
