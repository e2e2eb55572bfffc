"""CIFAR-10 in every form it is published in, and each way in which its files can be bad."""

import io
import os
import pathlib
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from t2t_vqem.errors import UserError
from t2t_vqem.problems import cifar10_files, tfds
from t2t_vqem.problems.cifar10 import Cifar10

NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
COUNT = 6  # pictures a file


class Tiny(Cifar10):
    name = "tiny"
    pictures_per_file = COUNT


def planes(name):
    """The numbers [n, 3072], plane by plane, and the labels of one file."""
    rng = np.random.default_rng(NAMES.index(name))
    return rng.integers(0, 256, [COUNT, 3072], np.uint8), rng.integers(0, 10, COUNT).tolist()


def batch(name, protocol=4):
    data, labels = planes(name)
    content = {
        b"batch_label": name.encode(),
        b"labels": labels,
        b"data": data,
        b"filenames": [b"x.png"] * COUNT,
    }
    return pickle.dumps(content, protocol)


def old_batch(name):
    """Writes a file opcode by opcode as Python 2 with numpy 1 did, and as it is published."""
    data, labels = planes(name)
    raw = b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    raw += b"(K\x01K%cM\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R" % len(labels)
    raw += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
    raw += data.size.to_bytes(4, "little") + data.tobytes() + b"tb"
    return raw + b"U\x06labels](" + b"".join(b"K%c" % label for label in labels) + b"eu."


def binary(name):
    data, labels = planes(name)
    return np.concatenate([np.array(labels, np.uint8)[:, None], data], axis=1).tobytes()


@pytest.fixture
def folder(tmp_path):
    """The folder above cifar-10-batches-py."""
    (tmp_path / "cifar-10-batches-py").mkdir()
    for name in NAMES:
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(batch(name, 4))
    return tmp_path


def archive(path, prefix, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, raw in files.items():
            member = tarfile.TarInfo(f"{prefix}/{name}")
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))


def samples(source_dir, split):
    problem = Tiny()
    problem.source_dir = str(source_dir)
    return [(picture.tobytes(), label) for picture, label in problem.samples(split)]


def expected(split):
    found = []
    for name in {"train": NAMES[:5], "val": NAMES[4:5], "test": NAMES[5:]}[split]:
        for data, label in zip(*planes(name), strict=True):
            found.append((data.reshape(3, 32, 32).transpose(1, 2, 0).tobytes(), label))
    return found[:-3] if split == "train" else found[-3:] if split == "val" else found


@pytest.mark.parametrize(
    "form", ["above", "itself", "old pickles", "binary", "python archive", "binary archive"]
)
def test_every_published_form_gives_the_same_pictures(folder, form):
    source = folder / "cifar-10-batches-py"
    if form == "above":
        source = folder
    elif form == "old pickles":
        for name in NAMES:
            (source / name).write_bytes(old_batch(name))
    elif form != "itself":
        suffix = ".bin" if "binary" in form else ""
        prefix = "cifar-10-batches-bin" if suffix else "cifar-10-batches-py"
        files = {name + suffix: binary(name) if suffix else batch(name, 5) for name in NAMES}
        source = folder / "other"
        (source / prefix).mkdir(parents=True)
        if form == "binary":
            for name, raw in files.items():
                (source / prefix / name).write_bytes(raw)
        else:
            path = source / ("cifar-10-binary.tar.gz" if suffix else "cifar-10-python.tar.gz")
            archive(path, prefix, files)
            assert samples(path, "test") == expected("test")  # the archive itself
    for split in ("train", "val", "test"):
        assert samples(source, split) == expected(split)


def test_generation_from_files(folder):
    manifest = Tiny().generate(str(folder / "data"), str(folder))
    assert {split: entry["examples"] for split, entry in manifest["splits"].items()} == {
        "train": 27,
        "val": 3,
        "test": 6,
    }
    assert [source["name"] for source in manifest["sources"]] == NAMES
    assert manifest["label_names"][3] == "cat"
    (folder / "cifar-10-batches-py" / "test_batch").write_bytes(batch("data_batch_1", 4))
    with pytest.raises(UserError, match="made from other source files"):
        Tiny().generate(str(folder / "data"), str(folder))


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def spoilt(**fields):
    data, labels = planes("data_batch_2")
    return pickle.dumps({b"data": data, b"labels": labels} | {k.encode(): v for k, v in fields.items()}, 4)


DATA, LABELS = planes("data_batch_2")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (batch("data_batch_2", 4)[:-900], "truncated or no pickle"),
        (b"", "truncated or no pickle"),
        (b"<html>not found</html>", "truncated or no pickle"),
        (spoilt(labels=LABELS[:-1]), "holds 6 pictures but 5 labels"),
        (spoilt(labels=LABELS[:-1], data=DATA[:-1]), "holds 5 pictures instead of 6"),
        (spoilt(labels=[*LABELS[:-1], 10]), "picture 5 has the label 10"),
        (spoilt(labels="abcdef"), '"labels" are no list of whole numbers'),
        (spoilt(data=DATA[:, :1024]), r"pictures of 1024 numbers instead of 3072 \(32 x 32 x 3\)"),
        (spoilt(data=DATA.astype(np.float32)), '"data" are no table of bytes'),
        (spoilt(data=[1, 2]), '"data" are no table of bytes'),
        (pickle.dumps({b"data": DATA, b"fine_labels": LABELS}), 'it has no "labels"'),
        (pickle.dumps([1, 2]), 'it has no "data"'),
        (None, "cannot read .*No such file"),
    ],
)
def test_a_bad_file_is_named_and_nothing_is_written(folder, raw, words):
    victim = folder / "cifar-10-batches-py" / "data_batch_2"
    victim.unlink() if raw is None else victim.write_bytes(raw)
    with pytest.raises(UserError, match=words) as caught:
        Tiny().generate(str(folder / "data"), str(folder))
    assert str(victim) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder / "data").exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_wants_more_than_arrays_is_not_run(folder, protocol):
    victim = folder / "cifar-10-batches-py" / "test_batch"
    victim.write_bytes(pickle.dumps({"data": Malice(str(folder / "harm")), "labels": []}, protocol))
    with pytest.raises(UserError, match=r"test_batch asks for \w+\.mkdir, .* nothing of it was run"):
        samples(folder, "test")
    assert not (folder / "harm").exists()


def test_bad_binaries_and_archives_are_named(folder):
    other = folder / "cifar-10-batches-bin"
    other.mkdir()
    (other / "test_batch.bin").write_bytes(binary("test_batch")[:-5])
    with pytest.raises(UserError, match=r"test_batch\.bin has 18433 bytes, no multiple of 3073"):
        samples(other, "test")
    (other / "test_batch.bin").write_bytes(binary("test_batch")[:-3073])
    with pytest.raises(UserError, match=r"test_batch\.bin holds 5 pictures instead of 6"):
        samples(other, "test")
    packed = folder / "cifar-10-python.tar.gz"
    archive(packed, "cifar-10-batches-py", {"test_batch": batch("test_batch", 4)})
    with pytest.raises(UserError, match=r"tar\.gz holds no cifar-10-batches-py/data_batch_1"):
        samples(packed, "train")
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"tar\.gz is no whole tar archive"):
        samples(packed, "test")
    with pytest.raises(UserError, match=r"holds none of cifar-10-batches-py, .*is --source_dir right"):
        samples(folder / "nowhere", "test")


def test_without_network_it_points_to_source_dir(tmp_path, monkeypatch):
    import tensorflow_datasets

    def offline(*args, **kwargs):
        raise ConnectionError("no route to host\nand much more")

    monkeypatch.setattr(tensorflow_datasets, "load", offline)
    with pytest.raises(
        UserError, match=r"cannot give cifar10 \(no route to host\); give --source_dir"
    ) as caught:
        Tiny().generate(str(tmp_path / "data"))
    assert "\n" not in str(caught.value)


def test_tensorflow_datasets_find_the_module_that_they_do_not_require(monkeypatch):
    import tensorflow_datasets

    monkeypatch.setattr(tensorflow_datasets, "load", lambda *args, **kwargs: [])
    monkeypatch.setattr(tensorflow_datasets, "as_numpy", lambda dataset: dataset)
    assert list(tfds.examples("cifar10", "train", "")) == []
    import importlib_resources  # what the loading of the real ones does

    assert importlib_resources.abc.Traversable


def test_tensorflow_datasets_give_the_published_order(folder, monkeypatch):
    import tensorflow_datasets

    def load(name, split, shuffle_files):
        files = {"train": NAMES[:5], "test": NAMES[5:]}[split]
        pictures = [pair for file in files for pair in zip(*planes(file), strict=True)]
        examples = [
            {
                "id": f"{split}_{i:05d}".encode(),
                "image": data.reshape(3, 32, 32).transpose(1, 2, 0),
                "label": label,
            }
            for i, (data, label) in enumerate(pictures)
        ]
        return examples[::-1]

    monkeypatch.setattr(tensorflow_datasets, "load", load)
    monkeypatch.setattr(tensorflow_datasets, "as_numpy", lambda dataset: dataset)
    for split in ("train", "val", "test"):
        assert [(p.tobytes(), k) for p, k in Tiny().samples(split)] == expected(split)


def test_the_real_pictures(data_root, tmp_path):
    """One file of them, as the script beside the data restores it."""
    if not (data_root / "cifar10" / "unpack.py").exists():
        pytest.skip(f"no cifar10/unpack.py in {data_root}")
    program = "import sys, runpy; sys.argv[1:] = []; m = runpy.run_path(sys.orig_argv[-2]); "
    program += "import pickle, numpy as np, pathlib; n = 'test_batch'; labels = np.load(m['HERE'] / 'labels.npz')[n]; "
    program += "batch = {b'labels': labels.tolist(), b'data': m['read_batch'](n)}; "
    program += "pathlib.Path(sys.orig_argv[-1], n).write_bytes(pickle.dumps(batch, 4))"
    script = str(pathlib.Path(data_root, "cifar10", "unpack.py").resolve())
    subprocess.run([sys.executable, "-c", program, script, str(tmp_path)], check=True)
    pictures, labels = cifar10_files.find(str(tmp_path)).read("test_batch", 10_000)
    assert np.bincount(labels).tolist() == [1000] * 10
    assert labels[:4].tolist() == [3, 8, 8, 0]  # the cat and the ships that everyone knows
    means = pictures.mean(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.4942, 0.4851, 0.4504], atol=1e-3)
