"""Another model's choice among candidates."""

import types

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import search
from t2t_vqem.decoding import rerank
from t2t_vqem.errors import UserError

CANDIDATES = tf.constant([[[5, 6, 1], [7, 1, 0], [8, 9, 4]], [[4, 1, 0], [3, 3, 1], [1, 0, 0]]])


class Writer:
    decoding = search.Settings(num_candidates=3)

    def infer(self, features):
        return {
            "candidates": CANDIDATES,
            "scores": tf.constant([[-1.0, -2.0, -3.0], [-1.0, -2.0, -3.0]]),
            "outputs": CANDIDATES[:, 0],
            "calls": tf.constant(4),
        }


class Counter:
    """Scores a candidate by a number for each token; remembers what it was given."""

    def __init__(self, **values):
        self.values = tf.constant([0.0, -1.0, *[0.0] * 8]) + tf.constant(
            [values.get(f"t{i}", 0.0) for i in range(10)]
        )

    def score(self, inputs, candidates):
        self.inputs, self.candidates = inputs, candidates
        return tf.reduce_sum(tf.gather(self.values, candidates), axis=-1)


def test_the_likeliest_a_token_is_chosen_and_ordered():
    scorer = Counter(t5=-9.0, t7=-3.0, t8=-2.0, t9=-2.0, t4=-2.0, t3=-1.2)
    inputs = tf.constant([[5, 1], [6, 1]])
    found = rerank.Reranked(Writer(), scorer).infer({"inputs": inputs})
    # row 0: (-9 - 1) / 3, (-3 - 1) / 2, (-6 - 1) / 4 with the eos that was cut off; row 1: -3 / 2, -3.4 / 3, -1
    np.testing.assert_array_equal(found["outputs"], [[8, 9, 4, 1], [1, 0, 0, 0]])
    np.testing.assert_array_equal(found["candidates"][0, 1], [7, 1, 0, 0])
    np.testing.assert_allclose(found["scores"], [[-7, -4, -10], [-1, -3.4, -3]], rtol=1e-5)
    assert int(found["calls"]) == 5
    np.testing.assert_array_equal(scorer.inputs, inputs)


def test_only_what_was_cut_gets_an_eos():
    np.testing.assert_array_equal(rerank.ended(CANDIDATES[0]), [[5, 6, 1, 0], [7, 1, 0, 0], [8, 9, 4, 1]])


def test_one_candidate_or_a_model_without_scores_is_refused():
    writer = Writer()
    writer.decoding = search.Settings()
    with pytest.raises(UserError, match=r"decode\.num_candidates"):
        rerank.Reranked(writer, Counter())
    with pytest.raises(UserError, match="cannot score"):
        rerank.Reranked(Writer(), Writer())
    writer.decoding = search.Settings(num_candidates=3, temperature=1.0, pool=True)
    with pytest.raises(UserError, match=r"decode\.pool makes one output .* decode\.ctc_candidates"):
        rerank.Reranked(writer, Counter())
    with pytest.raises(UserError, match="one output for each line"):
        rerank.Reranked(object(), Counter())


def test_places_without_a_candidate_stay_last_whatever_the_scorer_thinks():
    writer = Writer()
    found = writer.infer({})
    writer.infer = lambda features: found | {"scores": tf.constant([[-1.0, -1e9, -2.0], [-1.0, -2.0, -1e9]])}
    scorer = Counter(t5=-9.0, t8=-9.0, t9=-9.0, t3=-9.0, t4=-9.0)  # the places without one are likeliest
    found = rerank.Reranked(writer, scorer).infer({"inputs": tf.constant([[5, 1], [6, 1]])})
    np.testing.assert_array_equal(found["candidates"][:, 2], [[7, 1, 0, 0], [1, 0, 0, 0]])


def test_the_chooser_computes_in_the_type_of_the_run_and_one_of_another_vocabulary_is_refused(monkeypatch):
    def run(vocabulary, model):
        parts = {"vocabulary": types.SimpleNamespace(hash=vocabulary), "model": model, "step": 9}
        return types.SimpleNamespace(**parts, train_config=types.SimpleNamespace(dtype="float32"))

    opened = {"teacher": run("one", Counter()), "other": run("two", Counter())}
    asked = []
    monkeypatch.setattr(rerank.runs, "open_run", lambda name, **how: (asked.append(how), opened[name])[1])
    assert rerank.reranked(run("one", Writer()), "teacher").scorer_name == "teacher, step 9"
    assert asked == [{"dtype": "float32", "usr_dir": None, "decodes": False}]
    with pytest.raises(UserError, match='run in "other" has another vocabulary'):
        rerank.reranked(run("one", Writer()), "other")
