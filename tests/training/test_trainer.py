"""The trainer's promises, on a problem and a model of a few numbers."""

import json
import os
import signal

import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from t2t_vqem.errors import UserError
from t2t_vqem.training import checkpoints, summaries, trainer


def weights(made):
    """Everything that training moves, by name."""
    flat = checkpoints._flat(made._checkpoints._tree)
    return {name: variable.numpy() for name, variable in flat.items()}


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


def logged(caplog):
    return [record.getMessage() for record in caplog.records]


@pytest.fixture(autouse=True)
def _absl_to_caplog(caplog, monkeypatch):
    logging.set_verbosity(logging.INFO)
    monkeypatch.setattr(logging.get_absl_logger(), "propagate", True)
    caplog.set_level("INFO", logger="absl")


def results(made):
    with open(os.path.join(made._model_dir, "results.json"), encoding="utf-8") as file:
        return json.load(file)["train"]


def test_resume_equals_an_uninterrupted_run(make_trainer, caplog):
    whole = make_trainer("whole", train_steps=24, ema_decay=0.5)
    whole.train()
    assert "starting at step 0" in logged(caplog)
    make_trainer("parts", train_steps=12, ema_decay=0.5).train()
    evaluator = Bias()
    second = make_trainer("parts", {"val": evaluator}, train_steps=24, ema_decay=0.5)
    second.train_and_evaluate()
    assert len(set(evaluator.seen)) == 2 * len(range(12, 25, 4))  # raw and averaged, and none as another
    assert "resumed at step 12, data position restored" in logged(caplog)
    assert second.step == 24
    assert any(name.startswith("average/") for name in weights(second))
    assert_equal(weights(whole), weights(second))


def test_another_seed_gives_other_weights(make_trainer):
    """So the comparisons with an uninterrupted run can fail."""
    one, other = (make_trainer(f"run{s}", seed=s, boundaries=(8,), train_steps=4) for s in range(2))
    one.train(), other.train()
    assert any((value != weights(other)[name]).any() for name, value in weights(one).items())


def test_a_signal_saves_and_leaves_and_resume_goes_on_exactly(make_trainer, monkeypatch):
    whole = make_trainer("whole", boundaries=(8,))
    whole.train()

    parts = make_trainer("parts", boundaries=(8,), ema_decay=0.5)
    real = trainer.TrainStep.__call__

    def call_and_be_killed(self, features):
        terms = real(self, features)
        if self.step.numpy() == 6:  # no multiple of save_every
            os.kill(os.getpid(), signal.SIGTERM)
        return terms

    monkeypatch.setattr(trainer.TrainStep, "__call__", call_and_be_killed)
    with pytest.raises(SystemExit) as stop:
        parts.train()
    assert stop.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    monkeypatch.setattr(trainer.TrainStep, "__call__", real)
    again = make_trainer("parts", boundaries=(8,), ema_decay=0.5)
    again.train()
    resumed = weights(again)
    assert_equal(weights(whole), {name: resumed[name] for name in weights(whole)})
    assert resumed.keys() > weights(whole).keys()  # a moving average, which changes nothing else


def test_a_signal_during_evaluation_leaves_at_once_and_the_evaluation_is_made_up_for(make_quick, scripted):
    class Killed:
        main_metric = "bleu"

        def evaluate(self, model, step):
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("went on evaluating")

    with pytest.raises(SystemExit) as stop:
        make_quick(evaluators={"val": Killed()}).train_and_evaluate()
    assert stop.value.code == 130
    evaluator = scripted([1.0, 2.0, 3.0])
    make_quick(evaluators={"val": evaluator}).train_and_evaluate()
    assert evaluator.steps == [4, 8, 12]


def test_the_best_is_kept_apart_from_the_last(make_quick, scripted):
    evaluator = scripted([1.0, 3.0, 2.0])
    made = make_quick(evaluators={"val": evaluator}, keep_last=1)
    entry = made.train_and_evaluate()
    assert entry["best"] == {"step": 8, "metric": "bleu", "value": 3.0, "weights": "raw"}
    assert [e["val"]["bleu"] for e in entry["evaluations"]] == [1.0, 3.0, 2.0]
    assert entry["final"]["step"] == entry["steps"] == 12
    best = checkpoints.find(made._model_dir, "best")
    fresh = make_quick("fresh")
    assert checkpoints.restore_weights(best, fresh.model) == 8
    assert sorted(os.path.basename(p) for p in os.listdir(os.path.dirname(best))) == [
        "best.json",
        "ckpt-8.data-00000-of-00001",
        "ckpt-8.index",
    ]
    assert checkpoints.find(made._model_dir, "latest").endswith("ckpt-12")


class Bias:
    """An evaluator whose metric is `metric` of what the model's last bias holds at the time."""

    main_metric = "bleu"

    def __init__(self, metric=lambda value: value):
        self.metric, self.seen = metric, []

    def evaluate(self, model, step):
        self.seen.append(float(model.out.bias[0]))
        return {"bleu": self.metric(self.seen[-1])}


@pytest.mark.parametrize("better", ["raw", "ema"])
def test_raw_and_averaged_weights_are_evaluated_and_the_better_are_kept(make_quick, better):
    evaluator = Bias(lambda value: value if better == "raw" else 10.0 - value)
    made = make_quick(evaluators={"val": evaluator}, ema_decay=0.5, train_steps=4)
    entry = made.train_and_evaluate()
    assert evaluator.seen == [2.0, 0.0]  # the step moves the weights alone, and the average stays
    scores = [evaluator.metric(value) for value in evaluator.seen]
    assert [entry["final"][name]["bleu"] for name in ("val", "val_ema")] == scores
    expected = checkpoints.Best(4, "bleu", max(scores), better)
    assert checkpoints.read_best(made._model_dir) == expected
    assert entry["best"] == expected._asdict()
    best = make_quick("fresh").model
    checkpoints.restore_weights(checkpoints.find(made._model_dir, "best"), best)
    assert float(best.out.bias[0]) == evaluator.seen[better == "ema"]
    assert float(made.model.out.bias[0]) == 2.0
    again = make_quick(evaluators={"val": evaluator}, ema_decay=0.5).evaluate()
    assert {name: values["bleu"] for name, values in again.items()} == dict(
        zip(("val", "val_ema"), scores, strict=True)
    )


def test_the_average_can_begin_and_end_in_the_middle(make_quick, caplog):
    make_quick(train_steps=4).train()
    begun = make_quick(train_steps=4, ema_decay=0.5)
    begun.train()
    assert any("ckpt-4 holds no moving average" in line for line in logged(caplog))
    for variable, average in zip(begun.model.trainable_variables, begun._average.averages, strict=True):
        np.testing.assert_array_equal(variable, average)
    make_quick(train_steps=8, ema_decay=0.5).train()
    make_quick(train_steps=12).train()
    assert any("goes no further (train.ema_decay = 0)" in line for line in logged(caplog))
    made = make_quick(train_steps=12)
    made.train()
    assert not any(name.startswith("average/") for name in weights(made))


def test_a_best_without_a_word_on_its_weights_holds_raw_ones(tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "best.json").write_text('{"step": 8, "metric": "bleu", "value": 3.0}')
    assert checkpoints.read_best(str(tmp_path)) == checkpoints.Best(8, "bleu", 3.0, "raw")


def test_less_is_better_for_a_loss(make_trainer, tiny_config):
    assert tiny_config(best_metric="nll").better(1.0, 2.0)
    assert tiny_config(best_metric="prior_bits_per_dim").better(1.0, 2.0)
    assert tiny_config(best_metric="chrf").better(2.0, 1.0)
    assert tiny_config(best_metric="chrf", best_mode="min").better(1.0, 2.0)
    assert not tiny_config().better(float("nan"), 1.0)


def test_early_stop_counts_across_a_resume(make_quick, scripted, caplog):
    settings = {"train_steps": 40, "early_stop_patience": 2}
    whole = scripted([5.0, 1.0, 1.0, 1.0])
    made = make_quick("whole", {"val": whole}, **settings)
    made.train_and_evaluate()
    assert whole.steps == [4, 8, 12]
    assert "stopping early: no better bleu since step 4 (5)" in logged(caplog)

    make_quick("parts", {"val": scripted([5.0, 1.0])}, **settings | {"train_steps": 8}).train_and_evaluate()
    rest = scripted([1.0, 1.0, 1.0])
    make_quick("parts", {"val": rest}, **settings).train_and_evaluate()
    assert rest.steps == [12]
    once_more = scripted([])
    make_quick("parts", {"val": once_more}, **settings).train_and_evaluate()
    assert once_more.steps == []


def test_an_unknown_best_metric_names_the_known(make_quick, scripted):
    with pytest.raises(UserError, match='no "blue"'):
        make_quick(evaluators={"val": scripted([1.0])}, best_metric="blue").train_and_evaluate()


def test_divergence_names_the_term_and_saves_nothing(make_quick, monkeypatch):
    real = trainer.TrainStep.__call__

    def diverge(self, features):
        terms = real(self, features)
        return terms | {"nll": (float("nan"), 1.0)} if self.step.numpy() == 6 else terms

    monkeypatch.setattr(trainer.TrainStep, "__call__", diverge)
    made = make_quick()
    with pytest.raises(UserError, match="between steps 5 and 6: nll not finite"):
        made.train()
    assert checkpoints.find(made._model_dir, "latest").endswith("ckpt-4")


def test_the_largest_batch_is_tried_first_and_the_error_names_what_fits(make_quick, monkeypatch):
    tried = []

    def no_memory(self, features):
        tried.append(features["inputs"].shape.as_list())
        if features["inputs"].shape[1] > 3:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    monkeypatch.setattr(trainer.TrainStep, "try_batch", no_memory)
    made = make_quick(batch_tokens=96)
    with pytest.raises(UserError, match=r"train\.batch_tokens = 96 does not fit .* = 24 does"):
        made.train()
    assert tried == [[1, 12, 8], [1, 6, 8], [1, 3, 8]]
    assert made.step == 0


def test_no_batch_fits(make_quick, monkeypatch):
    def no_memory(self, features):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    monkeypatch.setattr(trainer.TrainStep, "try_batch", no_memory)
    with pytest.raises(UserError, match="not even the smallest batch"):
        make_quick().train()


def test_results_add_up_over_resumes(make_quick):
    make_quick(train_steps=8).train()
    made = make_quick(train_steps=16)
    first = results(made)
    made.train()
    second = results(made)
    assert first["steps"] == first["total"]["steps"] == 8
    assert second["steps"] == second["total"]["steps"] == 16
    assert second["seconds"] > first["seconds"] > 0
    assert second["total"]["examples"] == 16 * 4
    assert second["total"]["tokens"] == second["total"]["padded_tokens"] > first["total"]["tokens"]
    assert second["seed"] == 0
    assert second["machine"]["cores"] >= 1


def test_a_finished_run_is_left_as_it_is(make_quick):
    first = make_quick(train_steps=8)
    first.train()
    entry, learnt = results(first), weights(first)
    again = make_quick(train_steps=8)
    again.train()
    assert again.step == 8
    assert results(again) == entry
    assert_equal(weights(again), learnt)


def test_steps_are_rounded_up_to_whole_calls(make_quick, scripted):
    evaluator = scripted([1.0, 1.0])
    made = make_quick(evaluators={"val": evaluator}, steps_per_call=5, train_steps=7, eval_every=3)
    made.train_and_evaluate()
    assert made.step == 10
    assert evaluator.steps == [5, 10]


def test_other_batches_start_the_data_anew_and_say_so(make_quick, caplog):
    make_quick(train_steps=8).train()
    made = make_quick(train_steps=12, batch_tokens=64)
    made.train()
    assert made.step == 12
    assert any("step 8; data or batches are not what they were" in line for line in logged(caplog))


def test_evaluate_and_predict_use_the_latest_weights(make_quick, scripted):
    trained = make_quick()
    trained.train()
    made = make_quick(evaluators={"val": scripted([7.0])})
    assert made.evaluate()["val"]["bleu"] == 7.0
    assert_equal(weights(trained), weights(made))
    batch = {"inputs": tf.constant([[3, 4], [5, 6], [0, 0]]), "index": tf.constant([0, 1, -1])}
    predicted = list(made.predict(tf.data.Dataset.from_tensors(batch)))
    assert [p["outputs"].shape for p in predicted] == [(2,), (2,)]
    with pytest.raises(UserError, match="no checkpoint in"):
        make_quick("empty").evaluate()


def test_log_line_and_events(make_quick, scripted, caplog):
    make_quick(evaluators={"val": scripted([1.0, 2.0, 3.0])}).train_and_evaluate()
    lines = [line for line in logged(caplog) if line.startswith("step ")]
    assert [line.split()[1] for line in lines if "best" not in line] == ["4/12", "8/12", "12/12"]
    last = next(line for line in lines if line.startswith("step 12/12"))
    for part in ("nll 2 ", "learning_rate ", "tokens/s ", "examples/s ", "ETA 0:00:00"):
        assert part in last


def test_the_log_line_speaks_of_tokens_where_there_are_any():
    rates = {"tokens_per_second": 100.4, "padded_tokens_per_second": 120.0, "examples_per_second": 7.0}
    line, of_pictures = (
        summaries.progress_line(4, 8, means={"nll": 2.0}, rates=rates, eta=61.0, tokens=tokens)
        for tokens in (True, False)
    )
    assert line == "step 4/8  nll 2  tokens/s 100 (padded 120)  examples/s 7.0  ETA 0:01:01"
    assert of_pictures == "step 4/8  nll 2  examples/s 7.0  ETA 0:01:01"


def test_event_file_holds_every_kind(make_quick, scripted, tmp_path):
    make_quick(evaluators={"val": scripted([1.0, 2.0, 3.0])}).train_and_evaluate()
    tags = set()
    for path in (tmp_path / "run" / "events").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags.update(value.tag for value in event.summary.value)
    assert {
        "train/nll",
        "train/learning_rate",
        "speed/tokens_per_second",
        "codebook/latents/live_codes",
        "codebook/latents/counts",
        "codebook/latents/perplexity_per_code",
        "codebook/latents/movement",
        "codebook/latents/alarm",
        "val/bleu",
        "val/samples",
        "val/codes",
    } <= tags
