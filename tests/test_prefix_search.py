"""CTC's prefix search against the enumeration of all paths."""

import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import ngrams
from t2t_vqem.prefix_search import LanguageModel, prefix_search
from t2t_vqem.search import IMPOSSIBLE

CLASSES, PLACES, END = 5, 4, 1
TEXT = [[2, 3, 1], [2, 3, 4, 1], [4, 2, 1], [3, 3, 1], [2, 3, 1]]
COUNTED = {order: ngrams.count(TEXT, CLASSES, "", order=order) for order in (2, 3, 4)}
LOGITS = np.random.default_rng(1).normal(size=[6, PLACES, CLASSES]).astype(np.float32) * 2
REAL = np.array([4, 4, 3, 4, 1, 0])
MASK = np.arange(PLACES) < REAL[:, None]
EVERYTHING = {"beam_size": 400, "tried": CLASSES}


def merged(path):
    return tuple(label for label, _ in itertools.groupby(path) if label)


def searched(logits=LOGITS, mask=MASK, order=4, **how):
    how = {"weight": 0.7, "blank_penalty": 0.0, **EVERYTHING} | how
    return prefix_search(
        tf.convert_to_tensor(logits), tf.constant(mask), LanguageModel(COUNTED[order]), **how
    )


def every_output(row, weight, blank_penalty, order=4, logits=LOGITS):
    """Returns labels -> (score, what n-grams add) of all that end with their eos or have none."""
    logits = tf.nn.log_softmax(logits[row, : REAL[row]]).numpy()
    paths = collections.defaultdict(list)
    for path in itertools.product(range(CLASSES), repeat=REAL[row]):
        labels = merged(path)
        if END not in labels[:-1]:
            paths[labels].append(logits[range(len(path)), path].sum() - blank_penalty * path.count(0))
    said = {labels: -weight * COUNTED[order].nats([labels])[0] for labels in paths}
    return {
        labels: (np.logaddexp.reduce(found) + said[labels], said[labels]) for labels, found in paths.items()
    }


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize(("weight", "blank_penalty"), [(0.0, 0.0), (0.7, 0.0), (0.7, 1.5), (2.0, 0.5)])
def test_a_search_that_keeps_everything_finds_the_best_of_all_outputs(order, weight, blank_penalty):
    labels, scores, said = searched(weight=weight, blank_penalty=blank_penalty, order=order, candidates=3)
    assert labels.shape == (6, 3, PLACES)
    for row in range(6):
        outputs = every_output(row, weight, blank_penalty, order)
        best = sorted(outputs, key=outputs.get, reverse=True)[:3]
        found = [tuple(np.trim_zeros(one, "b").tolist()) for one in labels[row].numpy()]
        assert found[: len(best)] == best
        expected = np.transpose([outputs[one] for one in best])
        np.testing.assert_allclose(
            [scores[row, : len(best)], said[row, : len(best)]], expected, rtol=1e-4, atol=1e-4
        )
    assert np.all(scores[5, 1:] < IMPOSSIBLE)  # without a place there is the empty output alone


def test_a_search_without_ngrams_is_one_in_which_they_do_not_count():
    how = {"weight": 0.0, "blank_penalty": 0.5, "beam_size": 4, "candidates": 3}
    without = prefix_search(tf.constant(LOGITS), tf.constant(MASK), None, **how)
    for ours, expected in zip(without, searched(tried=10, **how), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_blanks_that_are_next_to_impossible_leave_the_beginnings_apart():
    logits = LOGITS - 100.0 * np.eye(1, CLASSES, dtype=np.float32)
    labels, scores, _ = searched(logits)
    for row in range(5):
        outputs = every_output(row, 0.7, 0.0, logits=logits)
        best = max(outputs, key=outputs.get)
        assert tuple(np.trim_zeros(labels[row, 0].numpy(), "b").tolist()) == best
        np.testing.assert_allclose(scores[row, 0], outputs[best][0], rtol=1e-4, atol=1e-4)


def test_logits_of_half_precision_are_searched_in_float32():
    rounded = tf.cast(LOGITS, tf.bfloat16)
    for ours, expected in zip(searched(rounded), searched(tf.cast(rounded, tf.float32)), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_ngrams_change_what_is_found():
    without, given = (searched(weight=weight)[0].numpy() for weight in (0.0, 2.0))
    assert not np.array_equal(without, given)


def test_a_narrow_search_finds_an_output_and_at_most_its_score():
    for size, tried in [(1, 1), (2, 3), (3, 2)]:
        labels, scores, said = searched(beam_size=size, tried=tried)
        for row in range(6):
            outputs = every_output(row, 0.7, 0.0)
            score, added = outputs[tuple(np.trim_zeros(labels[row, 0].numpy(), "b").tolist())]
            assert scores[row, 0] <= score + 1e-4
            np.testing.assert_allclose(said[row, 0], added, rtol=1e-4, atol=1e-4)


def test_places_that_are_not_real_and_neighbours_change_nothing():
    labels, scores, _ = searched(beam_size=3, tried=3)
    for row, real in enumerate(REAL):
        alone = searched(LOGITS[row : row + 1, :real], MASK[row : row + 1, :real], beam_size=3, tried=3)
        np.testing.assert_array_equal(alone[0][0], labels[row, :, :real])
        np.testing.assert_allclose(alone[1][0], scores[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", [2, 4])
def test_the_graph_knows_the_ngrams(order):
    model = LanguageModel(COUNTED[order])
    for before in ([], [2], [2, 3], [4, 4, 2, 3], [3, 2, 4]):
        context = tf.constant([[1]], tf.int64)
        for label in before:
            context = model.after(context, tf.constant([[label]]))
        found = model.log_probability(context, tf.constant([[1, 2, 3, 4]]))[0, 0]
        nats = [COUNTED[order].nats([[*before, label]])[0] for label in range(1, 5)]
        np.testing.assert_allclose(
            found, COUNTED[order].nats([before])[0] - np.array(nats), rtol=1e-4, atol=1e-5
        )


def test_names_of_a_large_vocabulary_are_packed_whole():
    text = np.random.default_rng(0).integers(1, 2**16 - 3, [50, 8])
    counted = ngrams.count(text.tolist(), 2**16 - 2, "")
    model = LanguageModel(counted)
    context = tf.constant([[1]], tf.int64)
    for place, label in enumerate(text[7]):
        found = model.log_probability(context, tf.constant([[label]], tf.int32))[0, 0, 0]
        rows = [text[7, :place], text[7, : place + 1]]
        nats = [counted.nats([row.tolist()])[0] for row in rows]
        np.testing.assert_allclose(found, nats[0] - nats[1], rtol=1e-3, atol=1e-3)
        context = model.after(context, tf.constant([[label]], tf.int32))


@pytest.mark.parametrize("compiled", [True, False])
def test_graphs_compiled_or_of_unknown_shape_find_the_same(compiled):
    shape = [6, PLACES] if compiled else [None, None]
    signature = [tf.TensorSpec([*shape, CLASSES]), tf.TensorSpec(shape, tf.bool)]
    model = LanguageModel(COUNTED[4])

    def find(logits, mask):
        return prefix_search(logits, mask, model, weight=0.7, blank_penalty=0.5, beam_size=3, tried=3)

    graph = tf.function(find, input_signature=signature, jit_compile=compiled, autograph=False)
    for ours, expected in zip(graph(LOGITS, MASK), find(tf.constant(LOGITS), tf.constant(MASK)), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
