"""CIFAR-10: 60,000 photographs, 32 x 32, of ten classes (Krizhevsky 2009)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from t2t_vqem import registry
from t2t_vqem.errors import UserError
from t2t_vqem.problems import cifar10_files, tfds
from t2t_vqem.problems.cifar10_files import TEST_FILE, TRAIN_FILES
from t2t_vqem.problems.image import ImageProblem, Sample

_REMEDY = "give --source_dir, which holds cifar-10-batches-py or cifar-10-batches-bin"


@registry.problems.register("cifar10")
class Cifar10(ImageProblem):
    """45,000 pictures to train on, 5,000 to validate on, the published 10,000 to test on.

    The 5,000 are the last of the published training set, the second half of data_batch_5: its order is random already.

    `source_dir` is the folder cifar-10-batches-py or cifar-10-batches-bin as published, the folder above, or one of
    the archives they come in. Without it the data come from TensorFlow Datasets, and are the same to the byte.

    Attributes:
      pictures_per_file: in each of the five published files to train on, and in the one to test on.
    """

    name = "cifar10"
    image_shape = cifar10_files.SHAPE
    num_classes = cifar10_files.NUM_CLASSES
    label_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    pictures_per_file = 10_000

    def source_files(self) -> list[str]:
        return [] if self.source_dir is None else cifar10_files.find(self.source_dir).source_files()

    def samples(self, split: str) -> Iterator[Sample]:
        count, last = self.pictures_per_file, TRAIN_FILES[-1]
        names = {"train": TRAIN_FILES, "val": (last,), "test": (TEST_FILE,)}[split]
        source = _Tfds() if self.source_dir is None else cifar10_files.find(self.source_dir)
        for name in names:
            pictures, labels = source.read(name, count)
            if name == last:
                half = slice(count // 2) if split == "train" else slice(count // 2, None)
                pictures, labels = pictures[half], labels[half]
            yield from zip(pictures, labels.tolist(), strict=True)


class _Tfds:
    """Reads TensorFlow Datasets, whose own order is another, as if it were the published files."""

    def __init__(self):
        self._table: tuple[np.ndarray, np.ndarray] | None = None

    def read(self, name: str, count: int) -> cifar10_files.Batch:
        """Returns the pictures and labels of one file; see `cifar10_files.Published.read`."""
        files = (TEST_FILE,) if name == TEST_FILE else TRAIN_FILES
        if self._table is None:
            self._table = _published_order("test" if name == TEST_FILE else "train", count * len(files))
        first = files.index(name) * count
        return tuple(column[first : first + count] for column in self._table)


def _published_order(split: str, count: int) -> cifar10_files.Batch:
    """Returns a split of TensorFlow Datasets, whose "id" tells each picture's place: "train_00042"."""
    pictures, labels = np.zeros([count, *cifar10_files.SHAPE], np.uint8), np.full([count], -1)
    for example in tfds.examples("cifar10", split, _REMEDY):
        place = int(example["id"].decode().removeprefix(f"{split}_"))
        pictures[place], labels[place] = example["image"], example["label"]
    if (labels < 0).any():
        raise UserError(
            f"TensorFlow Datasets has not all of the {count} pictures of cifar10, {split}; {_REMEDY}"
        )
    return pictures, labels
