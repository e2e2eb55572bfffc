"""Priors over codes: exact likelihoods, raster order, and sampling that is teacher forcing step by step."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import registry, search
from t2t_vqem.errors import UserError

SLOTS = {"slot_layers": 1, "slot_dim": 8, "slot_heads": 2, "dropout": 0.0}
SMALL = {
    "latent_prior": SLOTS | {"dim": 8, "filter_size": 16, "heads": 2, "layers": 2},
    "pixelcnn": SLOTS | {"dim": 8, "kernel": 3, "layers": 2},
}
VARIANTS = [
    ("latent_prior", {}),
    ("latent_prior", {"class_conditional": True}),
    ("pixelcnn", {"layers": 3}),
    ("pixelcnn", {"kernel": 5, "class_conditional": True}),
    ("latent_prior", {"block": 2}),
    ("pixelcnn", {"block": 2}),
]


def make(name, shape=(3, 4, 2), num_codes=5, **hparams):
    keras.utils.set_random_seed(3)
    model = registry.models.get(name)(shape, num_codes, 3, **SMALL[name] | hparams)
    model.build_weights()
    for number, variable in enumerate(model.trainable_variables):  # far from the start: outputs differ
        variable.assign(variable * 1.5 + 0.2 * tf.random.stateless_normal(variable.shape, [number, 1]))
    return model


def features(model, rows=2):
    draw = np.random.default_rng(1)
    codes = draw.integers(0, model.num_codes, [rows, *model.code_shape])
    return {"inputs": tf.constant([2, 1, 0] * rows)[:rows], "targets": tf.constant(codes, tf.int32)}


@pytest.mark.parametrize(("name", "hparams"), VARIANTS)
def test_sampling_sees_the_logits_of_teacher_forcing(name, hparams):
    model = make(name, shape=(4, 2, 3), **hparams)  # of two slots, sum and last would be one
    batch = features(model)
    forced = tf.reshape(model.logits(batch), [2, -1, 5]).numpy()
    codes = tf.reshape(batch["targets"], [2, -1])
    order, seen = [], []

    def choose(logits, place):  # eager loops: each call is one code of the field
        order.append(int(place))
        seen.append(logits.numpy())
        return codes[:, int(place)]

    np.testing.assert_array_equal(model.generate(batch["inputs"], choose), batch["targets"])
    np.testing.assert_array_equal(order, model.order)
    np.testing.assert_allclose(np.stack(seen, axis=1), forced[:, order], atol=2e-5)
    assert np.abs(forced[:, 1:] - forced[:, :-1]).mean() > 0.1


def test_a_block_is_predicted_code_after_code_before_the_next():
    model = make("latent_prior", shape=(2, 4, 2), block=2)
    first = [0, 1, 2, 3, 8, 9, 10, 11]  # rows 0 and 1, columns 0 and 1, both slots
    np.testing.assert_array_equal(model.order, first + [place + 4 for place in first])
    assert (model.height, model.width, model.slots) == (1, 2, 8)


@pytest.mark.parametrize(("name", "hparams"), VARIANTS)
def test_a_code_is_predicted_from_those_before_it_and_from_all_of_these(name, hparams):
    shape = (4, 4, 1) if "block" in hparams else (3, 3, 2)
    model, count = make(name, shape, **hparams), math.prod(shape)
    batch = features(model, rows=1)
    base = tf.reshape(model.logits(batch), [count, 5]).numpy()
    codes = tf.reshape(batch["targets"], [count]).numpy()
    variants = np.tile(codes, [count, 1])
    variants[range(count), range(count)] = (codes + 1) % 5
    fields = tf.constant(variants.reshape(count, *shape), tf.int32)
    labels = tf.repeat(batch["inputs"], count)
    changed = tf.reshape(model.logits({"inputs": labels, "targets": fields}), [count, count, 5]).numpy()
    difference = np.abs(changed - base).max(axis=-1)  # [code that was changed, code that is predicted]
    difference = difference[model.order][:, model.order]
    later = np.triu(np.ones([count, count], bool), 1)
    assert difference[~later].max() < 1e-5
    assert difference[later].min() > 1e-5  # no blind spot


@pytest.mark.parametrize(
    ("name", "hparams", "shape"),
    [
        (name, hparams, shape)
        for name, hparams in VARIANTS
        for shape in ([(2, 4, 1)] if "block" in hparams else [(1, 2, 1), (2, 1, 2)])
    ],
)
def test_the_probabilities_of_all_fields_sum_to_one(name, hparams, shape):
    model = make(name, shape, num_codes=3, **hparams)
    fields = np.array(list(itertools.product(range(3), repeat=int(np.prod(shape)))), np.int32)
    batch = {"inputs": tf.zeros([len(fields)], tf.int32), "targets": fields.reshape(-1, *shape)}
    likelihood = -tf.reduce_sum(model.code_nll(batch), axis=[1, 2, 3])
    assert float(tf.reduce_logsumexp(likelihood)) == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(("name", "hparams"), VARIANTS)
def test_labels_count_where_the_prior_is_to_know_them(name, hparams):
    model = make(name, shape=(4, 2, 2), **hparams)
    batch = features(model)
    other = batch | {"inputs": (batch["inputs"] + 1) % 3}
    difference = np.abs(model.logits(batch) - model.logits(other)).max(axis=(-1, -2))
    assert difference.min() > 1e-4 if hparams.get("class_conditional") else difference.max() == 0


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_is_the_sum_over_codes(name):
    model = make(name)
    batch = features(model)
    output = model(batch)
    assert float(output.weight) == float(output.losses["nll"].weight) == 2 * 3 * 4 * 2
    log_probabilities = tf.nn.log_softmax(output.logits).numpy()
    expected = -np.take_along_axis(log_probabilities, batch["targets"].numpy()[..., None], -1)[..., 0]
    np.testing.assert_allclose(model.code_nll(batch), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.losses["nll"].sum, expected.sum(), rtol=1e-5)
    correct = (log_probabilities.argmax(-1) == batch["targets"].numpy()).sum()
    assert float(output.metrics["code_accuracy"].sum) == correct


@pytest.mark.parametrize("name", SMALL)
def test_samples_follow_the_model(name):
    """Of 1 x 1 x 2 fields, the frequencies are the probabilities."""
    model = make(name, (1, 1, 2), num_codes=3)
    fields = np.array(list(itertools.product(range(3), repeat=2)), np.int32).reshape(-1, 1, 1, 2)
    batch = {"inputs": tf.zeros([9], tf.int32), "targets": tf.constant(fields)}
    expected = np.exp(-tf.reduce_sum(model.code_nll(batch), axis=[1, 2, 3]))
    drawn = model.sample(tf.zeros([4000], tf.int32), seed=7).numpy().reshape(-1, 2)
    counts = np.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9)
    np.testing.assert_allclose(counts / 4000, expected, atol=0.04)
    assert expected.std() > 0.02


@pytest.mark.parametrize("name", SMALL)
def test_a_sample_depends_on_its_number_seed_and_label_alone(name):
    model = make(name, class_conditional=True)
    labels = tf.constant([0, 1, 2, 0])
    together = model.sample(labels).numpy()
    assert together.dtype == np.int32
    assert together.shape == (4, 3, 4, 2)
    assert together.max() < 5
    alone = model.sample(labels[2:], tf.constant([2, 3])).numpy()
    np.testing.assert_array_equal(together[2:], alone)
    assert not np.array_equal(together[0], together[3])
    assert not np.array_equal(together, model.sample(labels, seed=1))
    likeliest = model.sample(labels, temperature=0.0)
    np.testing.assert_array_equal(likeliest, model.sample(labels, temperature=2.0, top_k=1))
    np.testing.assert_array_equal(likeliest[0], likeliest[3])
    forced = model.logits({"inputs": labels, "targets": likeliest})
    np.testing.assert_array_equal(likeliest, tf.argmax(forced, axis=-1))
    np.testing.assert_array_equal(model.infer({"inputs": labels})["outputs"], together)
    model.decoding = search.Settings(temperature=0.5, seed=3)
    np.testing.assert_array_equal(
        model.infer({"inputs": labels})["outputs"], model.sample(labels, seed=3, temperature=0.5)
    )


@pytest.mark.parametrize(
    ("name", "hparam", "value"),
    [
        ("latent_prior", "heads", 3),
        ("latent_prior", "layers", 0),
        ("latent_prior", "slot_dim", 9),
        ("latent_prior", "dropout", 1.0),
        ("latent_prior", "block", 2),  # of three rows
        ("latent_prior", "block", 3),  # of four columns
        ("pixelcnn", "block", 0),
        ("pixelcnn", "kernel", 4),
        ("pixelcnn", "class_conditional", "yes"),
    ],
)
def test_a_bad_hparam_is_named(name, hparam, value):
    named = "dim" if hparam == "heads" else hparam
    with pytest.raises(UserError, match=rf"{name}\.{named} is "):
        make(name, **{hparam: value})


@pytest.mark.parametrize("name", SMALL)
def test_the_first_gradient_is_of_ordinary_size(name):
    keras.utils.set_random_seed(3)
    model = registry.models.get(name)((3, 4, 2), 5, 3, **SMALL[name])
    model.build_weights()
    with tf.GradientTape() as tape:
        nll = model(features(model)).losses["nll"].mean
    gradients = tape.gradient(nll, [variable.value for variable in model.trainable_variables])
    assert 0.1 < float(tf.linalg.global_norm([g for g in gradients if g is not None])) < 100.0


def test_a_prior_of_one_class_cannot_be_told_it():
    with pytest.raises(UserError, match="all pictures are of one class"):
        registry.models.get("pixelcnn")((1, 1, 1), 2, 1, class_conditional=True)
