"""CTC against the enumeration of all paths and against TensorFlow's own."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.layers.ctc import best_path, collapse, ctc_loss, frames_needed

TIME, CLASSES = 5, 4
LABELS = np.array([[1, 2, 0], [1, 1, 0], [3, 3, 3], [2, 0, 0], [0, 0, 0], [1, 2, 1], [0, 0, 0]], np.int32)
FRAMES = np.array([5, 4, 5, 3, 2, 3, 0], np.int32)
LOGITS = np.random.default_rng(0).normal(size=[7, TIME, CLASSES]).astype(np.float32) * 2


def merged(path):
    return [label for label, _ in itertools.groupby(path) if label]


def value_and_gradient(logits, labels=LABELS, frames=FRAMES):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        nll, expressible = ctc_loss(logits, labels, frames)
        total = tf.reduce_sum(nll)
    return nll, expressible, tape.gradient(total, logits)


def test_the_loss_sums_over_every_path():
    nll, expressible = ctc_loss(tf.constant(LOGITS), LABELS, FRAMES)
    assert np.all(expressible)
    probabilities = tf.nn.softmax(LOGITS).numpy()
    for row, frames in enumerate(FRAMES):
        wanted = [label for label in LABELS[row] if label]
        paths = itertools.product(range(CLASSES), repeat=frames)
        total = sum(
            np.prod(probabilities[row, range(frames), path]) for path in paths if merged(path) == wanted
        )
        np.testing.assert_allclose(nll[row], -np.log(total), rtol=1e-5, atol=1e-6)


def test_the_loss_and_its_gradient_are_those_of_tensorflow():
    draw = np.random.default_rng(1)
    logits = tf.constant(draw.normal(size=[8, 12, 9]), tf.float32)
    lengths, frames = np.arange(8, dtype=np.int32) % 5, np.arange(5, 13, dtype=np.int32)
    labels = np.where(np.arange(5) < lengths[:, None], [[1, 1, 2, 3, 3]], 0).astype(np.int32)
    frames[lengths == 4] = 9
    with tf.GradientTape() as tape:
        tape.watch(logits)
        theirs = tf.nn.ctc_loss(labels, logits, lengths, frames, logits_time_major=False, blank_index=0)
        total = tf.reduce_sum(theirs)
    nll, expressible, gradient = value_and_gradient(logits, labels, frames)
    assert np.all(expressible)
    np.testing.assert_allclose(nll, theirs, rtol=1e-5)
    np.testing.assert_allclose(gradient, tape.gradient(total, logits), atol=1e-5)


def test_several_outputs_read_the_same_frames():
    draw = np.random.default_rng(4)
    logits = tf.constant(draw.normal(size=[2, 6, 5]), tf.float32)
    labels = tf.constant([[1, 2, 0], [3, 0, 0], [2, 2, 4], [4, 1, 0]])
    frames = tf.constant([6, 4])
    found, expressible = ctc_loss(logits, labels, frames, outputs=2)
    repeated = tf.repeat(logits, 2, axis=0), labels, tf.repeat(frames, 2)
    expected, _ = ctc_loss(*repeated)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.all(expressible)


def test_labels_that_no_path_expresses_cost_nothing_and_move_nothing():
    np.testing.assert_array_equal(frames_needed(tf.constant(LABELS)), [2, 3, 5, 1, 0, 3, 0])
    nll, expressible, gradient = value_and_gradient(tf.constant(LOGITS), frames=FRAMES - 2)
    np.testing.assert_array_equal(expressible, [True, False, False, True, True, False, False])
    assert np.all(np.isfinite(nll))
    assert np.all(np.isfinite(gradient))
    for row, possible in enumerate(expressible.numpy()):
        assert bool(np.any(gradient[row])) == bool(possible and FRAMES[row] > 2)
        assert possible or nll[row] == 0


@pytest.mark.parametrize("compiled", [True, False])
def test_graphs_compiled_or_of_unknown_shape_give_the_same(compiled):
    shapes = [TIME, CLASSES] if compiled else [None, CLASSES]
    signature = [
        tf.TensorSpec([7 if compiled else None, *shapes]),
        tf.TensorSpec([7 if compiled else None, 3 if compiled else None], tf.int32),
        tf.TensorSpec([7 if compiled else None], tf.int32),
    ]
    function = tf.function(value_and_gradient, input_signature=signature, jit_compile=compiled)
    for ours, expected in zip(
        function(LOGITS, LABELS, FRAMES), value_and_gradient(tf.constant(LOGITS)), strict=True
    ):
        np.testing.assert_allclose(tf.cast(ours, tf.float32), tf.cast(expected, tf.float32), atol=1e-5)


def test_bfloat16_logits_are_summed_in_float32():
    rounded = tf.cast(LOGITS, tf.bfloat16)
    nll, _ = ctc_loss(rounded, LABELS, FRAMES)
    exact, _ = ctc_loss(tf.cast(rounded, tf.float32), LABELS, FRAMES)
    np.testing.assert_array_equal(nll, exact)


def test_a_penalty_takes_the_blanks_that_are_less_ahead_and_is_in_no_score():
    logits = tf.constant([[[4.0, 3.5, 0.0], [4.0, 0.0, 2.0], [0.0, 0.0, 9.0]]])
    mask = tf.constant([[True, True, False]])
    for penalty, labels, chosen in [
        (0.0, [0, 0, 0], [0, 0]),
        (1.0, [1, 0, 0], [1, 0]),
        (2.5, [1, 2, 0], [1, 2]),
    ]:
        found, score = best_path(logits, mask, penalty)
        np.testing.assert_array_equal(found, [labels])
        expected = sum(tf.nn.log_softmax(logits).numpy()[0, frame, c] for frame, c in enumerate(chosen))
        np.testing.assert_allclose(score, [expected], rtol=1e-6)


def test_collapse_merges_repeats_then_drops_blanks():
    paths = tf.constant([[3, 3, 0, 3, 2, 2], [0, 0, 0, 0, 0, 0], [0, 5, 0, 0, 5, 4]])
    np.testing.assert_array_equal(collapse(paths)[:, :4], [[3, 3, 2, 0], [0, 0, 0, 0], [5, 5, 4, 0]])
    assert not np.any(collapse(paths)[:, 3:])
