"""The autoregressive Transformer: causality, scores, and search with a cache."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import registry, search
from t2t_vqem.errors import UserError

VOCAB = 11
SMALL = {"dim": 8, "filter_size": 16, "heads": 2, "encoder_layers": 2, "decoder_layers": 1, "dropout": 0.0}


def make(**overrides):
    keras.utils.set_random_seed(3)
    model = registry.models.get("transformer")(VOCAB, **SMALL | overrides)
    model.build_weights()
    for number, variable in enumerate(
        model.trainable_variables
    ):  # far from the start, so that outputs differ
        noise = tf.random.stateless_normal(variable.shape, [number, 1])
        variable.assign(variable * 1.5 + 0.1 * noise)
    table = model.tokens.table.value
    model.decoder.norm.beta.assign(8.0 * table[1] / tf.reduce_sum(table[1] ** 2))  # or no output ever ends
    return model


@pytest.fixture
def features():
    inputs = tf.constant([[5, 6, 7, 1, 0], [8, 1, 0, 0, 0]])
    return {"inputs": inputs, "targets": tf.constant([[4, 3, 9, 1], [10, 1, 0, 0]])}


def test_losses_count_tokens_and_padding_changes_nothing(features):
    model = make()
    out = model(features)
    assert float(out.weight) == float(out.losses["nll"].weight) == 6
    assert out.statistics == {}
    assert model.bottlenecks == {}
    longer = model({side: tf.pad(ids, [[0, 1], [0, 3]]) for side, ids in features.items()})
    np.testing.assert_allclose(out.losses["nll"].sum, longer.losses["nll"].sum, rtol=1e-5)


def test_a_token_is_predicted_from_those_before_it_alone(features):
    model = make()
    other = features["targets"].numpy()
    other[0, 2] = 5
    left, right = model(features).logits, model(features | {"targets": tf.constant(other)}).logits
    np.testing.assert_allclose(left[0, :3], right[0, :3], rtol=1e-5)
    assert not np.allclose(left[0, 3], right[0, 3], rtol=1e-3)


def test_the_score_is_the_log_probability_of_the_target(features):
    model = make()
    logits = tf.where(tf.range(VOCAB) == 0, -1e9, model(features).logits)  # padding is no token
    probabilities = tf.nn.log_softmax(logits).numpy()
    expected = [sum(probabilities[0, range(4), [4, 3, 9, 1]]), sum(probabilities[1, range(2), [10, 1]])]
    np.testing.assert_allclose(
        model.score(features["inputs"], features["targets"][:, None])[:, 0], expected, rtol=1e-5
    )


@pytest.mark.parametrize(
    "settings",
    [{}, {"beam_size": 3}, {"num_candidates": 3}, {"temperature": 1.0, "num_candidates": 4}],
    ids=["greedy", "beam", "lengths", "samples"],
)
def test_the_cached_search_scores_as_teacher_forcing_does(settings):
    model = make()
    inputs = tf.pad(tf.constant(np.random.default_rng(0).integers(3, VOCAB, [12, 4])), [[0, 0], [0, 1]])
    inputs = tf.cast(inputs + tf.constant([0, 0, 0, 0, 1], tf.int64), tf.int32)
    model.decoding = search.Settings(**settings)
    found = model.infer({"inputs": inputs})
    number = model.decoding.candidates
    assert found["candidates"].shape[:2] == found["scores"].shape == [12, number]
    np.testing.assert_array_equal(found["outputs"], found["candidates"][:, 0])
    compared = 0
    for n in range(number):
        targets = found["candidates"][:, n]
        lengths = np.count_nonzero(targets, axis=1)
        ended = lengths <= 2 * 5 + 10  # the others were cut, and their eos was not scored
        again = model.score(inputs, targets[:, None])[:, 0]
        np.testing.assert_allclose(found["scores"][:, n].numpy()[ended], again.numpy()[ended], rtol=1e-4)
        compared += ended.sum()
    assert compared >= 2


def test_greedy_takes_the_likeliest_token_each_time(features):
    model = make()
    found = model.infer({"inputs": features["inputs"]})["outputs"].numpy()
    for row, ids in enumerate(found):
        for place in range(min(np.count_nonzero(ids), [18, 14][row])):  # the eos of a cut output is added
            prefix = tf.constant([[*ids[:place], 2]])
            logits = model({"inputs": features["inputs"][row : row + 1], "targets": prefix}).logits[0, place]
            assert ids[place] == np.argmax(np.where(np.arange(VOCAB) == 0, -1e9, logits))


def test_a_wide_beam_finds_the_best_of_all_short_outputs():
    model = make()
    model.most_tokens = lambda mask: (tf.fill([tf.shape(mask)[0]], 3), 3)
    model.decoding = search.Settings(beam_size=200, num_candidates=5)
    inputs = tf.constant([[5, 6, 1]])
    found = model.infer({"inputs": inputs})
    everything = [[*ids, 1] for n in range(3) for ids in itertools.product([2, *range(3, VOCAB)], repeat=n)]
    targets = tf.constant([ids + [0] * (3 - len(ids)) for ids in everything])
    scores = model.score(inputs, targets[None])[0]
    ranks = scores / tf.constant([float(len(ids)) for ids in everything])
    best = tf.gather(targets, tf.argsort(ranks, direction="DESCENDING")[:5])
    np.testing.assert_array_equal(found["candidates"][0, :, :3], best)


@pytest.mark.parametrize(
    ("setting", "value", "without"),
    [("blank_penalty", 0.5, 0), ("lm_weight", 0.5, 0), ("ctc_candidates", 2, 1)],
)
def test_settings_of_ctc_are_refused(features, setting, value, without):
    model = make()
    model.decoding = search.Settings(**{setting: value})
    with pytest.raises(
        UserError, match=rf"transformer writes no blanks .*decode.{setting} must be {without}, not {value}"
    ):
        model.infer({"inputs": features["inputs"]})


def test_a_line_is_translated_alike_in_any_company(features):
    model = make()
    for settings in ({"beam_size": 4}, {"beam_size": 4, "length_penalty": 0.6}, {"num_candidates": 3}):
        model.decoding = search.Settings(**settings)
        together = model.infer({"inputs": features["inputs"]})["candidates"].numpy()
        alone = model.infer({"inputs": features["inputs"][1:, :3]})["candidates"].numpy()
        np.testing.assert_array_equal(together[1, :, : alone.shape[2]], alone[0])
        assert not together[1, :, alone.shape[2] :].any()
    model.decoding = search.Settings(temperature=1.0, num_candidates=2, seed=4)
    together = model.infer({"inputs": features["inputs"]})["candidates"].numpy()
    alone = model.infer({"inputs": features["inputs"][1:, :3]})["candidates"].numpy()
    width = alone.shape[2]
    np.testing.assert_array_equal(together[1, :, :width], alone[0])
    model.decoding = search.Settings(temperature=1.0, num_candidates=2, seed=5)
    assert not np.array_equal(model.infer({"inputs": features["inputs"]})["candidates"], together)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("decoder_layers", 0),
        ("dim", 9),
        ("dropout", 1.0),
        ("label_smoothing", -0.1),
        ("max_length_ratio", float("inf")),
    ],
)
def test_a_bad_hparam_is_named(name, value):
    with pytest.raises(UserError, match=f"transformer.{name} is {value}"):
        registry.models.get("transformer")(VOCAB, **SMALL | {name: value})


def test_a_compiled_search_of_static_shape_finds_the_same(features):
    model = make()
    inputs = features["inputs"]
    loose = tf.function(
        lambda ids: model.infer({"inputs": ids}), input_signature=[tf.TensorSpec([None, None], tf.int32)]
    )
    for settings in ({}, {"beam_size": 2}):
        model.decoding = search.Settings(**settings)
        compiled = tf.function(lambda ids: model.infer({"inputs": ids}), jit_compile=True)(inputs)
        plain = model.infer({"inputs": inputs}) if settings else loose(inputs)
        width = plain["outputs"].shape[1]
        np.testing.assert_array_equal(compiled["outputs"][:, :width], plain["outputs"])
        assert not np.any(compiled["outputs"][:, width:])
        np.testing.assert_allclose(compiled["scores"], plain["scores"], rtol=1e-4)
