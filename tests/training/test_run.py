"""bin/trainer as its users run it: a user's own problem, a small latent_nat, signals, kill -9, another process."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.errors import UserError
from t2t_vqem.training import runs

ROOT = pathlib.Path(__file__).parents[2]

PROBLEM = '''
import random

from t2t_vqem import registry
from t2t_vqem.problems.translation import TranslationProblem


@registry.problems.register("count_ende")
class CountEnDe(TranslationProblem):
    """Numbers spelt out."""

    vocab_size = 60
    splits = ("train", "val")

    def samples(self, split):
        words = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf"}
        draw = random.Random(split)
        for _ in range(400 if split == "train" else 8):
            said = draw.choices(list(words), k=draw.randint(1, 6))
            yield " ".join(said), " ".join(words[word] for word in said)
'''

GIN = """
latent_nat.bottleneck = "soft_em"
latent_nat.dim = 16
latent_nat.filter_size = 16
latent_nat.heads = 2
latent_nat.encoder_layers = 1
latent_nat.predictor_layers = 1
latent_nat.decoder_layers = 1
latent_nat.num_codes = 8
latent_nat.num_compress_steps = 1
soft_em.num_samples = 2
codebook.warmup_steps = 2
train.boundaries = (12,)
train.batch_tokens = 96
train.steps_per_call = 2
train.train_steps = 16
train.eval_every = 100
train.save_every = 4
train.log_every = 2
train.warmup_steps = 4
"""


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    """A folder with the user's code, gin file and data."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "code").mkdir()
    (folder / "code" / "count.py").write_text(PROBLEM, encoding="utf-8")
    (folder / "small.gin").write_text(GIN)
    return folder


def start(user, model_dir, *more):
    command = [sys.executable, "-m", "t2t_vqem.cli.trainer", f"--model_dir={model_dir}", *more]
    if not model_dir.exists():
        command += [f"--usr_dir={user}/code", f"--data_dir={user}/data", f"--gin_file={user}/small.gin"]
        command += ["--problem=count_ende", "--model=latent_nat", "--seed=3"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, env=environment, text=True, cwd=user)


def finish(process, status=0):
    try:
        out, err = process.communicate(timeout=900)
    finally:
        process.kill()
    assert process.returncode == status, err[-3000:]
    return out, err


def wait_for(process, words):
    """Reads stderr up to the line that holds `words`."""
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            return
    raise AssertionError("".join(said)[-3000:])


def variables(model_dir):
    """Everything that training moves, by name, from the latest checkpoint."""
    path = tf.train.latest_checkpoint(str(model_dir))
    names = [name for name, _ in tf.train.list_variables(path) if name.endswith("VARIABLE_VALUE")]
    return {n: tf.train.load_variable(path, n) for n in names if not n.startswith("save_counter")}


@pytest.fixture(scope="module")
def whole(user):
    """The folder of a run that nothing interrupted, and what it said."""
    return user / "whole", finish(start(user, user / "whole"))


def test_it_reports_in_json_and_a_run_directory_is_enough(whole):
    model_dir, (out, err) = whole
    told = json.loads(out.splitlines()[-1])
    assert told["steps"] == 16
    assert "starting at step 0" in err
    assert {"bleu", "chrf", "reconstruction_bleu"} <= told["final"]["val"].keys()
    run = runs.open_run(str(model_dir))
    assert (run.step, run.metadata.seed, run.problem.name) == (16, 3, "count_ende")
    saved = variables(model_dir)["model/tokens/table/.ATTRIBUTES/VARIABLE_VALUE"]
    np.testing.assert_array_equal(run.model.tokens.table, saved)
    inputs = run.vocabulary.encode(["one two"])
    assert run.model.infer({"inputs": tf.constant(inputs)})["outputs"].shape[0] == 1


def test_terminated_and_killed_and_resumed_equals_the_uninterrupted_run(user, whole):
    model_dir = user / "parts"
    process = start(user, model_dir)
    wait_for(process, "step 6/16")  # no multiple of save_every
    process.send_signal(signal.SIGTERM)
    finish(process, 143)
    process = start(user, model_dir)
    wait_for(process, "data position restored")
    wait_for(process, "step 14/16")  # two steps after the checkpoint
    process.kill()
    finish(process, -signal.SIGKILL)
    _, err = finish(start(user, model_dir))
    resumed = next(line for line in err.splitlines() if "resumed at step" in line)
    assert "resumed at step 12, data position restored" in resumed
    left, right = variables(whole[0]), variables(model_dir)
    assert left.keys() == right.keys()
    assert any("/codebook/" in name for name in left)
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


def test_a_changed_configuration_is_refused_and_changes_nothing(user, whole):
    model_dir, _ = whole
    before = (model_dir / "config.gin").read_bytes()
    _, err = finish(start(user, model_dir, "--gin_param=latent_nat.dim = 8"), 2)
    assert "latent_nat.dim" in err.splitlines()[-1]
    assert "16" in err.splitlines()[-1]
    assert (model_dir / "config.gin").read_bytes() == before


def test_no_run_and_no_checkpoint_are_named(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in"):
        runs.open_run(str(tmp_path))
