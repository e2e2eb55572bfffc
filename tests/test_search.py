"""Search over a step function: one by one, with a beam, and by samples."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import search
from t2t_vqem.errors import UserError


def table_step(scores):
    """The logits of each step are row `index` of each sequence's table [batch, steps, classes]."""

    def step(last, index, state):
        return scores[:, index], state + last

    return step


def test_sequences_end_by_themselves_or_at_their_greatest_length():
    end = 3
    best = [[0, 1, 3, 2], [2, 2, 2, 2], [3, 0, 0, 0]]
    scores = tf.one_hot(tf.constant(best), 4)
    found = search.one_by_one(
        table_step(scores),
        tf.zeros([3], tf.int32),
        search.likeliest,
        batch=tf.constant(3),
        start_id=0,
        end_id=end,
        max_length=tf.constant([4, 3, 4]),
        longest=tf.constant(4),
    )
    np.testing.assert_array_equal(found.lengths, [2, 3, 0])
    np.testing.assert_array_equal(found.ids, [[0, 1, 3], [2, 2, 2], [3, 3, 3]])


def test_a_step_sees_what_was_chosen_last_and_carries_its_state():
    def step(last, index, total):
        total += last
        return tf.one_hot(total + 1, 10), total  # 1, then 1 + 1, then 1 + 2 + 1 ...

    found = search.one_by_one(
        step,
        tf.zeros([1], tf.int32),
        search.likeliest,
        batch=tf.constant(1),
        start_id=0,
        end_id=9,
        max_length=tf.constant([4]),
        longest=4,
    )
    np.testing.assert_array_equal(found.ids, [[1, 2, 4, 8]])


def all_sequences(scores, end, longest):
    """Every sequence with its log probability, the best mean first; the scores do not depend on the past."""
    log_probabilities = np.asarray(tf.nn.log_softmax(scores))
    found = []
    for length in range(longest + 1):
        for ids in itertools.product(range(end), repeat=length):
            total = (
                sum(log_probabilities[i, id_] for i, id_ in enumerate(ids)) + log_probabilities[length, end]
            )
            found.append((total / (length + 1), total, ids))
    return sorted(found, reverse=True)


def test_a_wide_beam_finds_the_best_of_all_sequences():
    end, longest, beam_size = 2, 3, 8  # 2^3 beginnings: nothing is ever dropped
    scores = tf.random.stateless_normal([2, longest + 1, end + 1], [3, 4]) * 2.0
    rows = tf.repeat(scores, beam_size, axis=0)
    beams = search.beam(
        lambda last, index, state: (rows[:, index], state),
        tf.zeros([2 * beam_size]),
        search.Settings(beam_size=beam_size),
        batch=tf.constant(2),
        start_id=0,
        end_id=end,
        max_length=tf.constant([longest, longest]),
        longest=longest,
    )
    for row in range(2):
        expected = all_sequences(scores[row], end, longest - 1)[:beam_size]
        for place, (_, total, ids) in enumerate(expected[:4]):
            assert float(beams.scores[row, place]) == pytest.approx(total, abs=1e-4)
            assert int(beams.lengths[row, place]) == len(ids)
            assert tuple(beams.ids[row, place, : len(ids)].numpy()) == ids


def test_a_beam_carries_the_state_of_the_parent():
    """Each hypothesis must see the sum of its own past ids, whatever row it moves to."""

    def step(last, index, total):
        total += tf.cast(last, tf.float32)
        even = tf.cast(total % 2 == 0, tf.float32)
        end = tf.fill([4], -20.0 + 20.0 * tf.cast(index == 3, tf.float32))
        return tf.stack([even, 1.1 - even, end], axis=1) * 9.0, total

    beams = search.beam(
        step,
        tf.zeros([4]),
        search.Settings(beam_size=4),
        batch=tf.constant(1),
        start_id=0,
        end_id=2,
        max_length=tf.constant([4]),
        longest=4,
    )
    # even sums prefer 0 and odd ones 1: the likeliest of length 3 is all 0, then those that flip once
    np.testing.assert_array_equal(beams.ids[0, 0, :3], [0, 0, 0])


def test_more_candidates_than_the_beam_are_those_that_ended_elsewhere():
    """Greedy goes 0, 1, 0 and may end anywhere: the candidates are its prefixes."""
    scores = tf.constant([[[3.0, 0.0, 1.0], [0.0, 3.0, 1.0], [3.0, 0.0, 2.0], [0.0, 0.0, 9.0]]])
    found = search.beam(
        lambda last, index, state: (scores[:, index], state),
        tf.zeros([1]),
        search.Settings(num_candidates=4),
        batch=tf.constant(1),
        start_id=0,
        end_id=2,
        max_length=tf.constant([4]),
        longest=4,
    )
    assert sorted(found.lengths[0].numpy()) == [0, 1, 2, 3]
    for ids, length in zip(found.ids[0].numpy(), found.lengths[0].numpy(), strict=True):
        assert ids[:length].tolist() == [0, 1, 0][:length]
    log = np.asarray(tf.nn.log_softmax(scores))[0]
    expected = log[0, 0] + log[1, 1] + log[2, 0] + log[3, 2]
    assert float(found.scores[0, 0]) == pytest.approx(expected, abs=1e-4)


def draws(rows=4000, **settings):
    """The ids that one step draws from the probabilities .4, .3, .2, .1."""
    logits = tf.repeat(tf.math.log([[0.4, 0.3, 0.2, 0.1]]), rows, axis=0)
    choose = search.sampler(search.Settings(**settings), tf.cast(tf.range(rows), tf.uint32))
    return np.bincount(choose(logits, tf.constant(0)), minlength=4) / rows


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"temperature": 1.0}, [0.4, 0.3, 0.2, 0.1]),
        ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        ({"temperature": 1.0, "top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.6}, [4 / 7, 3 / 7, 0, 0]),
        ({"temperature": 1e-9, "top_k": 2}, [1, 0, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.71}, [4 / 9, 3 / 9, 2 / 9, 0]),
    ],
)
def test_samples_have_the_distribution_asked_for(settings, expected):
    np.testing.assert_allclose(draws(**settings), expected, atol=0.03)
    assert np.all(draws(**settings)[np.equal(expected, 0)] == 0)


def test_keys_tell_lines_apart_whatever_pads_them():
    lines = tf.constant([[5, 6, 1, 0], [6, 5, 1, 0], [5, 6, 1, 1]])
    keys = search.line_keys(lines).numpy()
    assert len(set(keys)) == 3
    np.testing.assert_array_equal(keys, search.line_keys(tf.pad(lines, [[0, 0], [0, 3]])))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"beam_size": 0}, "beam_size"),
        ({"num_candidates": -1}, "num_candidates"),
        ({"beam_size": 10**9}, "beam_size"),
        ({"length_penalty": 10}, "length_penalty is 10; it must be a number of at least 0 and below 10"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"length_penalty": True}, "length_penalty"),
        ({"temperature": 1.0, "beam_size": 2}, "temperature"),
        ({"top_k": 5}, "temperature"),
        ({"lm_weight": -1.0}, "lm_weight"),
        ({"ctc_beam_size": 257, "lm_weight": 1.0}, "ctc_beam_size"),
        ({"ctc_beam_size": 20}, "ctc_beam_size is of a search"),
        ({"ctc_candidates": 0}, "ctc_candidates"),
        ({"ctc_candidates": 11}, "ctc_beam_size"),
        ({"pool": True}, "pool takes the mean over candidates"),
        ({"pool": 1, "beam_size": 2}, "pool is 1"),
        ({"top_p": 0.9}, "temperature"),
    ],
)
def test_a_bad_setting_is_named(settings, name):
    with pytest.raises(UserError, match=f"decode.{name}"):
        search.Settings(**settings)


def test_settings_are_named_by_what_differs_from_greedy_search():
    assert str(search.Settings(compile=True)) == ""
    assert str(search.Settings(length_penalty=0.6, beam_size=4)) == "beam_size=4, length_penalty=0.6"
    assert (
        str(search.Settings(length_penalty=2))
        == str(search.Settings(length_penalty=2.0))
        == "length_penalty=2.0"
    )


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
def test_a_beam_is_the_same_in_any_company(penalty):
    """An example that is done gains nothing from a neighbour that goes on."""
    settings = search.Settings(beam_size=3, length_penalty=penalty)
    draw = tf.random.stateless_normal([8, 40, 5], [1, 2]) * 2.0

    def found(table):
        batch = table.shape[0]
        rows = tf.repeat(table, 3, axis=0)
        return search.beam(
            lambda last, index, state: (rows[:, index], state),
            tf.zeros([3 * batch]),
            settings,
            batch=tf.constant(batch),
            start_id=0,
            end_id=4,
            max_length=tf.fill([batch], 40),
            longest=40,
        )

    together = found(draw)
    for row in range(8):
        alone = found(draw[row : row + 1])
        np.testing.assert_array_equal(together.lengths[row], alone.lengths[0])
        np.testing.assert_allclose(together.scores[row], alone.scores[0], rtol=1e-5)


def test_the_best_of_a_beam_may_be_asked_for_alone():
    scores = tf.random.stateless_normal([1, 4, 3], [3, 4]) * 2.0
    rows = tf.repeat(scores, 4, axis=0)

    def found(**settings):
        return search.search(
            lambda last, index, state: (rows[:, index], state),
            tf.zeros([4]),
            search.Settings(**settings),
            sources=tf.constant([[5, 1]]),
            start_id=0,
            end_id=2,
            max_length=tf.constant([3]),
            longest=3,
        )

    one, four = found(beam_size=4, num_candidates=1), found(beam_size=4)
    assert one.ids.shape[:2] == (1, 1)
    np.testing.assert_array_equal(one.ids[0, 0], four.ids[0, 0])
