import types

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.evaluation import latency


class Clock:
    """The time of a test, and who used it: (name, rows), call by call."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def perf_counter(self):
        return self.now


class Timed:
    """A model that copies: 5 s a trace, 1 ms a token of a single line, 250 ms a batch; it tells 3 calls."""

    def __init__(self, clock, name="model", speed=1.0):
        self.clock, self.name, self.speed = clock, name, speed
        self.disturbed = 0  # calls that take a second longer
        self.used, self.unused = tf.Variable(tf.zeros([3, 4], tf.int32)), tf.Variable(tf.zeros([100]))

    def infer(self, features):
        self.clock.now += 5.0

        def work(inputs):
            self.clock.log.append((self.name, len(inputs)))
            tokens = int(np.count_nonzero(inputs))
            if self.disturbed:
                self.disturbed -= 1
                self.clock.now += 1.0
            self.clock.now += (1e-3 * tokens if len(inputs) == 1 else 0.25) / self.speed
            return inputs

        outputs = tf.py_function(work, [features["inputs"] + self.used[0, 0]], tf.int32)
        outputs.set_shape(features["inputs"].shape)
        return {"outputs": outputs, "calls": tf.reduce_sum(tf.cast(outputs == 1, tf.int32)) + 2}


class SlowPieces:
    """A vocabulary whose encoding takes 7 ms a text."""

    def __init__(self, vocabulary, clock):
        self.vocabulary, self.clock = vocabulary, clock
        self.tf_detokenize = vocabulary.tf_detokenize

    def encode(self, texts):
        self.clock.now += 7e-3 * len(texts)
        return self.vocabulary.encode(texts)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency, "time", types.SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


@pytest.fixture
def pieces(echo_data):
    problem, data_dir = echo_data
    return problem.vocabulary(data_dir)


@pytest.fixture
def sentences(echo_data):
    problem, data_dir = echo_data
    return (problem.texts("val", data_dir)[0] * 2)[:64]


def system(model, pieces, boundaries=(64,), single=10):
    return latency.System(model, pieces, boundaries=boundaries, single=single)


def test_times_without_the_first_traces(clock, pieces, sentences):
    model = Timed(clock)
    timed = system(model, SlowPieces(pieces, clock))
    timed.prepare(sentences)
    before = len(clock.log)
    (found,) = latency.measure([timed])
    assert [rows for _, rows in clock.log[before:]] == [1] * 60 + [32] * 6

    lines = [sentences[i * 64 // 10] for i in range(10)]
    tokens = np.array([len(ids) for ids in pieces.encode(lines)])
    assert timed.lines == lines
    for percent in (50, 95):
        assert found[f"infer_latency_p{percent}_ms"] == pytest.approx(np.percentile(tokens, percent))
        assert found[f"latency_p{percent}_ms"] == pytest.approx(np.percentile(tokens + 7, percent))
    assert found["latency_sentences"] == 10
    assert found["sentences_per_second_batch_32"] == pytest.approx(64 / (0.5 + 64 * 7e-3))
    assert found["throughput_sentences"] == 64
    assert found["decoder_calls"] == 3.0
    assert found["parameters"] == 12, "what inference does not read is not counted"


def test_a_disturbance_of_one_round_changes_nothing(clock, pieces, sentences):
    model = Timed(clock)
    timed = system(model, pieces)
    timed.prepare(sentences)
    (quiet,) = latency.measure([timed])
    model.disturbed = 20  # text to text and ids to ids, of ten sentences
    (noisy,) = latency.measure([timed])
    assert model.disturbed == 0
    assert noisy == pytest.approx(quiet)


def test_systems_take_turns_in_an_order_that_rotates(clock, pieces, sentences):
    systems = [system(Timed(clock, name, speed), pieces) for name, speed in (("a", 1), ("b", 2), ("c", 4))]
    for timed in systems:
        timed.prepare(sentences)
    before = len(clock.log)
    found = latency.measure(systems)
    singles = [name for name, rows in clock.log[before:] if rows == 1]
    turns = [singles[i : i + 6] for i in range(0, len(singles), 6)]  # text and ids of three
    assert len(turns) == 30
    assert all(sorted(turn) == ["a", "a", "b", "b", "c", "c"] for turn in turns)
    assert {turn[0] for turn in turns} == {"a", "b", "c"}
    batches = [name for name, rows in clock.log[before:] if rows == 32]
    assert batches == [
        "a",
        "b",
        "c",
        "b",
        "c",
        "a",
        "c",
        "a",
        "b",
        "a",
        "b",
        "c",
        "b",
        "c",
        "a",
        "c",
        "a",
        "b",
    ]
    ratios = [found[0]["latency_p50_ms"] / figures["latency_p50_ms"] for figures in found]
    assert ratios == pytest.approx([1, 2, 4])


def test_systems_of_other_boundaries_are_timed_together(clock, pieces, sentences):
    short, long = system(Timed(clock), pieces, boundaries=(4, 8, 64)), system(Timed(clock), pieces)
    for timed in (short, long):
        timed.prepare(sentences)
    assert len(short.batches) > len(long.batches)
    found = latency.measure([short, long])
    assert [figures["throughput_sentences"] for figures in found] == [64, 64]


def test_preparation_translates_all_in_order(clock, pieces):
    texts = ["the old dogs", "", "a small red house with many green windows", " ", "see"]
    timed = system(Timed(clock), pieces, boundaries=(8, 64))
    assert timed.prepare(texts) == ["the old dogs", "", texts[2], "", "see"]
    assert timed.lines == [texts[0], texts[2], texts[4]]
    assert sorted(line for batch in timed.batches for line in batch) == sorted(timed.lines)


def test_no_more_is_timed_than_asked_for(clock, pieces, sentences):
    timed = system(Timed(clock), pieces, single=3)
    timed.prepare(sentences)
    assert len(timed.lines) == 3
    assert sum(map(len, timed.batches)) == 32, "30, in whole batches"


def test_a_model_that_tells_no_calls(pieces, sentences, copy_model):
    timed = system(copy_model, pieces)
    timed.prepare(sentences)
    (found,) = latency.measure([timed])
    assert "decoder_calls" not in found
    assert found["parameters"] == 0


@pytest.mark.parametrize("texts", [[], ["", " "]])
def test_no_sentences(clock, pieces, texts):
    with pytest.raises(ValueError, match="no sentences"):
        system(Timed(clock), pieces).prepare(texts)


def test_conditions():
    found = latency.conditions()
    assert found["machine"]["cores"] >= 1
    assert found["load_average"] >= 0
