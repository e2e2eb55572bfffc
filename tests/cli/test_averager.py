import json
import os
import shutil

import pytest

from t2t_vqem import config
from t2t_vqem.cli import averager, evaluator, trainer

SCALES = {10: 1.0, 20: 2.0, 30: 6.0}  # step -> what the checkpoint's nll is; the best, of step 42, has 2.5


@pytest.fixture(scope="module")
def run(copy_run):
    """A copy of `copy_run` with the checkpoints of SCALES beside the best."""
    import tensorflow as tf

    from t2t_vqem.training import checkpoints, runs

    model_dir = str(copy_run.root / "with_checkpoints")
    shutil.copytree(copy_run.model_dir, model_dir)
    model = runs.open_run(model_dir).model
    for step, scale in SCALES.items():
        model.scale.assign(scale)
        step_variable = tf.Variable(step, dtype=tf.int64)
        path = os.path.join(model_dir, f"ckpt-{step}")
        tf.train.Checkpoint(**checkpoints.state(model=model), step=step_variable).write(path)
    return model_dir


def read(path, *parts):
    with open(os.path.join(path, *parts), encoding="utf-8") as file:
        return json.load(file)


def test_the_average_is_a_run_evaluated_beside_the_raw_weights(call, run, tmp_path):
    output_dir = str(tmp_path / "new" / "averaged")
    done = call(averager, f"--model_dir={run}", f"--output_dir={output_dir}")
    assert done.status == 0, done.err
    report = json.loads(done.out.splitlines()[-1])
    assert report["steps"] == [10, 20, 30]
    told = {name: (report[name]["step"], report[name]["nll"]) for name in ("average", "newest", "best")}
    assert told == {"average": (30, pytest.approx(3.0)), "newest": (30, 6.0), "best": (42, 2.5)}
    assert any(line.split()[:4] == ["nll", "3.0000", "6.0000", "2.5000"] for line in done.out.splitlines())

    names = {"best", config.CONFIG_FILE, config.RUN_FILE, config.RESULTS_FILE, "vocabulary.model"}
    assert set(os.listdir(output_dir)) == names
    assert os.listdir(tmp_path / "new") == ["averaged"]
    assert read(output_dir, "best", "best.json")["weights"] == "average"
    made = read(output_dir, config.RUN_FILE)
    assert made["averaged"] == {"checkpoints": [os.path.join(run, f"ckpt-{step}") for step in SCALES]}
    results = read(output_dir, config.RESULTS_FILE)
    assert results["average"]["newest"] == report["newest"]
    assert results["eval/val"]["bleu"] == report["average"]["bleu"]
    assert results["eval/val"]["search"] == ""

    done = call(evaluator, f"--model_dir={output_dir}")
    again = json.loads(done.out.splitlines()[-1])
    assert (again["step"], again["nll"]) == (30, report["average"]["nll"])
    done = call(trainer, f"--model_dir={output_dir}", "--train_steps=100")
    assert done.status == 2
    assert "averaged weights" in done.err.splitlines()[-1]
    assert set(os.listdir(output_dir)) == names


@pytest.mark.parametrize(
    ("flags", "nll"),
    [
        (["--model_dir={run}", "--last=2"], 4.0),
        (["--model_dir={run}", "--steps=30,10"], 3.5),
        (["{run}/ckpt-20", "{run}/best/ckpt-42.index"], 2.25),
    ],
)
def test_checkpoints_are_chosen_by_number_step_or_path_and_need_no_data(
    call, run, tmp_path, caplog, flags, nll
):
    from t2t_vqem.training import runs

    (tmp_path / "out").mkdir()  # an empty folder is as good as none
    flags = [flag.format(run=run) for flag in flags]
    flags += ["--data_dir=/nowhere", f"--output_dir={tmp_path / 'out'}"]
    done = call(averager, *flags, positional="[CHECKPOINT ...]")
    assert done.status == 0, done.err
    (warning,) = [message for message in caplog.messages if "nothing is evaluated" in message]
    assert "/nowhere" in warning
    assert json.loads(done.out).keys() == {"problem", "model", "output_dir", "steps"}
    assert float(runs.open_run(str(tmp_path / "out")).model.scale) == nll


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--model_dir is missing"),
        (["--model_dir=/nowhere"], '"/nowhere" holds no run'),
        (
            ["--model_dir={run}", "--last=4"],
            "holds 3 checkpoint(s) beside the best, and 4 are to be averaged",
        ),
        (["--model_dir={run}", "--last=1"], "last"),
        (["--model_dir={run}", "--last=2", "--steps=10,20"], "give one of them"),
        (["--model_dir={run}", "--steps=10"], "at least two"),
        (["--model_dir={run}", "--steps="], "--steps names no step"),
        (["--model_dir={run}", "--steps=10,99"], "no checkpoint of step 99"),
        (["--model_dir={run}", "--steps=10,10"], "given twice"),
        (["--model_dir={run}", "{run}/ckpt-10"], "leave out --model_dir"),
        (["{run}/ckpt-10", "{run}/ckpt-77"], 'ckpt-77"'),
        (["{run}/ckpt-10", "{other}/ckpt-20"], "different runs: seed is 0 in the first and 1 in the second"),
        (["--model_dir={run}", "--output_dir={run}"], "exists and is no empty folder"),
        (["--model_dir={run}", "--output_dir={run}/run.json/x"], "cannot write"),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(call, run, tmp_path, flags, words):
    other = tmp_path / "other"
    if any("{other}" in flag for flag in flags):
        shutil.copytree(run, other)
        changed = read(run, config.RUN_FILE) | {"seed": 1}
        (other / config.RUN_FILE).write_text(json.dumps(changed))
    before = sorted(os.listdir(run))
    flags = [f"--output_dir={tmp_path / 'out'}", *(flag.format(run=run, other=other) for flag in flags)]
    done = call(averager, *flags, positional="[CHECKPOINT ...]")
    assert (done.status, done.out) == (2, "")
    assert words in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()
    assert sorted(os.listdir(run)) == before


def test_what_cannot_be_evaluated_is_not_made(call, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    for path in (tmp_path / "run" / "best").glob("ckpt-*"):
        path.unlink()
    done = call(averager, f"--model_dir={tmp_path / 'run'}", "--last=2", f"--output_dir={tmp_path / 'out'}")
    assert done.status == 2
    assert "the best checkpoint, is missing" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        (config.RUN_FILE, '"vocabulary_hash": "', '"vocabulary_hash": "0', "vocabulary_hash"),
        (config.RUN_FILE, '"created": "', '"created": "1', "created"),
        (config.CONFIG_FILE, "", "cli_copy.width = 3\n", "cli_copy.width is 2 in the first and 3"),
        (config.CONFIG_FILE, "", "train.train_steps = 7\n", None),
    ],
)
def test_copies_are_one_run_and_other_runs_are_not(call, run, tmp_path, file, old, new, words):
    from t2t_vqem.errors import UserError

    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        for name in (config.RUN_FILE, config.CONFIG_FILE):
            shutil.copy(os.path.join(run, name), folder)
        with open(folder / config.CONFIG_FILE, "a", encoding="utf-8") as gin_file:
            gin_file.write("cli_copy.width = 2\n" if "width" in new else "")
    config.require_one_run([str(one), str(other)])
    text = (other / file).read_text()
    text = text.replace(old, new) if old else text.replace("cli_copy.width = 2\n", "") + new
    (other / file).write_text(text)
    if words is None:
        config.require_one_run([str(one), str(other)])
    else:
        with pytest.raises(UserError, match=words):
            config.require_one_run([str(one), str(other)])
