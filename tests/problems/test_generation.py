"""Generation: the same bytes however it went, and every bad source told in one sentence."""

import errno
import gzip
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from t2t_vqem.errors import UserError
from t2t_vqem.problems import shards
from t2t_vqem.problems.text_pair import TextPair
from t2t_vqem.problems.toy import ToyEnDe

ROOT = pathlib.Path(__file__).parents[2]
LINES = ["The cat sat.", "A dog ran off.", "He is here.", "We saw it all."] * 5


def contents(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def write(path, lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.fixture
def files(tmp_path):
    """Paths of a good set of files, as text_pair takes them."""
    names = [f"{split}_{side}" for split in ("train", "dev") for side in ("source", "target")]
    return {name: write(tmp_path / f"{name}.txt", LINES) for name in names}


def text_pair(files, **arguments):
    return TextPair(**files, vocab_size=40, **arguments)


class Fine(ToyEnDe):
    """The toy problem in 63 shards."""

    name = "fine"
    shard_size = 400


def start(data_dir, workers):
    """Starts the generation of `Fine` in a process group of its own, with worker processes if workers > 1."""
    program = f"""
        import t2t_vqem.problems.generation as generation
        from t2t_vqem.problems.toy import ToyEnDe

        class Fine(ToyEnDe):
            name, shard_size = "fine", 400

        generation._SPAWN_FROM = 0
        Fine().generate({str(data_dir)!r}, workers={workers})
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    Fine().generate(str(folder))
    return contents(folder / "fine")


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_run_again_gives_the_same_bytes(tmp_path, undisturbed, workers):
    process = start(tmp_path, workers)
    partial = tmp_path / "fine.partial"
    deadline = time.monotonic() + 300
    while len(list(partial.glob("*.done"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid, signal.SIGKILL)  # the parent alone: its workers must end by themselves
    process.wait()
    finished = {path.name.removesuffix(".done") for path in partial.glob("*.done")}
    assert 5 <= len(finished) < 50
    assert not (tmp_path / "fine").exists()
    while any(pathlib.Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.05)
    kept = {name: (partial / name).stat().st_mtime_ns for name in finished}
    Fine().generate(str(tmp_path), workers=1)
    assert contents(tmp_path / "fine") == undisturbed
    assert kept == {name: (tmp_path / "fine" / name).stat().st_mtime_ns for name in finished}
    assert [path.name for path in tmp_path.iterdir()] == ["fine"]


def test_two_at_once_give_the_same_bytes(tmp_path, undisturbed):
    processes = [start(tmp_path, 2), start(tmp_path, 1)]
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
    assert contents(tmp_path / "fine") == undisturbed


def test_a_damaged_shard_of_an_interrupted_run_is_written_anew(tmp_path, undisturbed):
    process = start(tmp_path, 1)
    partial = tmp_path / "fine.partial"
    while len(list(partial.glob("*.done"))) < 5:
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    victim = sorted(partial.glob("*.tfrecord"))[0]
    victim.write_bytes(victim.read_bytes()[:-1])
    Fine().generate(str(tmp_path))
    assert contents(tmp_path / "fine") == undisturbed


def test_complete_data_are_left_alone(small, data_dir):
    before = {path: path.stat().st_mtime_ns for path in pathlib.Path(data_dir, "small").iterdir()}
    manifest = small.generate(data_dir)
    assert before == {path: path.stat().st_mtime_ns for path in pathlib.Path(data_dir, "small").iterdir()}
    assert manifest["splits"]["train"]["examples"] == 600
    assert len(manifest["splits"]["train"]["shards"]) == 6


def test_manifest_counts(small, data_dir):
    manifest = small.manifest(data_dir)
    pieces = small.vocabulary(data_dir)
    assert manifest["vocabulary"] == {"size": pieces.size, "hash": pieces.hash}
    for split in small.splits:
        sources, references = small.texts(split, data_dir)
        inputs, targets = pieces.encode(sources), pieces.encode(references)
        entry = manifest["splits"][split]
        assert entry["examples"] == len(sources)
        assert entry["input_tokens"] == sum(map(len, inputs))
        assert entry["target_tokens"] == sum(map(len, targets))
        longest = max(max(len(x), len(y)) for x, y in zip(inputs, targets, strict=True))
        assert max(map(int, entry["lengths"])) == longest
        assert sum(entry["lengths"].values()) == len(sources)


def test_evaluation_splits_keep_their_order_and_training_is_mixed(small, data_dir):
    for split in ("val", "test"):
        assert list(zip(*small.texts(split, data_dir), strict=True)) == list(small.samples(split))
    stored = list(zip(*small.texts("train", data_dir), strict=True))
    assert sorted(stored) == sorted(small.samples("train"))
    assert stored[:100] != list(small.samples("train"))[:100]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_shard_is_named(tmp_path, files, damage):
    problem = text_pair(files)
    problem.generate(str(tmp_path))
    shard = tmp_path / "text_pair" / "train-00000-of-00001.tfrecord"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "flip":
        shard.write_bytes(data)
    elif damage == "truncate":
        shard.write_bytes(data[:-1])
    else:
        shard.unlink()
    with pytest.raises(UserError, match=shard.name):
        problem.check(str(tmp_path))
    if damage != "flip":  # sizes are looked at whenever data are opened
        with pytest.raises(UserError, match=shard.name):
            problem.manifest(str(tmp_path))


def test_a_damaged_manifest_is_named(tmp_path, files):
    text_pair(files).generate(str(tmp_path))
    (tmp_path / "text_pair" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        text_pair(files).check(str(tmp_path))


def test_no_data_says_how_to_make_them(tmp_path, files):
    with pytest.raises(UserError, match="run bin/datagen --problem=text_pair"):
        text_pair(files).check(str(tmp_path))


def test_data_of_other_settings_or_sources_are_refused(tmp_path, files):
    text_pair(files).generate(str(tmp_path))
    with pytest.raises(UserError, match="vocab_size=40, not 50"):
        TextPair(**files, vocab_size=50).generate(str(tmp_path))
    write(pathlib.Path(files["dev_source"]), LINES[1:] + LINES[:1])
    with pytest.raises(UserError, match="other source files"):
        text_pair(files).generate(str(tmp_path))
    pathlib.Path(files["dev_source"]).unlink()  # what is generated outlives its source
    text_pair(files).generate(str(tmp_path))


def test_gzip_and_byte_order_mark_and_carriage_returns_make_no_difference(tmp_path, files):
    text_pair(files).generate(str(tmp_path / "plain"))
    packed = tmp_path / "packed"  # recognised by its content
    packed.write_bytes(gzip.compress(pathlib.Path(files["train_source"]).read_bytes()))
    pathlib.Path(files["dev_source"]).write_bytes(b"\xef\xbb\xbf" + "\r\n".join(LINES).encode())
    text_pair(files | {"train_source": str(packed)}).generate(str(tmp_path / "other"))
    plain, other = (contents(tmp_path / name / "text_pair") for name in ("plain", "other"))
    assert plain.keys() == other.keys()
    assert all(plain[name] == other[name] for name in plain if name != shards.MANIFEST)


def unequal(path):
    write(path, LINES[:-1])


def longer(path):
    write(path, [*LINES, "one", "two"])


def not_utf8(path):
    path.write_bytes("".join(line + "\n" for line in LINES[:6]).encode() + b"caf\xe9\n")


def empty(path):
    path.write_bytes(b"")


def folder(path):
    path.unlink()
    path.mkdir()


def half_gzip(path):
    path.write_bytes(gzip.compress(path.read_bytes())[:-9])


@pytest.mark.parametrize(
    ("spoil", "name", "expected"),
    [
        (pathlib.Path.unlink, "train_source", r"cannot read .*train_source\.txt.*--source_dir"),
        (folder, "dev_source", r"cannot read .*dev_source\.txt: Is a directory"),
        (unequal, "train_target", r"train_source\.txt has 20 lines but .*train_target\.txt has 19"),
        (longer, "dev_target", r"dev_source\.txt has 20 lines but .*dev_target\.txt has 22"),
        (unequal, "dev_source", r"dev_source\.txt has 19 lines but .*dev_target\.txt has 20"),
        (not_utf8, "train_source", r"train_source\.txt, line 7: not UTF-8 \(byte 0xe9 at 3\)"),
        (empty, "dev_target", r"dev_target\.txt is empty"),
        (empty, "train_source", r"train_source\.txt is empty"),
        (half_gzip, "train_target", r"train_target\.txt is a damaged gzip file"),
    ],
)
def test_bad_source_files_are_named_and_nothing_is_written(tmp_path, files, spoil, name, expected):
    spoil(pathlib.Path(files[name]))
    with pytest.raises(UserError, match=expected) as caught:
        text_pair(files).generate(str(tmp_path / "data"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_pairs_with_an_empty_side_are_left_out_of_training_only_and_counted(tmp_path, files):
    write(pathlib.Path(files["train_source"]), ["", " ", *LINES[2:]])
    write(pathlib.Path(files["dev_source"]), ["", *LINES[1:]])
    manifest = text_pair(files).generate(str(tmp_path))
    assert manifest["splits"]["train"]["examples"] == 18
    assert manifest["splits"]["train"]["empty_left_out"] == 2
    assert text_pair(files).texts("dev", str(tmp_path))[0][0] == ""
    assert manifest["splits"]["dev"]["examples"] == 20


def test_a_vocabulary_that_cannot_be_leaves_nothing_behind(tmp_path, files):
    with pytest.raises(UserError, match="vocab_size=3"):
        TextPair(**files, vocab_size=3).generate(str(tmp_path / "data"))
    assert list((tmp_path / "data").iterdir()) == []


def test_pairs_that_change_between_passes_are_refused(tmp_path):
    class Fickle(ToyEnDe):
        name = "fickle"
        calls = 0

        def samples(self, split):
            Fickle.calls += 1
            yield from [(f"a {i} {Fickle.calls}", "b") for i in range(50)]

    with pytest.raises(UserError, match="not the same each time"):
        Fickle(vocab_size=30).generate(str(tmp_path))
    assert not (tmp_path / "fickle").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path, files):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match=str(blocked)):
        text_pair(files).generate(str(blocked))
    if os.getuid():
        tmp_path.chmod(0o500)
        with pytest.raises(UserError, match="permission denied"):
            text_pair(files).generate(str(tmp_path / "data"))
        tmp_path.chmod(0o700)


def test_a_full_disk_is_told_and_leaves_no_half_written_shard(tmp_path, files, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "x.tfrecord"
    monkeypatch.setattr(shards.os, "fsync", full)
    with pytest.raises(UserError, match=r"x\.tfrecord: the disk is full"):
        shards.write_records(str(path), [b"record"])
    assert [p.name for p in tmp_path.iterdir() if "tfrecord" in p.name] == []


def test_a_file_size_limit_is_told(tmp_path):
    """The operating system's own refusal, through TensorFlow's writer."""
    program = f"""
        import resource, signal
        import tensorflow as tf
        from t2t_vqem.errors import UserError
        from t2t_vqem.problems import shards

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            shards.write_records({str(tmp_path / "x.tfrecord")!r}, [b"x" * 1000] * 1000)
        except UserError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "x.tfrecord" in told
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_is_json_without_machine_or_time(tmp_path, files):
    text_pair(files).generate(str(tmp_path))
    text = (tmp_path / "text_pair" / "manifest.json").read_text()
    assert json.loads(text)["problem"] == "text_pair"
    assert str(tmp_path) not in text
