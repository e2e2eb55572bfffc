import dataclasses
import json
import multiprocessing
import os

import gin
import pytest

from t2t_vqem import config
from t2t_vqem.errors import UserError
from t2t_vqem.registry import Registry

# Configurables of this file's own, registered as a model and a bottleneck are.
_registry = Registry("probe", {})


@_registry.register("probe_model")
def probe_model(size=4, bottleneck="probe_one", activation=None):
    return size, bottleneck, activation


@_registry.register("probe_one")
def probe_one(num_samples=1, temperature=1.0):
    return num_samples, temperature


METADATA = config.RunMetadata(
    problem="toy_ende",
    model="latent_nat",
    data_dir="data",
    usr_dir=None,
    seed=3,
    vocabulary_hash="abc",
    data_fingerprint="def",
)


def _use(*bindings, gin_files=(), model_dir=None):
    """Parses and then uses the probes, as a command makes its model before it writes its run."""
    config.parse(gin_files, bindings, model_dir)
    size, _, _ = _registry.get("probe_model")()
    num_samples, temperature = _registry.get("probe_one")()
    return size, num_samples, temperature


def test_later_bindings_win_and_the_operative_configuration_says_what_was_used(tmp_path):
    first, second = tmp_path / "first.gin", tmp_path / "second.gin"
    first.write_text("probe_model.size = 5\nprobe_one.num_samples = 2\n")
    second.write_text("probe_model.size = 6\n")
    used = _use("probe_one.num_samples = 3", gin_files=[str(first), str(second)])
    assert used == (6, 3, 1.0)
    text = config.operative()
    for line in ("probe_model.size = 6", "probe_one.num_samples = 3", "probe_one.temperature = 1.0"):
        assert line in text


def test_parse_forgets_what_was_parsed_before():
    assert _use("probe_model.size = 9")[0] == 9
    assert _use()[0] == 4


def test_gin_files_are_looked_up_as_given_then_in_the_run_then_in_the_package(tmp_path, monkeypatch):
    here, run, package = (tmp_path / name for name in ("here", "run", "package"))
    for number, folder in enumerate((here, run, package)):
        folder.mkdir()
        (folder / "probe.gin").write_text(f"probe_model.size = {number}\n")
    monkeypatch.chdir(here)
    monkeypatch.setattr(config, "gin_directory", lambda: str(package))
    for number, folder in enumerate((here, run, package)):
        assert _use(gin_files=["probe.gin"], model_dir=str(run))[0] == number
        (folder / "probe.gin").unlink()
    (package / "prone.gin").write_text("")
    with pytest.raises(UserError, match=r'no gin file "probe.gin".*did you mean prone.gin'):
        config.parse(["probe.gin"], [])


def test_macros_scopes_references_and_includes_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.gin").write_text("width = 12\nprobe_model.size = %width\n")
    (tmp_path / "mine.gin").write_text(
        "include 'base.gin'\nprobe_model.activation = @probe_one()\nscoped/probe_one.num_samples = 8\n"
    )
    config.parse(["mine.gin"], [])
    assert _registry.get("probe_model")() == (12, "probe_one", (1, 1.0))
    with gin.config_scope("scoped"):
        assert _registry.get("probe_one")() == (8, 1.0)
    assert "width = 12" in config.operative()


def test_the_package_gin_files_can_be_included(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.gin").write_text("include 'soft_em.gin'\n")
    config.parse(["mine.gin"], [])
    assert "soft_em" in gin.config_str()


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("soft_emm.num_samples = 2", r'nothing to configure is called "soft_emm" \(did you mean soft_em'),
        ("soft_em.num_sample = 2", r'soft_em has no parameter "num_sample" \(did you mean num_samples'),
        ("train.learnin_rate = 2", r'train has no parameter "learnin_rate" \(did you mean learning_rate'),
        ("probe_model.size = @nothing", "nothing"),
        ("probe_model.size = ten", "quotes"),
        ("probe_model.size 10", "probe_model.size 10"),
        ("probe_model.size =", "probe_model.size ="),
        ("import no_such_module", "no_such_module"),
        ("include 'no_such.gin'", "no_such.gin"),
        ("probe_model.size = %no_such_macro", "no_such_macro"),
    ],
)
def test_bad_bindings_are_one_line_that_names_them(binding, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        config.parse([], [binding])
    assert "\n" not in str(caught.value)
    file = tmp_path / "bad.gin"
    file.write_text(f"# a comment\n{binding}\n")
    with pytest.raises(UserError, match=message) as caught:
        config.parse([str(file)], [])
    assert "\n" not in str(caught.value)


def test_a_bad_line_of_a_file_is_named_by_number(tmp_path):
    file = tmp_path / "bad.gin"
    file.write_text("probe_model.size = 2\n\nsoft_em.num_sample = 2\n")
    with pytest.raises(UserError, match=r"bad\.gin:3: "):
        config.parse([str(file)], [])


def test_files_that_are_not_text_are_named(tmp_path):
    file = tmp_path / "binary.gin"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary\.gin"):
        config.parse([str(file)], [])


def test_unused_bindings_are_listed():
    config.parse([], ["probe_one.num_samples = 2", "probe_model.size = 3"])
    _registry.get("probe_model")()
    assert config.unused() == ["probe_one.num_samples"]


def test_a_run_is_written_and_read_back(tmp_path):
    _use("probe_one.num_samples = 2", "train.batch_tokens = 77")
    config.write_run(str(tmp_path), METADATA)
    run = config.read_run(str(tmp_path))
    assert (run.problem, run.seed, run.vocabulary_hash) == ("toy_ende", 3, "abc")
    assert run.data_dir == os.path.abspath("data")
    assert run.versions["tensorflow"].startswith("2.")
    gin.clear_config()
    config.parse_run(str(tmp_path), gin_params=["probe_one.temperature = 0.5"])
    assert _registry.get("probe_one")() == (2, 0.5)
    assert gin.query_parameter("train.batch_tokens") == 77  # given, though nothing had used it yet
    assert sorted(os.listdir(tmp_path)) == ["config.gin", "run.json"]


def test_the_same_run_may_go_on_and_keeps_its_date(tmp_path):
    _use("probe_model.size = 8", "train.batch_tokens = 100")
    config.write_run(str(tmp_path), dataclasses.replace(METADATA, created="2020-01-01"))
    _use("eight = 8", "probe_model.size = %eight", "train.batch_tokens = 200")  # the same, said otherwise
    config.write_run(str(tmp_path), METADATA)
    assert config.read_run(str(tmp_path)).created == "2020-01-01"
    assert "200" in (tmp_path / "config.gin").read_text()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("problem", "wmt_ende", "holds a run of problem toy_ende, not wmt_ende"),
        ("model", "other", "holds a run of model latent_nat, not other"),
        ("vocabulary_hash", "zzz", "another vocabulary"),
    ],
)
def test_another_run_is_refused_and_left_alone(tmp_path, field, value, message):
    _use()
    config.write_run(str(tmp_path), METADATA)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=message):
        config.write_run(str(tmp_path), dataclasses.replace(METADATA, **{field: value}))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_configuration_is_refused_and_the_binding_named(tmp_path):
    _use("probe_model.size = 8")
    config.write_run(str(tmp_path), METADATA)
    before = (tmp_path / "config.gin").read_bytes()
    _use("probe_model.size = 9")
    with pytest.raises(UserError, match=r"probe_model\.size is 8 there and 9 here"):
        config.write_run(str(tmp_path), METADATA)
    assert (tmp_path / "config.gin").read_bytes() == before


def test_no_run_and_damaged_runs_are_named(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        config.read_run(str(tmp_path))
    with pytest.raises(UserError, match=r"holds no config\.gin"):
        config.parse_run(str(tmp_path))
    (tmp_path / "run.json").write_text('{"problem": "toy_en')
    with pytest.raises(UserError, match="damaged"):
        config.read_run(str(tmp_path))
    (tmp_path / "run.json").write_text('{"problem": "toy_ende"}')
    with pytest.raises(UserError, match="damaged"):
        config.read_run(str(tmp_path))
    config.write_run(str(tmp_path / "run"), dataclasses.replace(METADATA, problem=5))
    with pytest.raises(UserError, match="problem is 5"):
        config.read_run(str(tmp_path / "run"))


def test_results_are_updated_entry_by_entry(tmp_path):
    config.update_results(str(tmp_path), "val", {"bleu": 1.5})
    config.update_results(str(tmp_path), "test", {"bleu": 2.5})
    config.update_results(str(tmp_path), "val", {"bleu": 3.5})
    results = json.loads((tmp_path / "results.json").read_text())
    assert results == {"val": {"bleu": 3.5}, "test": {"bleu": 2.5}}
    (tmp_path / "results.json").write_text("[")
    with pytest.raises(UserError, match=r"results\.json is damaged \(.*; move it away"):
        config.update_results(str(tmp_path), "val", {})


def _set_entries(model_dir, name):
    for number in range(40):
        config.update_results(model_dir, f"{name} {number}", {"value": number})


def test_entries_set_by_several_processes_at_once_are_all_kept(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_set_entries, args=(str(tmp_path), name)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(json.loads((tmp_path / "results.json").read_text())) == 80
