import types

import pytest
import tensorflow as tf

from t2t_vqem.evaluation import latency


class Timed:
    """A model that copies, and a clock: 5 s a trace, 20 or 40 ms a single line, 250 ms a batch."""

    def __init__(self):
        self.now, self.rows = 0.0, []

    def infer(self, features):
        self.now += 5.0

        def work(inputs):
            self.rows.append(len(inputs))
            alternate = 0.02 if len(self.rows) % 2 else 0.04
            self.now += alternate if len(inputs) == 1 else 0.25
            return inputs

        outputs = tf.py_function(work, [features["inputs"]], tf.int32)
        outputs.set_shape(features["inputs"].shape)
        return {"outputs": outputs}


def test_times_without_the_first_traces(echo_data, monkeypatch):
    problem, data_dir = echo_data
    model = Timed()
    monkeypatch.setattr(latency, "time", types.SimpleNamespace(perf_counter=lambda: model.now))
    sentences = (problem.texts("val", data_dir)[0] * 2)[:64]
    found = latency.measure(model, problem.vocabulary(data_dir), sentences, boundaries=(64,), single=10)
    assert model.rows == [1] * 20 + [32] * 4
    assert found["latency_p50_ms"] == pytest.approx(30.0)
    assert found["latency_p95_ms"] == pytest.approx(40.0)
    assert found["latency_sentences"] == 10
    assert found["sentences_per_second_batch_32"] == pytest.approx(64 / 0.5)
    assert found["throughput_sentences"] == 64
    assert "cores" in found["machine"]
    assert found["load_average"] >= 0


def test_no_sentences(echo_data):
    problem, data_dir = echo_data
    with pytest.raises(ValueError, match="no sentences"):
        latency.measure(Timed(), problem.vocabulary(data_dir), [], boundaries=(8,))
