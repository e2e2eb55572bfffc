import json
import os

import pytest
import sacrebleu

from t2t_vqem import config
from t2t_vqem.cli import evaluator


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
    assert results(copy_run)["latency"]["latency_p50_ms"] == second["latency_p50_ms"]
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
    ],
)
def test_bad_input_is_one_line_and_status_2(call, copy_run, flags, words):
    done = call(evaluator, f"--model_dir={copy_run.model_dir}", *flags)
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert words in line
