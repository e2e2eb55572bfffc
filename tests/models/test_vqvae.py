import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.context import Training
from t2t_vqem.errors import UserError
from t2t_vqem.models.vqvae import VQVAE
from t2t_vqem.training.optimizer import Adam, schedule
from t2t_vqem.training.step import TrainStep

SMALL = {
    "num_codes": 8,
    "codebooks": 2,
    "code_dim": 4,
    "num_strides": 2,
    "residual_units": 1,
    "dim": 8,
    "top_dim": 8,
}


def make(image_shape=(8, 12, 3), num_classes=4, **hparams):
    keras.utils.set_random_seed(5)
    model = VQVAE(image_shape, num_classes, **(SMALL | hparams))
    model.build_weights()
    return model


def features(rows=4, image_shape=(8, 12, 3)):
    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 256, [rows, *image_shape])
    return {"inputs": tf.range(rows) % 4, "targets": tf.constant(pictures, tf.uint8)}


def born(model, batch):
    """Gives the codebooks their codes, which come from data."""
    for step in range(4):
        output = model(batch, training=Training(0, tf.constant(step), tf.range(4), 4))
        model.bottleneck.m_step(output.statistics["codes"])


@pytest.mark.parametrize("likelihood", ["softmax", "logistic_mixture", "gaussian"])
@pytest.mark.parametrize(
    ("bottleneck", "codebooks"), [("soft_em", 3), ("hard_em", 1), ("semhash", 1), ("gradient_vq", 2)]
)
def test_shapes_and_what_inference_says(bottleneck, codebooks, likelihood):
    model = make(bottleneck=bottleneck, codebooks=codebooks, likelihood=likelihood)
    batch = features()
    born(model, batch)
    found = model.infer(batch)
    assert model.code_shape == (2, 3, model.bottleneck.slots)
    assert found["codes"].shape == (4, *model.code_shape)
    assert found["outputs"].shape == batch["targets"].shape
    assert found["outputs"].dtype == tf.uint8
    np.testing.assert_array_equal(model.encode(batch["targets"]), found["codes"])
    # Decoding the codes is what reconstruction does, but for the order in which numbers are added.
    rebuilt = model.decode(found["codes"]).numpy().astype(int)
    assert np.abs(rebuilt - found["outputs"].numpy().astype(int)).max() <= 1
    nll = model(batch, training=None).losses["nll"]
    np.testing.assert_allclose(tf.reduce_sum(found["nats"]), nll.sum, rtol=1e-5)
    assert float(nll.weight) == 4 * 8 * 12 * 3


def test_sizes_that_do_not_divide_are_rounded_up_and_cut():
    shape = (9, 21, 1)
    model = make(image_shape=shape)
    batch = features(2, shape)
    assert model.code_shape == (3, 6, 2)
    assert model.infer(batch)["outputs"].shape == (2, *shape)


def test_a_class_conditional_decoder_is_told_the_class_and_the_encoder_is_not():
    model, batch = make(class_conditional=True), features()
    model.classes.assign(tf.random.stateless_normal(model.classes.shape, [1, 2]))
    codes = model.encode(batch["targets"])
    one, other = (model.decode(codes, tf.fill([4], label)) for label in (0, 1))
    assert (one != other).numpy().any()
    assert (model(batch).logits - model(batch | {"inputs": (batch["inputs"] + 1) % 4}).logits).numpy().any()
    np.testing.assert_array_equal(
        model.infer(batch)["codes"], model.infer(batch | {"inputs": batch["inputs"] * 0})["codes"]
    )


def test_interpolation_ends_at_the_reconstructions():
    model, batch = make(), features()
    born(model, batch)
    first, second = batch["targets"][:2], batch["targets"][2:]
    between = model.interpolate(first, second, (0.0, 0.5, 1.0))
    assert between.shape == (2, 3, 8, 12, 3)
    np.testing.assert_array_equal(between[:, 0], model.decode(model.encode(first)))
    np.testing.assert_array_equal(between[:, 2], model.decode(model.encode(second)))


def test_training_lowers_the_nats_and_moves_the_codebooks():
    model = make(likelihood="logistic_mixture")
    variables = [variable.value for variable in model.trainable_variables]
    step = TrainStep(
        model, Adam(schedule(3e-3, 5, "constant", 100), variables), tf.distribute.get_strategy(), seed=1
    )
    flat = tf.constant(np.arange(4)[:, None, None, None] * 60 * np.ones([1, 8, 12, 3]), tf.uint8)
    batch = {"inputs": tf.zeros([30, 4], tf.int32), "targets": tf.repeat(flat[None], 30, axis=0)}
    first, last = step(batch)["nll"], step(batch)["nll"]
    assert last[0] / last[1] < first[0] / first[1] - 0.3
    assert float(model.bottleneck.usage()["live_codes"]) > 0


def test_micro_batches_add_up_to_the_batch():
    after = []
    for micro_batches in (1, 2):
        model = make()
        variables = [variable.value for variable in model.trainable_variables]
        optimizer = Adam(schedule(1e-2, 2, "constant", 10), variables)
        step = TrainStep(model, optimizer, tf.distribute.get_strategy(), seed=1, micro_batches=micro_batches)
        step({name: value[None] for name, value in features().items()})
        after.append([moment.numpy() for moment in optimizer.first])
    for moment, other in zip(*after, strict=True):
        np.testing.assert_allclose(moment, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("bottleneck", ["soft_em", "residual"])
def test_before_a_code_is_born_what_is_judged_is_still_what_the_codes_say(bottleneck):
    model, batch = make(bottleneck=bottleneck, likelihood="gaussian"), features()
    found = model.infer(batch)
    np.testing.assert_array_equal(found["outputs"], model.decode(found["codes"]))


def test_the_gradient_reaches_the_encoder_through_the_codes():
    model, batch = make(), features()
    training = Training(0, tf.constant(500), tf.range(4), 4)
    with tf.GradientTape() as tape:
        nll = model(batch, training=training).losses["nll"].sum
    kernel = model.encoder.halve[0].kernel.value
    assert float(tf.norm(tape.gradient(nll, kernel))) > 0


@pytest.mark.parametrize(
    ("hparams", "named"),
    [
        ({"codebooks": 0}, "vqvae.codebooks is 0"),
        ({"likelihood": "softmix"}, "vqvae.likelihood is 'softmix'"),
        ({"num_strides": 0}, "vqvae.num_strides is 0"),
        ({"num_strides": 4}, "fewer: the pictures have 8 x 12 pixels"),
        ({"likelihood": ["softmax"]}, "vqvae.likelihood is"),
        ({"num_codes": 2**25}, "num_codes = 33554432"),
        ({"bottleneck": "product"}, "vqvae.bottleneck is 'product'"),
        ({"class_conditional": 1}, "vqvae.class_conditional is 1"),
        ({"num_classes": 1, "class_conditional": True}, "vqvae.class_conditional is True"),
    ],
)
def test_bad_hparams_are_named(hparams, named):
    with pytest.raises(UserError, match=named):
        make(**hparams)
