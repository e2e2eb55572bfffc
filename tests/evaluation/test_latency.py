import time

import pytest

from t2t_vqem.evaluation import latency


class Slow:
    """Each batch takes 20 ms, and the first 300 ms more: the trace."""

    def __init__(self, model):
        import tensorflow as tf

        self.model, self.rows = model, []
        self.tf = tf

    def infer(self, features):
        time.sleep(0.3)

        def wait(inputs):
            self.rows.append(len(inputs))
            time.sleep(0.02)
            return inputs

        inputs = features["inputs"]
        outputs = self.tf.py_function(wait, [inputs], inputs.dtype)
        outputs.set_shape(inputs.shape)
        return {"outputs": outputs}


def test_times_without_the_first_traces(echo_data, copy_model):
    problem, data_dir = echo_data
    slow = Slow(copy_model)
    sentences = (problem.texts("val", data_dir)[0] * 2)[:64]
    found = latency.measure(slow, problem.vocabulary(data_dir), sentences, boundaries=(64,), single=10)
    assert 20 <= found["latency_p50_ms"] <= found["latency_p95_ms"] < 300
    assert slow.rows == [1] * 20 + [32] * 4
    assert found["latency_sentences"] == 10
    assert found["throughput_sentences"] == 64
    assert 64 / 0.3 < found["sentences_per_second_batch_32"] <= 64 / 0.04
    assert "cores" in found["machine"]
    assert found["load_average"] >= 0


def test_no_sentences(echo_data, copy_model):
    problem, data_dir = echo_data
    with pytest.raises(ValueError, match="no sentences"):
        latency.measure(copy_model, problem.vocabulary(data_dir), [], boundaries=(8,))
