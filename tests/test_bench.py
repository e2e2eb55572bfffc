"""What the scripts in bench/ say of runs; the runs themselves are too long for a test."""

import json
import sys

import pytest

from bench import bottleneck, larger, levers, rescored, results, runs, table1, tables
from bench.rows import Table
from t2t_vqem import search


@pytest.mark.parametrize("page", results.PAGES, ids=lambda page: page.name)
def test_the_tables_of_a_page_are_those_of_the_rows(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- end -->") > 1
    assert results.rewrite(text) == text, "bin/_run bench.results makes them anew"


@pytest.mark.parametrize(("found", "made"), [(None, True), (500, True), (2000, False)])
def test_a_run_is_made_until_it_has_ended(tmp_path, monkeypatch, found, made):
    calls = []
    monkeypatch.setattr(runs, "command", lambda *words, **flags: calls.append((words, flags)))
    if found:
        train = {"steps": found, "train_config": {"train_steps": 2000}}
        (tmp_path / "results.json").write_text(json.dumps({"train": train, "eval/test (prior p@7)": {}}))
    runs.train(tmp_path, {"vqvae.bottleneck": "fsq"}, problem="cifar10", seed=3)
    binding = "--gin_param=vqvae.bottleneck = 'fsq'"
    assert calls == [(("trainer", binding), {"model_dir": tmp_path, "problem": "cifar10", "seed": 3})] * made
    assert runs.evaluated(tmp_path, "test (prior*") == bool(found)


def test_an_evaluation_is_not_taken_for_another_whose_name_goes_on(tmp_path):
    found = {"eval/test (beam_size=10, reranked by transformer_0)": {}}
    (tmp_path / "results.json").write_text(json.dumps(found))
    assert runs.evaluated(tmp_path, "test (beam_size=10, reranked by transformer_0)")
    assert not runs.evaluated(tmp_path, "test (beam_size=10)")
    assert not runs.evaluated(tmp_path, "test")


def test_discretisations_are_compared_over_their_seeds():
    def row(name, total, codes=256):
        signature = f"upper bound|dims:3072|codes:640|K:{codes}|prior:latent_prior@9"
        bits = {"reconstruction_bits_per_dim": 4.0, "prior_bits_per_dim": total - 4.0, "bits_per_dim": total}
        figures = bits | {
            "psnr": 25.0,
            "codebook_perplexity": 200.0,
            "live_codes": 250.0,
            "effective_codes": 1.5,
        }
        figures["bits_per_dim_signature"] = signature
        machine = {"cpu": "a CPU", "cores": 1}
        of_run = {"steps": 9, "seconds": 120.0, "command": "bin/trainer", "machine": machine}
        stale = figures | {"bits_per_dim": 9.0}
        return of_run | {
            "name": name, "prior": of_run,
            "evaluations": {"val": figures, "test (prior latent_prior@4, p)": stale,
                            "test (prior latent_prior@9, p)": figures},
        }  # fmt: skip

    rows = [row("soft EM; seed 0", 5.0), row("soft EM; seed 1", 5.2), row("hard EM; seed 0", 5.5, codes=240)]
    head, _, soft, hard, *told = tables.cifar10_table(rows).splitlines()
    soft, hard = (dict(zip(head.split(" | "), line.split(" | "), strict=True)) for line in (soft, hard))
    assert (soft["seeds"], soft["K"], soft["total"]) == ("2", "256", "5.100 (5.000 to 5.200)")
    assert (hard["K"], hard["total"], hard["effective codes"]) == ("240", "5.500", "–")
    assert soft["effective codes"] == "1.50"
    assert any("one core" in line for line in told)


def test_rows_of_the_papers_table_are_means_over_their_seeds():
    def row(name, of_val, **searched):
        told = {"bleu_signature": "nrefs:1", "latent_accuracy": 0.25, "effective_codes": 1.5}
        found = {"val": told | {"bleu": of_val}} | {key: told | {"bleu": v} for key, v in searched.items()}
        machine = {"cpu": "a CPU", "cores": 1}
        of_run = {"steps": 9, "seconds": 120.0, "command": "bin/trainer", "machine": machine}
        return of_run | {"name": name, "evaluations": found}

    rows = [
        row("nat, hard EM, distilled; seed 0", 20.0, **{"val (beam_size=10)": 22.0, "test": 19.0}),
        row("nat, hard EM, distilled; seed 1", 21.0),
        row("soft EM; seed 0", 23.0),
    ]
    head, _, *lines = tables.table1(rows).splitlines()
    greedy, beam, soft = (
        dict(zip(head.strip("| ").split(" | "), line.strip("| ").split(" | "), strict=True))
        for line in lines[:3]
    )
    assert (greedy["search"], greedy["seeds"], greedy["val"]) == ("greedy", "2", "20.50 (20.00 to 21.00)")
    assert (beam["search"], beam["seeds"], beam["val"], beam["test"]) == ("beam_size=10", "1", "22.00", "–")
    assert (soft["val"], soft["test"], soft["latent accuracy, val"]) == ("23.00", "–", "0.250")
    assert (greedy["effective codes, val"], soft["effective codes, val"]) == ("–", "1.50")


def test_what_writes_blanks_is_shown_with_the_penalty_that_the_first_split_prefers():
    def row(name, **found):
        figures = {split: {"bleu": bleu, "chrf": 2 * bleu} for split, bleu in found.items()}
        return {"name": name, "evaluations": figures}

    rows = [
        row("transformer; seed 0", val=27.0, test=28.0),
        row("nat, distilled; seed 0", val=17.0, test=19.0),
        row(
            "nat_ctc, distilled; seed 0",
            **{"val": 25.0, "test": 26.0, "val (blank_penalty=0.5)": 26.0, "test (blank_penalty=0.5)": 27.0}
            | {"val (blank_penalty=1.0)": 25.5, "test (blank_penalty=1.0)": 29.0}
            | {"val (beam_size=10)": 26.5, "val (beam_size=10, blank_penalty=0.5)": 26.0},
        ),
        row("nat_ctc, distilled; seed 1", **{"val": 25.0, "val (blank_penalty=0.5)": 27.0}),
    ]
    _, _, *lines = tables.penalties(rows).splitlines()
    assert lines == [
        "| transformer | greedy | – | 1 | 27.00 | 28.00 | 54.0, 56.0 |",
        "| nat_ctc, distilled | greedy | 0.5 | 2 | 26.50 | 27.00 | 53.0, 54.0 |",
        "| nat_ctc, distilled | beam_size=10 | 0 | 1 | 26.50 | – | 53.0, – |",
    ]


def test_the_summary_leaves_the_searches_of_what_writes_blanks_to_their_own_table():
    def row(name, *searches):
        told = {"bleu_signature": "nrefs:1", "bleu": 20.0}
        machine = {"cpu": "a CPU", "cores": 1}
        of_run = {"steps": 9, "seconds": 120.0, "command": "bin/trainer", "machine": machine}
        return of_run | {"name": name, "evaluations": {"val": told} | {f"val ({s})": told for s in searches}}

    rows = [
        row("latent_nat; seed 0", "beam_size=10", "beam_size=10, reranked by transformer_0"),
        row("latent_nat, CTC; seed 0", "beam_size=10", "beam_size=10, blank_penalty=0.5"),
    ]
    shown = [tuple(line.strip("| ").split(" | ")[:2]) for line in tables.summary(rows).splitlines()[2:6]]
    assert shown == [
        ("latent_nat", "greedy"),
        ("latent_nat", "beam_size=10"),
        ("latent_nat", "beam_size=10, reranked by transformer_0"),
        ("latent_nat, CTC", "greedy"),
    ]


def test_a_row_that_the_papers_table_misses_is_named():
    with pytest.raises(ValueError, match="no row 'transformer' was searched with beam_size=4"):
        tables.paper([])


def test_a_run_of_the_papers_table_is_searched_once_for_each_of_its_searches(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(runs, "command", lambda name, *words, **flags: calls.append((name, words, flags)))
    table = Table(table1.ROWS, "multi30k_ende", ("val", "test_2017_flickr"), tmp_path, "data")
    name = "nat, distilled"
    (tmp_path / "nat_distilled_0").mkdir()
    (tmp_path / "transformer_0").mkdir()
    done = {"train": {"steps": 1500, "train_config": {"train_steps": 1500}}, "eval/test_2017_flickr": {}}
    for folder in ("nat_distilled_0", "transformer_0"):
        (tmp_path / folder / "results.json").write_text(json.dumps(done))
    assert table.search(name, 0) == table.train(name, 0) == tmp_path / "nat_distilled_0"
    [(command, words, flags)] = calls
    assert (command, words) == ("evaluator", ("--gin_param=decode.num_candidates = 10",))
    assert flags["rerank_model_dir"] == tmp_path / "transformer_0"
    searched = "eval/test_2017_flickr (num_candidates=10, reranked by transformer_0)"
    (tmp_path / "nat_distilled_0" / "results.json").write_text(json.dumps(done | {searched: {}}))
    table.search(name, 0)
    assert len(calls) == 1


def test_the_papers_table_makes_the_translations_that_its_rows_learn_from(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(runs, "command", lambda name, *words, **flags: calls.append((name, words, flags)))
    monkeypatch.setattr(results, "row", lambda name, run: {"name": name})
    table = Table(table1.ROWS, "multi30k_ende", ("val",), tmp_path, "data")
    table.make(["nat_ctc, distilled"], (0,), tmp_path / "rows.json")
    teacher, student = tmp_path / "transformer_0", tmp_path / "nat_ctc_distilled_0"
    # Nothing of it is ever there, for no command does anything.
    made = [("trainer", teacher), ("evaluator", teacher)]
    learnt = [("trainer", student), ("evaluator", student), ("ngrams", student)]
    for searched in table1.ROWS["nat_ctc, distilled"].searches:
        learnt += [*(made if searched.reranked else []), ("evaluator", student)]
    assert [(name, flags["model_dir"]) for name, _, flags in calls] == [
        *made,
        ("distiller", teacher),
        *learnt,
    ]
    beam = "--gin_param=decode.beam_size = 4"
    assert calls[2] == ("distiller", (beam,), {"model_dir": teacher, "data_dir": "data"})


def test_a_row_made_anew_keeps_its_place(tmp_path):
    path = tmp_path / "rows.json"
    for name, step in (("a", 1), ("b", 1), ("a", 2)):
        results.add(path, {"name": name, "step": step})
    assert json.loads(path.read_text()) == [{"name": "a", "step": 2}, {"name": "b", "step": 1}]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells the peak through /proc on Linux alone")
def test_a_bottlenecks_step_holds_its_output_its_gradient_and_little_else(monkeypatch):
    """Each of the two is half a matrix; docs/results.md has what was measured on a quiet machine."""
    monkeypatch.setenv("PYTHONPATH", str(results.DOCS.parent))  # as bin/_run does
    worker = bottleneck.Worker(sys.executable, "t2t_vqem", 1024, 10, "bytes")
    try:
        peak = max(worker.step() for _ in range(2))
    finally:
        worker.close()
    assert 1.0 < peak / (4 * bottleneck.POSITIONS * 1024) < 1.3


def test_candidates_are_ranked_by_what_n_grams_add_a_token():
    found = [[(-4.0, -9.0, 4, "likely"), (-3.0, -3.0, 2, "fluent"), (-10.5, -14.0, 7, "long")], []]
    assert rescored.ranked(found, 0.0) == ["likely", ""]
    assert rescored.ranked(found, 1.0) == ["fluent", ""]
    scores = {"bleu": 1.0, "bleu_signature": "tok:13a"}
    rows = [{"split": s, "weight": w, **scores} for s in ("val", "test") for w in (0.0, 0.5)]
    _, _, *lines = tables.rescored_table({"rows": rows, "step": 7, "command": "bin/trainer"}).splitlines()
    assert lines[:2] == ["| 0.0 | 1.00 | 1.00 |", "| 0.5 | 1.00 | 1.00 |"]
    assert "tok:13a" in lines[3]


@pytest.mark.parametrize(
    "rows", [table1.ROWS, larger.ROWS, levers.LEVERS], ids=["table1", "larger", "levers"]
)
def test_searches_are_called_as_the_evaluator_calls_them(rows):
    """Else they would be made again each time."""
    for row in rows.values():
        for searched in row.searches:
            assert searched.name == str(search.Settings(**searched.bindings))
