import numpy as np
import pytest
import sacrebleu

from t2t_vqem.errors import UserError
from t2t_vqem.evaluation import codebook
from t2t_vqem.evaluation.translation import TranslationEvaluator, markdown_table


def evaluator(echo_data, split="val", boundaries=(8, 16, 32), batch_tokens=64, **options):
    return TranslationEvaluator(
        *echo_data, split, boundaries=boundaries, batch_tokens=batch_tokens, **options
    )


@pytest.mark.parametrize("batch_tokens", [32, 64, 4096])
def test_figures_worked_out_by_hand(echo_data, copy_model, batch_tokens):
    problem, data_dir = echo_data
    sources, references = problem.texts("val", data_dir)
    pieces = problem.vocabulary(data_dir)
    values = evaluator(echo_data, batch_tokens=batch_tokens).evaluate(copy_model, 7)

    assert values["bleu"] == pytest.approx(sacrebleu.corpus_bleu(sources, [references]).score)
    assert values["bleu"] < 95
    assert "tok:13a" in values["bleu_signature"]
    assert values["chrf"] == pytest.approx(sacrebleu.corpus_chrf(sources, [references]).score)
    assert values["reconstruction_bleu"] == pytest.approx(100.0)

    inputs, targets = pieces.encode(sources), pieces.encode(references)
    flat = np.concatenate(targets)
    assert values["nll"] == pytest.approx(flat.mean())
    assert values["end_share"] == pytest.approx(len(targets) / len(flat))
    assert "unused_loss" not in values
    ratio = (sum(map(len, inputs)) - len(inputs)) / (len(flat) - len(targets))
    assert values["length_ratio"] == pytest.approx(ratio)

    counts = np.bincount(flat % 8, minlength=8)
    assert values["code_histogram"].tolist() == [counts.tolist()]
    assert values["codebook_perplexity"] == pytest.approx(codebook.perplexity(counts))
    assert values["live_codes"] == np.count_nonzero(counts)
    assert values["latents"] == len(flat)


def test_hypotheses_stand_in_the_order_of_the_split(echo_data, copy_model):
    full = evaluator(echo_data, split="test")
    evaluation = full.evaluate_with_hypotheses(copy_model)
    assert evaluation.hypotheses == full.sources == echo_data[0].texts("test", echo_data[1])[0]


def test_traced_once_and_reads_the_weights_of_the_day(echo_data, copy_model):
    full = evaluator(echo_data)
    before = full.evaluate(copy_model, 0)
    copy_model.scale.assign(3.0)
    after = full.evaluate(copy_model, 1)
    assert copy_model.traces == 1
    assert after["nll"] == pytest.approx(3 * before["nll"])
    assert after["bleu"] == before["bleu"]


def test_another_model_is_another_model(echo_data, copy_model):
    full = evaluator(echo_data)
    before = full.evaluate(copy_model, 0)["nll"]
    other = type(copy_model)()
    other.scale.assign(2.0)
    assert full.evaluate(other, 0)["nll"] == pytest.approx(2 * before)


def test_a_bounded_set_is_spread_evenly_over_the_split(echo_data, copy_model):
    problem, data_dir = echo_data
    sources, _ = problem.texts("val", data_dir)
    few = evaluator(echo_data, max_examples=10)
    assert few.sources == [sources[i * 53 // 10] for i in range(10)]
    values = few.evaluate(copy_model, 0)
    chosen = np.concatenate(problem.vocabulary(data_dir).encode(few.references))
    assert values["nll"] == pytest.approx(chosen.mean())
    assert values["latents"] == len(chosen)
    assert values["reconstruction_bleu"] == pytest.approx(100.0)
    assert evaluator(echo_data, max_examples=0).sources == sources
    assert evaluator(echo_data, max_examples=999).sources == sources


def test_a_model_without_latents_has_no_reconstruction(echo_data, copy_model):
    class Plain:
        bottlenecks = {}
        __call__ = staticmethod(copy_model.__call__)
        infer = staticmethod(copy_model.infer)

    values = evaluator(echo_data).evaluate(Plain(), 0)
    assert not {"reconstruction_bleu", "code_histogram", "live_codes", "latents"} & values.keys()
    assert "reconstruction" not in values["samples"]
    assert values["bleu"] > 0
    assert values["nll"] > 0


def test_a_problem_with_another_measure_is_judged_by_it(echo_data, copy_model, monkeypatch):
    problem, data_dir = echo_data
    monkeypatch.setattr(problem, "main_metric", "exact", raising=False)
    same = lambda texts, references: {"exact": np.mean(np.equal(texts, references))}  # noqa: E731
    monkeypatch.setattr(problem, "score", same)
    judged = evaluator((problem, data_dir))
    values = judged.evaluate(copy_model, 0)
    assert judged.main_metric == "exact"
    assert 0 < values["exact"] < values["reconstruction_exact"] == 1
    assert "reconstruction_bleu" not in values


def test_long_targets_are_cut_not_dropped(echo_data, copy_model):
    values = evaluator(echo_data, boundaries=(4,)).evaluate(copy_model, 0)
    problem, data_dir = echo_data
    references = problem.texts("val", data_dir)[1]
    assert values["latents"] == sum(
        min(4, len(ids)) for ids in problem.vocabulary(data_dir).encode(references)
    )


def test_samples_are_a_markdown_table(echo_data, copy_model):
    samples = evaluator(echo_data).evaluate(copy_model, 0)["samples"]
    head, rule, *rows = samples.split("\n")
    assert head == "| source | reference | translation | reconstruction from true latents |"
    assert rule == "|---|---|---|---|"
    assert len(rows) == 8
    assert r"and \| more" in rows[0], "the first reference holds a bar"


def test_markdown_table_keeps_a_text_in_its_cell():
    assert markdown_table({"a": ["x|y\nz"], "b": [""]}, [0]) == "| a | b |\n|---|---|\n| x\\|y z |  |"


def test_unknown_split(echo_data):
    with pytest.raises(UserError, match=r'no split "tset" .*test'):
        evaluator(echo_data, split="tset")
