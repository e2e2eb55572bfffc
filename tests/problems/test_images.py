"""Problems of pictures: their bytes on disk, their batches, and the toy one."""

import itertools
import pathlib
import pickle

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.errors import UserError
from t2t_vqem.problems import toy_shapes
from t2t_vqem.problems.batches import Batching
from t2t_vqem.problems.image import ImageProblem
from t2t_vqem.problems.toy_shapes import KINDS, ToyShapes

SIZES = {"train": 130, "val": 11, "test": 5}
SHAPE = (4, 6, 3)
BATCHING = Batching(batch_tokens=4 * 72 + 5, boundaries=(8,), rows_multiple=2, steps_per_call=3)  # four rows


class Numbered(ImageProblem):
    """Pictures of one number each, which is their place in the split."""

    name = "numbered"
    image_shape = SHAPE
    num_classes = 7
    shard_size = 20

    def samples(self, split):
        for number in range(SIZES[split]):
            yield np.full(SHAPE, number, np.uint8), number % 7


def contents(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


@pytest.fixture(scope="module")
def numbered():
    return Numbered()


@pytest.fixture(scope="module")
def data_dir(numbered, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("data"))
    numbered.generate(folder)
    return folder


def training(numbered, data_dir, count, **arguments):
    dataset = numbered.dataset("train", data_dir, BATCHING, training=True, **arguments)
    return [{name: x.numpy() for name, x in batch.items()} for batch in dataset.take(count)]


def numbers(batches):
    """The pictures' numbers in order, after a look at every sub-pixel and label."""
    found = []
    for batch in batches:
        pictures = batch["targets"].reshape(-1, 72)
        assert (pictures == pictures[:, :1]).all()
        assert (batch["inputs"].reshape(-1) == pictures[:, 0] % 7).all()
        found += pictures[:, 0].tolist()
    return found


def test_the_manifest_says_what_the_pictures_are(numbered, data_dir):
    manifest = numbered.check(data_dir)
    assert manifest["image_shape"] == [4, 6, 3]
    assert (manifest["num_classes"], manifest["label_names"]) == (7, [])
    train = manifest["splits"]["train"]
    assert (train["examples"], len(train["shards"]), train["left_out"]) == (130, 7, 0)
    assert train["labels"] == {str(k): len(range(k, 130, 7)) for k in range(7)}
    assert manifest["files"].keys() == contents(pathlib.Path(data_dir, "numbered")).keys() - {"manifest.json"}


def test_interrupted_and_run_again_gives_the_same_bytes(data_dir, tmp_path):
    write, calls = Numbered.write_shard, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return write(*arguments)

    problem = Numbered()
    problem.write_shard = killed
    with pytest.raises(KeyboardInterrupt):
        problem.generate(str(tmp_path))
    assert len(list((tmp_path / "numbered.partial").glob("*.done"))) == 3
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "numbered.partial").glob("*.tfrecord")}
    Numbered().generate(str(tmp_path))
    assert contents(tmp_path / "numbered") == contents(pathlib.Path(data_dir, "numbered"))
    assert all((tmp_path / "numbered" / name).stat().st_mtime_ns == time for name, time in kept.items())


def test_workers_can_be_handed_the_writing():
    assert pickle.loads(pickle.dumps(Numbered().write_shard)) is ImageProblem.write_shard


def test_a_damaged_shard_is_named(tmp_path):
    Numbered().generate(str(tmp_path))
    shard = tmp_path / "numbered" / "val-00000-of-00001.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match=shard.name):
        Numbered().check(str(tmp_path))


def test_training_batches_have_the_announced_shape(numbered, data_dir):
    (shape,) = numbered.batch_shapes(BATCHING)
    assert shape == {"inputs": (3, 4), "targets": (3, 4, *SHAPE)}
    dataset = numbered.dataset("train", data_dir, BATCHING, training=True)
    assert {k: tuple(spec.shape) for k, spec in dataset.element_spec.items()} == shape
    assert {k: spec.dtype for k, spec in dataset.element_spec.items()} == {
        "inputs": tf.int32,
        "targets": tf.uint8,
    }
    assert Batching(1, (8,), rows_multiple=2).rows(72) == 2


def test_an_epoch_holds_every_picture_once_and_the_next_in_another_order(numbered, data_dir):
    seen = numbers(training(numbered, data_dir, 65))  # 65 x 12 = 6 epochs
    epochs = [seen[i : i + 130] for i in range(0, 780, 130)]
    assert all(sorted(epoch) == list(range(130)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert max(abs(a - b) for a, b in itertools.pairwise(seen)) > 40  # shards are read in turn


def test_the_seed_alone_decides_the_order(numbered, data_dir):
    first = numbers(training(numbered, data_dir, 3))
    assert first == numbers(training(numbered, data_dir, 3))
    assert first != numbers(training(numbered, data_dir, 3, seed=1))


def test_input_pipelines_share_an_epoch_without_overlap(numbered, data_dir):
    shares = [numbers(training(numbered, data_dir, 65, input_pipeline=(i, 2)))[:65] for i in range(2)]
    assert sorted(shares[0] + shares[1]) == list(range(130))
    with pytest.raises(UserError, match="130 pictures for 131 workers"):
        training(numbered, data_dir, 1, input_pipeline=(0, 131))


@pytest.mark.parametrize("before", [0, 1, 14])
def test_a_saved_iterator_restores_the_exact_next_batches(numbered, data_dir, tmp_path, before):
    def iterator():
        return iter(numbered.dataset("train", data_dir, BATCHING, training=True, seed=5))

    batches = iterator()
    for _ in range(before):
        next(batches)
    path = tf.train.Checkpoint(iterator=batches).save(str(tmp_path / "checkpoint"))
    expected = [next(batches) for _ in range(30)]
    restored = iterator()
    tf.train.Checkpoint(iterator=restored).restore(path).assert_consumed()
    for batch in expected:
        tf.nest.map_structure(np.testing.assert_array_equal, batch, next(restored))


@pytest.mark.parametrize("readers", [1, 2])
def test_evaluation_sees_every_picture_once_in_order_in_full_batches(numbered, data_dir, readers):
    found = {}
    for index in range(readers):
        dataset = numbered.dataset("val", data_dir, BATCHING, training=False, input_pipeline=(index, readers))
        assert dataset.element_spec["targets"].shape == (4, *SHAPE)
        for batch in dataset.as_numpy_iterator():
            assert batch["index"].shape == batch["inputs"].shape == (4,)
            for place, picture, label in zip(
                *(batch[k] for k in ("index", "targets", "inputs")), strict=True
            ):
                if place < 0:
                    assert not picture.any()
                    assert label == 0
                else:
                    found[int(place)] = int(picture[0, 0, 0])
    assert found == {i: i for i in range(11)}
    assert readers == 2 or list(found) == sorted(found)


@pytest.mark.parametrize(
    ("picture", "label", "expected"),
    [
        (
            np.zeros([4, 5, 3], np.uint8),
            0,
            r"picture 1 of bad, train, is uint8 \[4, 5, 3\]; it must be uint8 \[4, 6, 3\]",
        ),
        (np.zeros([4, 6, 1], np.uint8), 0, r"is uint8 \[4, 6, 1\]"),
        (np.zeros(SHAPE, np.float32), 0, r"is float32"),
        (np.zeros(SHAPE, np.uint8), 7, r"picture 1 of bad, train, has the label 7; there are 7 classes"),
    ],
)
def test_what_is_no_such_picture_is_refused(tmp_path, picture, label, expected):
    class Bad(Numbered):
        name = "bad"

        def samples(self, split):
            yield np.zeros(SHAPE, np.uint8), 6
            yield picture, label

    with pytest.raises(UserError, match=expected):
        Bad().generate(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_inspection_tells_label_shape_and_means(data_dir):
    class Named(Numbered):
        label_names = ("a",)

    assert list(Named().inspect("val", data_dir, 2)) == [
        "val 0: label 0, 4 x 6 x 3, mean 0.0 0.0 0.0",  # the manifest's names, of which there are none
        "val 1: label 1, 4 x 6 x 3, mean 1.0 1.0 1.0",
    ]


def test_pictures_are_no_text():
    with pytest.raises(
        UserError, match="distillation works on text, and the problem toy_shapes is one of images"
    ):
        registry.problems.get("toy_shapes_distill")()


def test_toy_shapes_are_always_the_same_and_all_different(monkeypatch):
    monkeypatch.setattr(toy_shapes, "_SIZES", {"train": 210, "val": 30})
    problem = ToyShapes(16)
    train, again = list(problem.samples("train")), list(ToyShapes(16).samples("train"))
    assert [(p.tobytes(), k) for p, k in train] == [(p.tobytes(), k) for p, k in again]
    pictures = [p.tobytes() for p, _ in train] + [p.tobytes() for p, _ in problem.samples("val")]
    assert len(set(pictures)) == 240
    assert {(p.shape, p.dtype) for p, _ in train} == {((16, 16, 3), np.dtype(np.uint8))}
    assert np.bincount([k for _, k in train]).min() > 15


def test_every_kind_of_toy_shape_has_its_area_and_stands_out():
    axis = np.linspace(-1, 1, 401)
    x, y = np.meshgrid(axis, axis)
    areas = {kind: (distance(x, y) < 0).mean() * 4 for kind, distance in KINDS.items()}
    star = 5 * 0.45 * np.sin(np.pi / 5)  # ten triangles between the centre, a point and a notch
    expected = {
        "disc": np.pi * 0.81,
        "ring": np.pi * (0.92**2 - 0.48**2),
        "square": 2.56,
        "triangle": 3 * 3**0.5 * 0.25,
        "cross": 2 * 1.9 * 0.6 - 0.36,
        "star": star,
    }
    assert areas == pytest.approx(expected, rel=0.02)
    pictures, _ = toy_shapes.draw(np.arange(200)[:, None], 16)
    assert (pictures.reshape(200, -1, 3).astype(float).std(axis=1).max(axis=-1) > 8).all()


def test_toy_shapes_of_another_size_are_other_data(tmp_path, monkeypatch):
    monkeypatch.setattr(toy_shapes, "_SIZES", {"train": 5, "val": 2, "test": 2})
    ToyShapes(8).generate(str(tmp_path))
    with pytest.raises(UserError, match="made with size=8, not 16"):
        ToyShapes(16).generate(str(tmp_path))
    with pytest.raises(UserError, match=r"toy_shapes\.size is 4"):
        ToyShapes(4)
