import json
import os
import shutil

import pytest
import sacrebleu
import tensorflow as tf

from t2t_vqem import config
from t2t_vqem.cli import evaluator
from t2t_vqem.errors import UserError
from t2t_vqem.evaluation import latency
from t2t_vqem.training import runs


def results(run):
    with open(os.path.join(run.model_dir, config.RESULTS_FILE), encoding="utf-8") as file:
        return json.load(file)


def test_model_dir_alone_is_enough(call, copy_run):
    done = call(evaluator, f"--model_dir={copy_run.model_dir}")
    assert done.status == 0
    *table, last = done.out.splitlines()
    report = json.loads(last)
    sources, references = copy_run.texts["val"]
    assert report["bleu"] == pytest.approx(sacrebleu.corpus_bleu(sources, [references]).score)
    assert report["reconstruction_bleu"] == pytest.approx(100.0)
    assert report["nll"] == pytest.approx(2.5)
    assert (report["problem"], report["split"], report["step"]) == ("cli_echo", "val", 42)
    assert "tok:13a" in report["bleu_signature"]
    assert report["chrf"] > 0
    assert "samples" not in report
    assert any(line.split()[:1] == ["bleu"] for line in table)
    assert table.count("|---|---|---|---|") == 1
    saved = results(copy_run)["eval/val"]
    assert saved == {k: v for k, v in report.items() if k in saved}
    assert {"step", "checkpoint", "bleu", "bleu_signature", "live_codes"} <= saved.keys()


def test_several_splits_and_latency(call, copy_run):
    done = call(evaluator, f"--model_dir={copy_run.model_dir}", "--split=test,val", "--latency")
    assert done.status == 0
    first, second = (json.loads(line) for line in done.out.splitlines()[-2:])
    assert (first["split"], second["split"]) == ("test", "val")
    assert first["sentences"] == 40
    assert "latency_p50_ms" not in first
    assert 0 < second["latency_p50_ms"] <= second["latency_p95_ms"]
    saved = results(copy_run)["latency"]
    assert saved == {k: v for k, v in second.items() if k in saved}
    assert saved["machine"]["cores"] >= 1
    assert {"eval/test", "eval/val"} <= results(copy_run).keys()


def test_hypotheses(call, copy_run, tmp_path):
    flags = [f"--model_dir={copy_run.model_dir}", f"--hypotheses={tmp_path / 'out'}"]
    assert call(evaluator, *flags, "--split=test").status == 0
    assert (tmp_path / "out").read_text().split("\n")[:-1] == copy_run.texts["test"][0]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--split=tset"], 'no split "tset" (did you mean test?)'),
        (["--split=val,"], 'no split ""'),
        (["--split=val,test", "--hypotheses=x"], "--hypotheses is one file"),
        (["--checkpoint=7"], "no checkpoint of step 7"),
        (["--checkpoint=bset"], "bset"),
        (["--data_dir=/nowhere"], "/nowhere"),
        (["--spilt=val"], "did you mean split"),
        (["--prior_model_dir=x"], "--prior_model_dir works on"),
        (["--gin_param=decode.beam_size = 3"], "no use for the setting decode.beam_size"),
    ],
)
def test_bad_input_is_one_line_and_status_2(call, copy_run, flags, words):
    done = call(evaluator, f"--model_dir={copy_run.model_dir}", *flags)
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert words in line


def test_results_that_cannot_take_the_figures_are_found_before_the_work(call, copy_run, tmp_path):
    shutil.copytree(copy_run.model_dir, tmp_path / "run")
    (tmp_path / "run" / "results.json").write_text("[]")
    done = call(evaluator, f"--model_dir={tmp_path / 'run'}")
    assert (done.status, done.out) == (2, "")
    assert "results.json is damaged (a list, not an object)" in done.err


def compare(call, *arguments):
    return call(evaluator, "--compare", *arguments, positional="RUN")


def test_compare(call, copy_run, tmp_path):
    done = compare(
        call,
        f"one={copy_run.model_dir}",
        f"two={copy_run.model_dir},train.boundaries=(24, 32)",
        "--split=test",
        "--latency_sentences=3",
        f"--output={tmp_path}/",
    )
    assert done.status == 0, done.err
    *table, last = done.out.splitlines()
    report = json.loads(last)
    sources, references = copy_run.texts["test"]
    bleu = sacrebleu.corpus_bleu(sources, [references])
    for row, name in zip(report["runs"], ("one", "two"), strict=True):
        assert (row["name"], row["step"], row["checkpoint"]) == (name, 42, "best")
        assert (row["bleu"], row["bleu_brevity_penalty"]) == pytest.approx((bleu.score, bleu.bp))
        assert 0 < row["latency_p50_ms"] <= row["latency_p95_ms"]
        assert row["latency_sentences"] == 3
    assert report["runs"][1]["bindings"] == ["train.boundaries = (24, 32)"]
    assert report["split"] == "test"
    assert table[2].startswith("| one ")
    assert (tmp_path / "compare_test.md").read_text().splitlines() == table
    assert json.loads((tmp_path / "compare_test.json").read_text()) == report
    assert (tmp_path / "compare_test.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 3


def test_compare_says_which_run_failed(call, copy_run, tmp_path, monkeypatch):
    def fails(self, sentences, name):
        raise tf.errors.ResourceExhaustedError(None, None, "no memory")

    monkeypatch.setattr(latency.System, "prepare", fails)
    done = compare(call, f"bad={copy_run.model_dir}", f"--output={tmp_path / 'out'}")
    assert done.status == 2
    assert done.err.splitlines()[-1].endswith("have no figures: bad; the table says why")
    assert json.loads(done.out.splitlines()[-1])["runs"][0]["error"] == "no memory"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.md"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no runs to compare"),
        (["/nowhere/run"], '"run": "/nowhere/run" holds no run'),
        (["{run}", "{run}"], 'two runs are called "model"'),
        (["{run},checkpoint=7"], "no checkpoint of step 7"),
        (["{run},beam_size=7"], 'no setting "beam_size"'),
        (["{run},decode.baem_size=7"], "did you mean beam_size"),
        (["{run},decode.beam_size=7"], "no use for the setting decode.beam_size"),
        (["{run},rerank=,decode.beam_size=7"], "rerank has no value"),
        (["{run},decode.beam_size=7,decode.beam_size=8"], "gives decode.beam_size twice"),
        (["{run},checkpoint=best,checkpoint=latest"], "gives checkpoint twice"),
        (
            ["{run}", "--gin_param=decode.seed = 7"],
            "none of the runs has a use for --gin_param='decode.seed = 7'",
        ),
        (["{run}", "--split=tset"], 'no split "tset" (did you mean test?)'),
        (["{run}", "--data_dir=/nowhere"], "/nowhere"),
        (["{run}", "--latency"], "--latency goes without --compare alone"),
        (["{run}", "--model_dir=x"], "--model_dir goes without --compare alone"),
        (["{run}", "--output=/dev/null/x"], "cannot write"),
        (["{run}", "--latency_sentences=0"], "latency_sentences"),
    ],
)
def test_bad_comparisons_are_one_line_and_status_2(call, copy_run, arguments, words):
    done = compare(call, *(argument.format(run=copy_run.model_dir) for argument in arguments))
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["x"], 'unexpected argument "x"'), (["--output=x"], "--output goes with --compare")],
)
def test_what_only_a_comparison_takes(call, copy_run, arguments, words):
    done = call(evaluator, f"--model_dir={copy_run.model_dir}", *arguments, positional="RUN")
    assert (done.status, done.out) == (2, "")
    assert words in done.err


def test_a_run_whose_code_lies_elsewhere_now(copy_run, tmp_path):
    model_dir = str(tmp_path / "moved")
    shutil.copytree(copy_run.model_dir, model_dir)
    path = os.path.join(model_dir, config.RUN_FILE)
    with open(path, encoding="utf-8") as file:
        metadata = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(metadata | {"usr_dir": "/gone"}, file)
    with pytest.raises(UserError, match="/gone"):
        runs.open_run(model_dir)
    assert runs.open_run(model_dir, usr_dir=str(copy_run.root / "usr")).step == 42
