"""The one-pass translators: lengths, alignments, candidates, and what padding and neighbours may not change."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import registry, search
from t2t_vqem.context import Training
from t2t_vqem.errors import UserError
from t2t_vqem.models.translation import spread
from t2t_vqem.prefix_search import prefix_search

VOCAB = 13
SMALL = {"dim": 8, "filter_size": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0}
MODELS = ("nat", "nat_ctc")


def make(name, **overrides):
    keras.utils.set_random_seed(3)
    model = registry.models.get(name)(VOCAB, **SMALL | overrides)
    model.build_weights()
    for number, variable in enumerate(
        model.trainable_variables
    ):  # far from the start, so that outputs differ
        variable.assign(variable * 1.5 + 0.3 * tf.random.stateless_normal(variable.shape, [number, 1]))
    return model


@functools.cache
def _made(name):
    return make(name)


def shared(name, **decoding):
    """A model that no test may change but for its search settings."""
    model = _made(name)
    model.decoding = search.Settings(**decoding)
    return model


def traced(model, features):
    """Infers as the translator does: from the sources alone, in a graph for every shape."""
    signature = [{"inputs": tf.TensorSpec([None, None], tf.int32)}]
    infer = tf.function(model.infer, input_signature=signature, autograph=False)
    return infer({"inputs": features["inputs"]})


@pytest.fixture
def features():
    """Sources of 5, 2 and 1 tokens with their eos, and a row of padding."""
    return {
        "inputs": tf.constant([[5, 6, 7, 8, 1], [8, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0] * 5]),
        "targets": tf.constant([[4, 4, 9, 9, 1, 0], [10, 5, 6, 1, 0, 0], [3, 1, 0, 0, 0, 0], [0] * 6]),
    }


def terms(output):
    return {name: tuple(map(float, term)) for name, term in (output.losses | output.metrics).items()}


@pytest.mark.parametrize("name", MODELS)
def test_padding_counts_nowhere(name, features):
    model = shared(name)
    out = model(features)
    assert float(out.weight) == float(out.losses["nll"].weight) == 5 + 4 + 2
    if name == "nat":
        assert float(out.losses["length_nll"].weight) == float(out.metrics["length_accuracy"].weight) == 3
    else:
        assert tuple(map(float, out.metrics["ctc_too_short"])) == (0, 3)
    shorter = {side: ids[:3] for side, ids in features.items()}
    longer = {side: tf.pad(ids, [[0, 2], [0, 7]]) for side, ids in features.items()}
    for other in (model(shorter), model(longer)):
        for term, values in terms(out).items():
            np.testing.assert_allclose(values, terms(other)[term], rtol=1e-4, err_msg=term)


def test_the_objective_of_nat_is_the_log_probability_of_the_target(features):
    model = shared("nat")
    out = model(features)
    memory, memory_mask = model.encode(features["inputs"])
    lengths = tf.nn.log_softmax(model._length_logits(memory, memory_mask)).numpy()
    tokens = tf.nn.log_softmax(out.logits).numpy()
    targets = features["targets"].numpy()
    expected = 0.0
    for row, (source, target) in enumerate([(5, 5), (2, 4), (1, 2)]):
        expected += lengths[row, target - source + model.max_length_difference]
        expected += sum(tokens[row, place, targets[row, place]] for place in range(target))
    objective = sum(float(term.sum) for term in out.losses.values())
    np.testing.assert_allclose(objective, -expected, rtol=1e-5)


def test_every_token_sees_the_whole_source_and_no_target(features):
    model = shared("nat")
    changed = features["targets"].numpy()
    changed[0, :3] = 11
    np.testing.assert_array_equal(
        model(features).logits, model(features | {"targets": tf.constant(changed)}).logits
    )
    inputs = features["inputs"].numpy()
    inputs[0, 4] = 2
    moved = np.abs(model(features | {"inputs": tf.constant(inputs)}).logits - model(features).logits)
    assert np.all(moved[0, :5].max(axis=-1) > 1e-4)
    assert not np.any(moved[1])


def test_the_source_is_copied_from_end_to_end():
    inputs = tf.constant([[5, 6, 7, 1, 0], [8, 9, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    counts = tf.constant([4, 3, 1, 0])
    copied = spread(inputs, counts, tf.constant([4, 6, 2, 0]), 6).numpy()
    np.testing.assert_array_equal(copied[0, :4], [5, 6, 7, 1])
    np.testing.assert_array_equal(copied[1], [8, 8, 9, 9, 1, 1])
    np.testing.assert_array_equal(copied[2, :2], [1, 1])
    np.testing.assert_array_equal(copied[3], [0] * 6)
    assert spread(inputs, counts, tf.constant([1, 2, 1, 0]), 2).numpy()[1].tolist() == [8, 1]


def test_the_candidates_of_nat_are_its_likeliest_lengths(features):
    model = shared("nat", num_candidates=3, length_penalty=0.0)
    found = traced(model, features)
    assert found["candidates"].shape[:2] == found["scores"].shape == [4, 3]
    assert int(found["calls"]) == 1
    np.testing.assert_array_equal(found["outputs"], found["candidates"][:, 0])
    memory, memory_mask = model.encode(features["inputs"])
    length_scores, lengths = (x.numpy() for x in model._likeliest_lengths(memory, memory_mask, 3))
    for row, source in enumerate([5, 2, 1]):
        assert np.all((lengths[row] >= 1) & (lengths[row] <= 2 * source + 10))
        expected = {}
        for length, score in zip(lengths[row], length_scores[row], strict=True):
            targets = tf.ones([1, length], tf.int32)  # the logits depend on the length alone
            logits = (
                model({"inputs": features["inputs"][row : row + 1], "targets": targets}).logits[0].numpy()
            )
            logits[:, 0] = -1e9
            log_probabilities = tf.nn.log_softmax(logits).numpy()
            ids = [*np.argmax(logits, axis=-1)[:-1].tolist(), 1]
            ids = ids[: ids.index(1) + 1]
            expected[tuple(ids)] = score + sum(log_probabilities[range(len(ids)), ids])
        for ids, score in zip(found["candidates"][row].numpy(), found["scores"][row].numpy(), strict=True):
            np.testing.assert_allclose(score, expected[tuple(np.trim_zeros(ids).tolist())], rtol=1e-4)
        assert list(found["scores"][row]) == sorted(found["scores"][row], reverse=True)


def test_lengths_that_are_impossible_come_last():
    model = make("nat", max_length_difference=20, max_length_ratio=0.5)
    model.decoding = search.Settings(num_candidates=41)
    found = model.infer({"inputs": tf.constant([[5, 1]])})
    scores = found["scores"].numpy()[0]
    assert np.all(scores[:11] > -1e6)  # 0.5 * 2 + 10
    assert np.all(scores[11:] < -1e8)
    assert np.all(np.count_nonzero(found["candidates"][0], axis=-1) >= 1)


@pytest.mark.parametrize("penalty", [0.0, 3.0])
def test_nat_ctc_writes_its_best_path(features, penalty):
    model = make("nat_ctc", upsample=3)
    model.decoding = search.Settings(blank_penalty=penalty)
    found = traced(model, features)
    logits = tf.cast(model(features).logits, tf.float32)
    for row, frames in enumerate([15, 6, 3]):
        path = np.argmax(logits[row, :frames] - penalty * np.eye(1, VOCAB), axis=-1).tolist()
        ids = [label for label, _ in itertools.groupby(path) if label]
        ids = ids[: ids.index(1)] if 1 in ids else ids
        assert np.trim_zeros(found["outputs"][row].numpy()).tolist() == [*ids, 1]
        score = np.sum(tf.nn.log_softmax(logits[row, :frames]).numpy()[range(frames), path])
        np.testing.assert_allclose(found["scores"][row], [score], rtol=1e-4)
    assert found["candidates"].shape[:2] == [4, 1]
    assert int(found["calls"]) == 1


def test_nat_ctc_writes_what_ngrams_find_likely(features, language_model):
    model = make("nat_ctc", upsample=3)
    model.decoding = search.Settings(lm_weight=2.0, blank_penalty=0.5, ctc_beam_size=3)
    model.language_model = language_model
    found = traced(model, features)
    logits, mask = model._decode(features["inputs"])
    how = {"weight": 2.0, "blank_penalty": 0.5, "beam_size": 3}
    labels, scores, _ = prefix_search(logits, mask, language_model, **how)
    for row, ids in enumerate(labels[:, 0].numpy().tolist()):
        ids = [label for label in ids if label > 1]  # each ends with its eos, if there is one
        assert np.trim_zeros(found["outputs"][row].numpy()).tolist() == [*ids, 1]
    np.testing.assert_allclose(found["scores"], scores, rtol=1e-4)
    model.decoding = search.Settings()
    assert np.any(traced(model, features)["outputs"] != found["outputs"])


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_nat_ctc_ranks_several_outputs_by_all_their_paths(features, language_model, weight):
    model = make("nat_ctc", upsample=3)
    model.decoding = search.Settings(
        lm_weight=weight, blank_penalty=0.5, ctc_beam_size=4, ctc_candidates=3, length_penalty=0.0
    )
    model.language_model = language_model
    found = traced(model, features)
    logits, mask = model._decode(features["inputs"])
    how = {"weight": weight, "blank_penalty": 0.5, "beam_size": 4, "candidates": 3}
    labels, _, said = (x.numpy() for x in prefix_search(logits, mask, language_model, **how))
    for row, frames in enumerate([15, 6, 3]):
        ranked = {}
        for label, added in zip(labels[row], said[row], strict=True):
            ids = np.trim_zeros(label, "b")
            here = tf.transpose(logits[row : row + 1, :frames], [1, 0, 2])
            nats = tf.nn.ctc_loss(ids[None], here, [len(ids)], [frames], blank_index=0)[0]
            ranked[tuple(ids[ids > 1].tolist())] = added - float(nats)
        candidates = [tuple(ids[ids > 1].tolist()) for ids in found["candidates"][row].numpy()]
        assert candidates == sorted(ranked, key=ranked.get, reverse=True)
        np.testing.assert_allclose(found["scores"][row], [ranked[c] for c in candidates], rtol=1e-4)
        np.testing.assert_array_equal(found["outputs"][row], found["candidates"][row, 0])


def test_targets_beyond_the_places_have_no_weight_and_are_counted(features):
    model = shared("nat_ctc")
    repeated = tf.constant([[4, 4, 9, 9, 1, 0], [10, 10, 6, 1, 0, 0], [3, 4, 1, 0, 0, 0], [0] * 6])
    out = model(features | {"targets": repeated})  # needs 7 of 10, 5 of 4, 3 of 2 places
    alone = model({"inputs": features["inputs"][:1], "targets": repeated[:1]})
    np.testing.assert_allclose(out.losses["nll"], alone.losses["nll"], rtol=1e-5)
    assert float(out.weight) == 5
    assert tuple(map(float, out.metrics["ctc_too_short"])) == (2, 3)


@pytest.mark.parametrize("name", MODELS)
def test_outputs_end_in_eos_and_hold_no_padding(name):
    model = make(name)
    inputs = np.random.default_rng(0).integers(3, VOCAB, [20, 7])
    inputs[:, -1] = 1
    for column in (0, 5):  # blanks or padding, then another token, likelier than all else
        table = model.tokens.table.value
        model.decoder.norm.beta.assign(table[column] * 0.5)
        outputs = model.infer({"inputs": tf.constant(inputs, tf.int32)})["outputs"].numpy()
        for row in outputs:
            ids = np.trim_zeros(row, "b").tolist()
            assert ids.index(1) == len(ids) - 1
            assert 0 not in ids


@pytest.mark.parametrize("name", MODELS)
def test_a_line_is_translated_alike_in_any_company(name, features):
    model = shared(name)
    together = model.infer(features)
    for row, length in enumerate([5, 2, 1]):
        alone = model.infer({"inputs": features["inputs"][row : row + 1, :length]})
        np.testing.assert_array_equal(
            np.trim_zeros(alone["outputs"][0].numpy()), np.trim_zeros(together["outputs"][row].numpy())
        )
        np.testing.assert_allclose(alone["scores"][0], together["scores"][row], rtol=1e-4)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_a_gradient_step_lowers_the_objective(name, policy, features):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = make(name)
    finally:
        keras.config.set_dtype_policy(before)
    training = Training(0, tf.constant(0), tf.range(4), 4)

    def objective():
        return tf.add_n([term.sum for term in model(features, training=training).losses.values()])

    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        first = objective()
    gradients = [tf.convert_to_tensor(g) for g in tape.gradient(first, variables)]  # of every variable
    scale = 0.01 / tf.linalg.global_norm(gradients)
    for variable, gradient in zip(variables, gradients, strict=True):
        variable.assign_sub(scale * gradient)
    assert first.dtype == tf.float32
    assert float(objective()) < float(first)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("nat", {"temperature": 0.5}, "nat draws no samples .* decode.temperature must be 0, not 0.5"),
        ("nat", {"num_candidates": 102}, "nat has 101 lengths to choose from, not 102"),
        (
            "nat",
            {"beam_size": 4},
            "decode.beam_size must be 1, not 4; decode.num_candidates asks for several lengths",
        ),
        ("nat", {"seed": 5}, "decode.seed is of samples"),
        ("nat_ctc", {"length_penalty": 0.6}, "decode.length_penalty ranks candidates, of which there is one"),
        ("nat_ctc", {"temperature": 1.0}, "nat_ctc draws no samples"),
        ("nat_ctc", {"beam_size": 4}, "decode.beam_size"),
        ("nat_ctc", {"num_candidates": 2}, "decode.num_candidates"),
        ("nat", {"blank_penalty": 1.0}, "nat writes no blanks .* decode.blank_penalty must be 0, not 1.0"),
        ("nat", {"lm_weight": 0.3}, "nat writes no blanks .* decode.lm_weight must be 0, not 0.3"),
        ("nat_ctc", {"lm_weight": 0.3}, "bin/ngrams --model_dir=RUN counts them"),
    ],
)
def test_settings_that_cannot_be_honoured_are_named(name, settings, message, features):
    model = shared(name, **settings)
    with pytest.raises(UserError, match=message):
        traced(model, features)


@pytest.mark.parametrize(
    ("name", "hparam", "value"),
    [
        ("nat", "decoder_layers", 0),
        ("nat", "max_length_difference", 0),
        ("nat", "label_smoothing", 1.0),
        ("nat_ctc", "upsample", 0),
        ("nat_ctc", "upsample", 1.5),
        ("nat_ctc", "upsample", 128),
        ("nat_ctc", "dim", 9),
    ],
)
def test_a_bad_hparam_is_named(name, hparam, value):
    with pytest.raises(UserError, match=f"{name}.{hparam} is {value}"):
        registry.models.get(name)(VOCAB, **SMALL | {hparam: value})


@pytest.mark.parametrize(
    ("name", "settings"), [("nat", {}), ("nat_ctc", {}), ("nat_ctc", {"lm_weight": 0.5, "ctc_candidates": 3})]
)
def test_a_compiled_inference_of_static_shape_finds_the_same(name, settings, language_model):
    model = make(name)
    model.decoding, model.language_model = search.Settings(**settings), language_model
    inputs = tf.constant([[5, 6, 7, 1, 0], [8, 1, 0, 0, 0]])
    signature = [tf.TensorSpec([None, None], tf.int32)]
    plain = tf.function(lambda ids: model.infer({"inputs": ids}), input_signature=signature)(inputs)
    compiled = tf.function(lambda ids: model.infer({"inputs": ids}), jit_compile=True)(inputs)
    width = plain["outputs"].shape[1]
    np.testing.assert_array_equal(compiled["outputs"][:, :width], plain["outputs"])
    assert not np.any(compiled["outputs"][:, width:])
    np.testing.assert_allclose(compiled["scores"], plain["scores"], rtol=1e-4)
