"""A teacher that copies its source: what it makes of a training set is known."""

import json
import os
import pathlib
import shutil

import pytest

from t2t_vqem import registry
from t2t_vqem.cli import distiller
from t2t_vqem.errors import UserError
from t2t_vqem.problems import distilled


@pytest.fixture
def data_dir(copy_run, tmp_path, monkeypatch):
    monkeypatch.setattr(distilled, "PART_LINES", 8)  # 30 lines: four parts
    shutil.copytree(os.path.join(copy_run.data_dir, "cli_echo"), tmp_path / "data" / "cli_echo")
    return str(tmp_path / "data")


@pytest.fixture
def distil(call, copy_run, data_dir):
    return lambda *flags: call(
        distiller, f"--model_dir={copy_run.model_dir}", f"--data_dir={data_dir}", *flags
    )


def contents(data_dir, kind):
    folder = pathlib.Path(data_dir, "cli_echo_distill" + kind)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_distilled_problem_pairs_each_source_with_its_translation(distil, data_dir):
    done = distil()
    assert done.status == 0, done.err
    report = json.loads(done.out.splitlines()[-1])
    problem, base = (registry.problems.get(name)() for name in ("cli_echo_distill", "cli_echo"))
    sources, targets = problem.texts("train", data_dir)
    assert sources == targets  # the teacher copies
    assert sorted(sources) == sorted(base.texts("train", data_dir)[0])
    for split in ("val", "test"):
        assert problem.texts(split, data_dir) == base.texts(split, data_dir)
    assert problem.vocabulary(data_dir).hash == base.vocabulary(data_dir).hash
    teacher = problem.manifest(data_dir)["teacher"]
    assert report["bleu"] == teacher["val"]["bleu"] > 10
    assert teacher["val"]["bleu_signature"].startswith("nrefs:1")
    assert teacher["step"] == 42
    assert teacher["decode"]["beam_size"] == 1
    assert report["examples"] == 30


def test_shards_and_interrupted_runs_end_in_the_same_bytes(distil, data_dir, monkeypatch):
    assert distil().status == 0
    whole, made = contents(data_dir, ".outputs"), contents(data_dir, "")
    for kind in ("", ".outputs"):
        shutil.rmtree(os.path.join(data_dir, "cli_echo_distill" + kind))

    first = json.loads(distil("--shard=1/2").out.splitlines()[-1])
    assert first["parts_missing"] == 2
    assert not os.path.exists(os.path.join(data_dir, "cli_echo_distill"))
    write = distilled.Outputs.write

    def killed(self, part, *arguments):
        if part == 2:
            raise KeyboardInterrupt
        write(self, part, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(distilled.Outputs, "write", killed)
        assert distil("--shard=0/2").status == 130
    assert "part-00000.json" in contents(data_dir, ".outputs")
    last = json.loads(distil("--shard=0/2").out.splitlines()[-1])
    assert last["parts_missing"] == 0
    assert contents(data_dir, ".outputs") == whole
    assert contents(data_dir, "") == made
    assert json.loads(distil().out.splitlines()[-1]) == last  # nothing to do, the same report


def test_a_part_that_was_left_half_written_is_made_anew(distil, data_dir):
    """As kill -9 leaves it: a temporary file, and nothing under the part's name."""
    distil("--shard=0/2")
    folder = pathlib.Path(data_dir, "cli_echo_distill.outputs")
    whole = (folder / "part-00002.json").read_bytes()
    (folder / "part-00002.json").rename(folder / ".part-00002.json.x1")
    assert distil("--shard=0/2").status == 0
    assert (folder / "part-00002.json").read_bytes() == whole
    assert not list(folder.glob(".*"))


def test_a_teacher_that_is_trained_meanwhile_is_noticed(
    call, distil, copy_run, data_dir, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    shutil.copytree(copy_run.model_dir, run)
    flags = [f"--model_dir={run}", f"--data_dir={data_dir}", "--shard=0/2"]
    assert call(distiller, *flags).status == 0
    weights = next((run / "best").glob("ckpt-42.data*"))
    weights.write_bytes(weights.read_bytes() + b"more")
    done = call(distiller, *flags)
    assert done.status == 2
    assert "outputs of another checkpoint" in done.err

    from t2t_vqem.training import runs

    open_run = runs.open_run

    def trained_on(*arguments):
        weights.write_bytes(weights.read_bytes() + b"more")
        return open_run(*arguments)

    monkeypatch.setattr(runs, "open_run", trained_on)
    assert "changed while it was read" in call(distiller, *flags).err


def test_a_teacher_that_is_trained_on_while_it_translates_is_noticed(
    call, copy_run, data_dir, tmp_path, monkeypatch, caplog
):
    run = tmp_path / "run"
    shutil.copytree(copy_run.model_dir, run)
    write = distilled.Outputs.write

    def trained_on(self, part, *arguments):
        write(self, part, *arguments)
        weights = next((run / "best").glob("ckpt-42.data*"))
        weights.write_bytes(weights.read_bytes() + b"more")

    monkeypatch.setattr(distilled.Outputs, "write", trained_on)
    assert call(distiller, f"--model_dir={run}", f"--data_dir={data_dir}").status == 0
    assert "the teacher's checkpoint changed while it translated" in caplog.text


def test_a_plan_without_outputs_is_no_hindrance(distil, data_dir, monkeypatch):
    def out_of_memory(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(distilled.Outputs, "write", out_of_memory)
        assert distil("--gin_param=train.batch_tokens = 4096").status == 130
    assert os.listdir(os.path.join(data_dir, "cli_echo_distill.outputs")) == ["plan.json"]
    assert distil().status == 0


def test_a_process_whose_plan_was_replaced_writes_nothing(tmp_path):
    first, second = (distilled.Outputs(str(tmp_path)) for _ in range(2))
    first.begin({"problem": "p", "search": "beam_size=64"})
    second.begin({"problem": "p", "search": "beam_size=4"})
    with pytest.raises(UserError, match="was begun anew meanwhile"):
        first.write(0, ["a"], ["b"], 0)
    second.write(0, ["a"], ["c"], 0)
    assert second.read(0, ["a"]) == (["c"], 0)


def test_a_plan_of_another_version_is_kept_and_one_whose_teacher_was_scored_is_not_replaced(tmp_path):
    first, second = (distilled.Outputs(str(tmp_path)) for _ in range(2))
    first.begin({"problem": "p", "decode": {"beam_size": 4}})
    second.begin({"problem": "p", "decode": {"beam_size": 4, "new": 0}})
    assert second.plan == first.plan == {"problem": "p", "decode": {"beam_size": 4}}
    first.write(0, ["a"], ["b"], 0)
    assert second.read(0, ["a"]) == (["b"], 0)
    first.finish({"model": "m", "step": 1, "checkpoint": "c", "decode": {}})
    (tmp_path / "part-00000.json").unlink()
    with pytest.raises(UserError, match="outputs of another decode"):
        second.begin({"problem": "p", "decode": {"beam_size": 1}})


def test_compiled_programs_are_refused(distil, data_dir):
    done = distil("--gin_param=decode.compile = True")
    assert done.status == 2
    assert "decode.compile must be False" in done.err
    assert not os.path.exists(os.path.join(data_dir, "cli_echo_distill.outputs"))


def test_what_changes_the_outputs_without_a_trace_in_them_is_part_of_the_plan(distil):
    distil("--shard=0/2")
    done = distil("--shard=1/2", "--gin_param=train.batch_tokens = 48")
    assert done.status == 2
    assert "outputs of another configuration (train.batch_tokens: " in done.err
    assert ", not 48)" in done.err


def test_what_is_given_counts_by_itself(distil):
    distil("--shard=0/2", "--gin_param=train.batch_tokens=48")
    assert distil("--shard=1/2", "--gin_param=train.batch_tokens = 48").status == 0


@pytest.fixture
def begun_before_length_penalties(distil, monkeypatch):
    """Half of the parts, made before decode.length_penalty, train.batch_tokens and a plan's "gin_param" were there."""
    begin = distilled.Outputs.begin

    def older(self, plan):
        decode = {key: value for key, value in plan["decode"].items() if key != "length_penalty"}
        known = {key: value for key, value in plan["configuration"].items() if key != "train.batch_tokens"}
        plan = {key: value for key, value in plan.items() if key != "gin_param"}
        begin(self, plan | {"decode": decode, "configuration": known})

    with monkeypatch.context() as patch:
        patch.setattr(distilled.Outputs, "begin", older)
        assert distil("--shard=0/2").status == 0


@pytest.mark.usefixtures("begun_before_length_penalties")
def test_settings_that_came_later_leave_what_is_there_as_it_is(distil):
    assert json.loads(distil("--shard=1/2").out.splitlines()[-1])["parts_missing"] == 0
    assert distil().status == 0


@pytest.mark.usefixtures("begun_before_length_penalties")
def test_settings_that_came_later_and_are_in_use_are_another_search(distil):
    done = distil(
        "--shard=1/2", "--gin_param=decode.num_candidates = 2", "--gin_param=decode.length_penalty = 0.5"
    )
    assert done.status == 2
    assert "outputs of another search ('', not 'num_candidates=2, length_penalty=0.5')" in done.err
    done = distil("--shard=1/2", "--gin_param=train.batch_tokens = 48")
    assert done.status == 2
    assert "outputs of another gin_param (None, not ['train.batch_tokens = 48'])" in done.err


def test_parts_made_elsewhere_under_another_plan_are_refused(distil, data_dir):
    distil("--shard=0/2")
    path = pathlib.Path(data_dir, "cli_echo_distill.outputs", "part-00000.json")
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"plan": "0" * 64}))
    assert "of another teacher or other settings" in distil().err


def test_data_of_another_teacher_are_found_out_before_the_work(distil, data_dir):
    assert distil().status == 0
    shutil.rmtree(os.path.join(data_dir, "cli_echo_distill.outputs"))
    done = distil("--gin_param=decode.beam_size = 4")
    assert done.status == 2
    assert "was made by another teacher" in done.err
    assert not os.path.exists(os.path.join(data_dir, "cli_echo_distill.outputs"))


def test_a_teacher_of_another_vocabulary_is_refused(call, copy_run, data_dir, tmp_path):
    problem = registry.problems.get("cli_echo")()
    shutil.rmtree(os.path.join(data_dir, "cli_echo"))
    problem.model_type = "bpe"
    problem.generate(data_dir, workers=1)
    done = call(distiller, f"--model_dir={copy_run.model_dir}", f"--data_dir={data_dir}")
    assert done.status == 2
    assert "is not the one that the run was trained" in done.err


def test_what_is_said_of_the_teacher_must_be_whole(distil, data_dir):
    distil()
    pathlib.Path(data_dir, "cli_echo_distill.outputs", "teacher.json").write_text('{"a": 1}')
    done = distil()
    assert done.status == 2
    assert "teacher.json is damaged" in done.err


def test_parts_of_other_sources_are_refused(distil, data_dir):
    distil("--shard=0/2")
    path = pathlib.Path(data_dir, "cli_echo_distill.outputs", "part-00000.json")
    text = path.read_text(encoding="utf-8")
    part = json.loads(text)
    for change in ({"sources": "0" * 64}, {"outputs": part["outputs"][1:]}):
        path.write_text(json.dumps(part | change))
        done = distil()
        assert done.status == 2
        assert "part-00000.json holds" in done.err
    path.write_text(text[:20])
    assert "part-00000.json is damaged" in distil().err


def test_other_settings_do_not_mix_with_what_is_there(distil):
    distil("--shard=0/2")
    done = distil("--gin_param=decode.beam_size = 4")
    assert done.status == 2
    assert "outputs of another search ('', not 'beam_size=4')" in done.err


@pytest.mark.parametrize("shard", ["2/2", "1", "-1/2", "0/0", "a/b"])
def test_a_bad_shard_is_named(distil, shard):
    done = distil(f"--shard={shard}")
    assert done.status == 2
    assert f'--shard is "{shard}"' in done.err


def test_without_a_teachers_outputs_the_problem_says_what_to_run(distil, data_dir):
    distil("--shard=0/2")
    problem = registry.problems.get("cli_echo_distill")()
    with pytest.raises(Exception, match="run bin/distiller --model_dir=TEACHER"):
        problem.generate(data_dir)


def test_a_distilled_problem_of_nothing_is_unknown():
    with pytest.raises(Exception, match='unknown problem "nothing_distill"'):
        registry.problems.get("nothing_distill")
