import json
import os
import shutil

import pytest
import tensorflow as tf

from t2t_vqem import config
from t2t_vqem.cli import codebook, evaluator
from t2t_vqem.training import checkpoints, runs


@pytest.fixture(scope="module")
def run(copy_run):
    """A copy of `copy_run` with another checkpoint beside the best."""
    model_dir = str(copy_run.root / "with_codebook")
    shutil.copytree(copy_run.model_dir, model_dir)
    model = runs.open_run(model_dir).model
    means = model.bottlenecks["latents"].codebook.means
    means.assign(tf.ones(means.shape))
    tree = checkpoints.state(model=model)
    tf.train.Checkpoint(**tree, step=tf.Variable(50, dtype=tf.int64)).write(
        os.path.join(model_dir, "ckpt-50")
    )
    return model_dir


def not_json(word):
    raise AssertionError(f"{word} is not JSON")


def test_a_report_in_every_form(call, run, copy_run):
    done = call(codebook, f"--model_dir={run}")
    assert done.status == 0, done.err
    *table, last = done.out.splitlines()
    figures = json.loads(last, parse_constant=not_json)
    assert (figures["problem"], figures["split"], figures["step"]) == ("cli_echo", "val", 42)
    assert any(line.split()[:1] == ["live_codes"] for line in table)
    assert figures["movement"] == pytest.approx(1.0)  # from 0 to where all codes lie, in norms of a code
    assert 0 <= figures["split_half_tv"] <= 1

    scores = json.loads(call(evaluator, f"--model_dir={run}").out.splitlines()[-1])
    for name in ("codebook_perplexity", "perplexity_per_code", "live_codes", "latents"):
        assert figures[name] == scores[name], "one figure, one value, whoever tells it"

    folder = os.path.join(run, "codebook")
    assert sorted(os.listdir(folder)) == ["codebook.html", "codebook.json", "projector"]
    assert len(os.listdir(os.path.join(folder, "projector"))) == 3
    with open(os.path.join(folder, "codebook.json"), encoding="utf-8") as file:
        report = json.load(file, parse_constant=not_json)
    (slot,) = report["slots"]
    assert sum(slot["counts"]) == sum(map(sum, slot["half_counts"])) == figures["latents"]
    assert [code["count"] for code in slot["codes"]] == sorted(filter(None, slot["counts"]), reverse=True)
    assert all(code["windows"][0]["text"] for code in slot["codes"])
    assert report["swaps"] is None, "this model cannot decode codes"
    with open(os.path.join(folder, "codebook.html"), encoding="utf-8") as file:
        assert "Codebook of cli_copy on cli_echo" in file.read()
    with open(os.path.join(run, config.RESULTS_FILE), encoding="utf-8") as file:
        saved = json.load(file)["codebook/val"]
    assert saved == {name: figures[name] for name in saved}
    assert {"live_codes", "movement", "step", "checkpoint"} <= saved.keys()


def test_another_split_and_folder(call, copy_run, tmp_path):
    done = call(
        codebook, f"--model_dir={copy_run.model_dir}", "--split=test", f"--output={tmp_path / 'a' / 'b'}"
    )
    assert done.status == 0, done.err
    figures = json.loads(done.out.splitlines()[-1])
    assert (figures["split"], figures["examples"]) == ("test", 40)
    assert "movement" not in figures, "the best checkpoint is alone"
    assert sorted(os.listdir(tmp_path / "a" / "b")) == ["codebook.html", "codebook.json", "projector"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--split=tset"], 'no split "tset" (did you mean test?)'),
        (["--checkpoint=7"], "no checkpoint of step 7"),
        (["--data_dir=/nowhere"], "/nowhere"),
        (["--output=/dev/null/x"], "cannot write"),
        (["--outptu=x"], "did you mean output"),
        (["x"], 'unexpected argument "x"'),
    ],
)
def test_bad_input_is_one_line_and_status_2(call, copy_run, flags, words):
    done = call(codebook, f"--model_dir={copy_run.model_dir}", *flags)
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert words in line


def test_a_model_without_a_codebook(call, copy_run, monkeypatch):
    opened = runs.open_run

    def without(*arguments):
        run = opened(*arguments)
        run.model.bottlenecks = {}
        return run

    monkeypatch.setattr(runs, "open_run", without)
    done = call(codebook, f"--model_dir={copy_run.model_dir}")
    assert (done.status, done.out) == (2, "")
    assert "cli_copy, a model without a codebook" in done.err.splitlines()[-1]
    assert not os.path.exists(os.path.join(copy_run.model_dir, "codebook"))
