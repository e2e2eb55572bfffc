"""Every registered prior over codes through the same checks; a new one joins by one row of PRIORS."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.training import checkpoints
from t2t_vqem.training.optimizer import Adam, schedule
from t2t_vqem.training.step import TrainStep

SHAPE, CODES, CLASSES = (2, 3, 2), 5, 3
HEAD_ALONE = {"slot_layers": 1, "slot_dim": 8, "slot_heads": 2, "dropout": 0.1}
HEAD = HEAD_ALONE | {"class_conditional": True}
PRIORS = {  # name -> hparams
    "latent_prior": HEAD | {"dim": 8, "filter_size": 16, "heads": 2, "layers": 1},
    "code_vqvae": HEAD_ALONE | {"dim": 8, "layers": 1, "latents": 2, "latent_codes": 4, "num_strides": 1},
    "pixelcnn": HEAD | {"dim": 8, "layers": 1},
}


def make(name, seed=5):
    keras.utils.set_random_seed(seed)
    model = registry.models.get(name)(SHAPE, CODES, CLASSES, **PRIORS[name])
    model.build_weights()
    return model


def features(rows=4):
    draw = np.random.default_rng(0)
    codes = draw.integers(0, CODES, [rows, *SHAPE])
    labels = draw.integers(0, CLASSES, [rows])
    return {"inputs": tf.constant(labels, tf.int32), "targets": tf.constant(codes, tf.int32)}


def trained(name, *, steps=3, **arguments):
    """The terms of each step, and the first moments of the gradients after the last."""
    model = make(name)
    variables = [variable.value for variable in model.trainable_variables]
    optimizer = Adam(schedule(1e-2, 2, "constant", 10), variables)
    step = TrainStep(model, optimizer, tf.distribute.get_strategy(), seed=1, clip_norm=1.0, **arguments)
    batch = {side: value[None] for side, value in features().items()}
    return [step(batch) for _ in range(steps)], [moment.numpy() for moment in optimizer.first]


@pytest.fixture(scope="module", params=PRIORS)
def whole(request):
    """A prior's name, and what training with whole batches gives."""
    return request.param, *trained(request.param)


def test_every_prior_has_a_row():
    codes = {name for name in registry.models._builtins if registry.models.get(name).content == "codes"}
    assert codes == PRIORS.keys()


@pytest.mark.parametrize(
    ("arguments", "rtol"),
    [({}, 0), ({"micro_batches": 2}, 1e-3), ({"compile": True}, 1e-3)],
    ids=["again", "micro-batches", "XLA"],
)
def test_training_is_deterministic_however_a_batch_is_computed(whole, arguments, rtol):
    name, terms, moments = whole
    other_terms, other_moments = trained(name, **arguments)
    for moment, other in zip(moments, other_moments, strict=True):
        np.testing.assert_allclose(moment, other, rtol=rtol, atol=rtol * 1e-2)
    for key, (total, weight) in terms[-1].items():
        if key not in ("gradient_norm", "tokens"):
            np.testing.assert_allclose((total, weight), other_terms[-1][key], rtol=rtol, err_msg=key)


def test_training_reaches_every_weight_and_lowers_the_loss(whole):
    _, terms, moments = whole
    assert terms[-1]["loss"][0] < terms[0]["loss"][0]
    assert all(np.abs(moment).max() > 0 for moment in moments)


@pytest.mark.parametrize("name", PRIORS)
def test_a_row_of_a_batch_is_judged_alike_in_any_company(name):
    model, batch = make(name), features()
    alone = model.code_nll({side: value[2:3] for side, value in batch.items()})
    assert alone.dtype == tf.float32
    np.testing.assert_allclose(model.code_nll(batch)[2:3], alone, rtol=1e-5)


@pytest.mark.parametrize("name", PRIORS)
def test_weights_survive_a_checkpoint(name, tmp_path):
    model, other = make(name), make(name, seed=6)
    checkpoints.keep_best(str(tmp_path), model, checkpoints.Best(3, "nll", 1.0))
    assert checkpoints.restore_weights(checkpoints.find(str(tmp_path)), other) == 3
    batch = features()
    np.testing.assert_array_equal(model.logits(batch), other.logits(batch))


@pytest.mark.parametrize("name", PRIORS)
def test_bfloat16_leaves_the_likelihood_in_float32(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = make(name)
    finally:
        keras.config.set_dtype_policy("float32")
    batch = features()
    assert model.logits(batch).dtype == tf.float32
    nll = tf.reduce_sum(model.code_nll(batch), axis=[1, 2, 3]).numpy()
    np.testing.assert_allclose(nll, tf.reduce_sum(make(name).code_nll(batch), axis=[1, 2, 3]), rtol=0.05)
    assert model.sample(batch["inputs"]).shape == (4, *SHAPE)
