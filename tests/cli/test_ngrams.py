"""bin/ngrams on runs of a user's own problem, and what decode.lm_weight says without it."""

import gzip
import json
import os
import shutil

import numpy as np
import pytest

from t2t_vqem import ngrams
from t2t_vqem.cli import evaluator
from t2t_vqem.cli import ngrams as command

WEIGHED = ("--gin_param=decode.lm_weight = 3.0", "--gin_param=decode.blank_penalty = 1.0", "--split=val")
SMALL = ("dim = 8", "filter_size = 8", "heads = 1", "encoder_layers = 1", "decoder_layers = 1")


@pytest.fixture
def run(copy_run, tmp_path):
    """A copy of `copy_run`, to write n-grams into."""
    return shutil.copytree(copy_run.model_dir, tmp_path / "run")


@pytest.fixture(scope="module")
def ctc_run(copy_run):
    """A run of nat_ctc, whose weights are those it starts with, on the texts of `copy_run`."""
    from t2t_vqem import config, registry
    from t2t_vqem.problems.vocabulary import Vocabulary
    from t2t_vqem.training import checkpoints, runs
    from t2t_vqem.training.train_config import TrainConfig

    bindings = [f"nat_ctc.{binding}" for binding in SMALL]
    config.parse([], [*bindings, "train.boundaries = (8, 24)", "train.batch_tokens = 64"])
    TrainConfig()
    vocabulary = Vocabulary.load(os.path.join(copy_run.model_dir, runs.VOCABULARY_FILE))
    model = registry.models.get("nat_ctc")(vocab_size=vocabulary.size)
    model.build_weights()
    model_dir = str(copy_run.root / "ctc")
    metadata = config.read_run(copy_run.model_dir)
    runs.write_run(model_dir, config.RunMetadata(**vars(metadata) | {"model": "nat_ctc"}), vocabulary)
    checkpoints.keep_best(model_dir, model, checkpoints.Best(42, "bleu", 1.0))
    return model_dir


def test_the_targets_that_the_run_learnt_from_are_counted(call, run, copy_run):
    done = call(command, f"--model_dir={run}")
    assert done.status == 0, done.err
    report = json.loads(done.out.splitlines()[-1])
    found = ngrams.NGrams.load(report["file"])
    assert report["file"] == str(run / "ngrams.npz")
    assert (report["sentences"], report["order"], report["ngrams"]) == (30, 4, len(found.keys))
    assert report["bytes"] == os.path.getsize(report["file"])
    from t2t_vqem.problems.vocabulary import Vocabulary

    nats, tokens = found.nats(Vocabulary.load(str(run / "vocabulary.model")).encode(copy_run.texts["val"][1]))
    assert report["split"] == "val"
    assert report["perplexity"] == pytest.approx(np.exp(nats / tokens), abs=0.01)
    again = call(command, f"--model_dir={run}", "--order=2", "--least=2")
    assert ngrams.NGrams.load(report["file"]).order == json.loads(again.out.splitlines()[-1])["order"] == 2


def test_the_lines_of_files_are_counted(call, run, tmp_path, caplog):
    (tmp_path / "a.txt").write_text("the old dogs\n\nsee a house\n", encoding="utf-8")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"the old dogs see\n"))
    files = [str(tmp_path / name) for name in ("a.txt", "b.txt.gz")]
    done = call(command, f"--model_dir={run}", "--data_dir=gone", *files, positional="[FILE ...]")
    assert done.status == 0, done.err
    report = json.loads(done.out.splitlines()[-1])
    assert report["sentences"] == 3
    assert "perplexity" not in report
    assert "no perplexity is told" in caplog.text


def test_lines_from_a_pipe_are_counted(call, run):
    reader, writer = os.pipe()
    os.write(writer, b"the old dogs\n\nsee a house\n")
    os.close(writer)
    flags = [f"--model_dir={run}", "--data_dir=gone", f"/dev/fd/{reader}"]
    done = call(command, *flags, positional="[FILE ...]")
    os.close(reader)
    assert done.status == 0, done.err
    assert json.loads(done.out.splitlines()[-1])["sentences"] == 2


def test_of_a_distilled_problem_what_its_teacher_read_is_counted(call, run):
    told = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(told | {"problem": "cli_echo_distill"}))
    assert json.loads(call(command, f"--model_dir={run}").out.splitlines()[-1])["sentences"] == 30
    named = call(command, f"--model_dir={run}", "--targets_of=cli_echo_distill")
    assert named.status == 2
    assert "cli_echo_distill" in named.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{root}/gone.txt"], "gone.txt cannot be read"),
        (["{root}/latin.txt"], "latin.txt, line 2: not UTF-8"),
        (["{root}/empty.txt"], "there is no text to count n-grams of"),
        (["{root}/latin.txt", "--targets_of=cli_echo"], "leave out one of them"),
        (["--targets_of=cli_ecko"], "cli_echo"),
        (["--targets_of=cifar10"], "--targets_of"),
        (["--order=5"], "--order"),
        (["--data_dir=gone"], "gone"),
    ],
)
def test_what_cannot_be_counted_is_one_sentence(call, run, tmp_path, arguments, words):
    (tmp_path / "latin.txt").write_bytes(b"good\n\xe4\n")
    (tmp_path / "empty.txt").write_bytes(b"\n\n")
    given = [argument.format(root=tmp_path) for argument in arguments]
    done = call(command, f"--model_dir={run}", *given, positional="[FILE ...]")
    assert done.status == 2
    assert words in done.err.splitlines()[-1]
    assert not (run / "ngrams.npz").exists()


def test_a_run_of_pictures_and_a_folder_that_cannot_be_written_are_refused(call, run):
    told = json.loads((run / "run.json").read_text())
    (run / "ngrams.npz").mkdir()
    done = call(command, f"--model_dir={run}")
    assert done.status == 2
    assert "ngrams.npz" in done.err.splitlines()[-1]
    (run / "run.json").write_text(json.dumps(told | {"problem": "cifar10", "model": "vqvae"}))
    done = call(command, f"--model_dir={run}")
    assert done.status == 2
    assert "bin/ngrams" in done.err.splitlines()[-1]


def test_ngrams_are_asked_for_used_and_those_of_another_vocabulary_refused(call, ctc_run):
    done = call(evaluator, f"--model_dir={ctc_run}", *WEIGHED)
    assert done.status == 2
    assert f"bin/ngrams --model_dir={ctc_run} counts them" in done.err.splitlines()[-1]

    assert call(command, f"--model_dir={ctc_run}").status == 0
    done = call(evaluator, f"--model_dir={ctc_run}", *WEIGHED)
    assert done.status == 0, done.err
    report = json.loads(done.out.splitlines()[-1])
    assert report["search"] == "blank_penalty=1.0, lm_weight=3.0"
    assert report["ngrams"] == ngrams.NGrams.load(os.path.join(ctc_run, "ngrams.npz")).digest
    plain = call(evaluator, f"--model_dir={ctc_run}", "--split=val")
    assert json.loads(plain.out.splitlines()[-1])["length_ratio"] != report["length_ratio"]

    path = os.path.join(ctc_run, "ngrams.npz")
    other = ngrams.NGrams.load(path)
    ngrams.NGrams(other.order, other.unigrams, other.keys, other.values, "another").save(path)
    done = call(evaluator, f"--model_dir={ctc_run}", *WEIGHED)
    assert done.status == 2
    assert "another vocabulary than the run's" in done.err.splitlines()[-1]
