"""Problems of codes: what an encoder writes, once, is what priors read."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.errors import UserError
from t2t_vqem.problems import generation
from t2t_vqem.problems.batches import Batching
from t2t_vqem.problems.image import ImageProblem

SIZES = {"train": 50, "val": 11, "test": 5}
SHAPE, FIELD = (4, 6, 3), (2, 3, 2)
PICTURES = Batching(batch_tokens=8 * 72, boundaries=(8,))
FIELDS = Batching(batch_tokens=4 * 12, boundaries=(8,), rows_multiple=2, steps_per_call=3)  # four rows
ENCODER = {"problem": "codes_pictures", "model": "stub", "step": 7}


@registry.problems.register("codes_pictures")
class Pictures(ImageProblem):
    """Pictures of one number each, which is their place in the split."""

    image_shape = SHAPE
    num_classes = 7
    label_names = tuple("abcdefg")
    shard_size = 20

    def samples(self, split):
        for number in range(SIZES[split]):
            yield np.full(SHAPE, number, np.uint8), number % 7


def encode(pictures, shard, rows):
    """Codes that tell the picture's number, the place and the slot."""
    numbers = tf.cast(pictures[:, 0, 0, 0], tf.int32)[:, None, None, None]
    places = tf.reshape(tf.range(12), [1, 2, 3, 2])
    return numbers * 5 + places


def write(data_dir, encode=encode, num_codes=300, **encoder):
    problem = registry.problems.get("codes_pictures_codes")()
    problem.base.generate(str(data_dir))
    problem.write(
        str(data_dir),
        encode,
        code_shape=FIELD,
        num_codes=num_codes,
        encoder=ENCODER | encoder,
        batching=PICTURES,
    )
    return problem


def contents(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write(folder)
    return str(folder)


@pytest.fixture
def problem():
    return registry.problems.get("codes_pictures_codes")()


def expected(number):
    return number * 5 + np.arange(12).reshape(FIELD)


def test_the_manifest_says_what_the_codes_are_of(problem, data_dir):
    assert problem.dimensions(None) is None
    dimensions = {"code_shape": [2, 3, 2], "num_codes": 300, "num_classes": 7}
    assert problem.dimensions(data_dir) == problem.dimensions(None) == dimensions
    manifest = problem.check(data_dir)
    assert manifest["encoder"] == ENCODER
    assert manifest["image_shape"] == [4, 6, 3]
    base = problem.base.manifest(data_dir)
    assert {s: e["examples"] for s, e in manifest["splits"].items()} == SIZES
    assert manifest["splits"]["train"]["labels"] == base["splits"]["train"]["labels"]
    there = contents(pathlib.Path(data_dir, problem.name)).keys()
    assert manifest["files"].keys() == there - {"manifest.json"}
    assert problem.generate(data_dir) == manifest
    assert list(problem.inspect("val", data_dir, 1)) == [
        "val 0: label 0 (a), 2 x 3 x 2 of 300 codes, first 0 1"
    ]


def test_counts_are_of_the_training_split_slot_by_slot(problem, data_dir):
    counts = problem.train_counts(data_dir)
    fields = np.stack([expected(number) for number in range(50)])
    assert counts.shape == (2, 300)
    for slot in range(2):
        np.testing.assert_array_equal(counts[slot], np.bincount(fields[..., slot].ravel(), minlength=300))


def test_evaluation_sees_every_field_once_with_its_label(problem, data_dir):
    dataset = problem.dataset("val", data_dir, FIELDS, training=False)
    assert dataset.element_spec["targets"] == tf.TensorSpec([4, *FIELD], tf.int32)
    seen = []
    for batch in dataset.as_numpy_iterator():
        for index, label, field in zip(*(batch[k] for k in ("index", "inputs", "targets")), strict=True):
            np.testing.assert_array_equal(field, expected(index) if index >= 0 else 0 * field)
            assert label == (index % 7 if index >= 0 else 0)
            seen.append(int(index))
    assert seen == [*range(11), -1]


def test_training_batches_have_the_announced_shape(problem, data_dir):
    with pytest.raises(UserError, match="not known before bin/encoder has run"):
        problem.batch_shapes(FIELDS)
    dataset = problem.dataset("train", data_dir, FIELDS, training=True)
    (shape,) = problem.batch_shapes(FIELDS)
    assert shape == {"inputs": (3, 4), "targets": (3, 4, *FIELD)}
    assert {name: tuple(spec.shape) for name, spec in dataset.element_spec.items()} == shape
    seen = []
    for batch in dataset.take(25).as_numpy_iterator():  # 25 x 12 = 6 epochs
        numbers = batch["targets"].reshape(-1, 12)
        assert (numbers[:, 1:] - numbers[:, :1] == np.arange(1, 12)).all()
        np.testing.assert_array_equal(numbers[:, 0] // 5 % 7, batch["inputs"].reshape(-1))
        seen += (numbers[:, 0] // 5).tolist()
    assert sorted(seen) == sorted([*range(50)] * 6)


@pytest.mark.parametrize(("num_codes", "size"), [(256, 1), (300, 2), (70_000, 4)])
def test_codes_are_kept_in_as_few_bytes_as_do(tmp_path, num_codes, size):
    problem = write(tmp_path, lambda *given: encode(*given) * 0 + num_codes - 1, num_codes)
    assert problem.array_format.bytes == 12 * size
    batch = next(iter(problem.dataset("val", str(tmp_path), FIELDS, training=False)))
    assert int(batch["targets"][0, 0, 0, 0]) == num_codes - 1


def test_an_interrupted_call_goes_on_and_ends_in_the_same_bytes(data_dir, tmp_path):
    calls = []

    def killed(*given):
        calls.append(given)
        if len(calls) == 6:  # in the third shard, of which each takes two or three batches
            raise KeyboardInterrupt
        return encode(*given)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, killed)
    partial = tmp_path / "codes_pictures_codes.partial"
    kept = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.tfrecord")}
    assert kept
    assert not (tmp_path / "codes_pictures_codes").exists()
    problem = write(tmp_path)
    folder = tmp_path / problem.name
    assert contents(folder) == contents(pathlib.Path(data_dir, problem.name))
    assert all((folder / name).stat().st_mtime_ns == time for name, time in kept.items())
    write(tmp_path, None)  # nothing to do


def test_the_encoder_is_told_shard_and_place(tmp_path):
    told = {}

    def listening(pictures, shard, rows):
        told.setdefault(int(shard), []).extend(row for row in rows.numpy() if row >= 0)
        return encode(pictures, shard, rows)

    write(tmp_path, listening)
    assert sorted(told) == list(range(5))  # three of train, one of each other split
    assert all(rows == list(range(len(rows))) for rows in told.values())
    assert sum(map(len, told.values())) == sum(SIZES.values())


def test_codes_of_another_run_are_refused(data_dir):
    with pytest.raises(UserError, match=r"was made otherwise: encoder\.step is 7, not 8"):
        write(data_dir, step=8)


def test_a_second_writer_is_refused(tmp_path):
    with (
        generation.exclusive(str(tmp_path / "codes_pictures_codes.partial")),
        pytest.raises(UserError, match="another process writes"),
    ):
        write(tmp_path)


def test_codes_out_of_range_are_a_defect_of_the_model(tmp_path):
    with pytest.raises(ValueError, match="of a model of 200 codes"):
        write(tmp_path, num_codes=200)


def test_a_damaged_file_is_named(tmp_path):
    problem = write(tmp_path)
    counts = tmp_path / problem.name / "train_code_counts.npy"
    counts.write_bytes(counts.read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match=counts.name):
        problem.check(str(tmp_path))


def test_without_codes_the_problem_says_what_to_run(problem, tmp_path):
    with pytest.raises(UserError, match=r"run bin/encoder --model_dir=RUN .*trained on codes_pictures"):
        problem.generate(str(tmp_path))


@pytest.mark.parametrize("name", ["toy_ende_codes", "codes_pictures_codes_codes"])
def test_codes_are_of_pictures_alone(name):
    registry.problems.get("codes_pictures_codes")  # a problem of codes is known once it was asked for
    with pytest.raises(UserError, match="bin/encoder works on images, and the problem"):
        registry.problems.get(name)()


def test_the_manifest_is_plain_json(problem, data_dir):
    text = pathlib.Path(data_dir, problem.name, "manifest.json").read_text(encoding="utf-8")
    assert json.loads(text)["code_shape"] == [2, 3, 2]
    assert data_dir not in text
