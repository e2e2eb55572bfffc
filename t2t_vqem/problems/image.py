"""Problems of labelled pictures, all of one size."""

from __future__ import annotations

import abc
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from t2t_vqem.errors import UserError
from t2t_vqem.problems import shards
from t2t_vqem.problems.generated import GeneratedProblem
from t2t_vqem.problems.labelled import ArrayFormat, LabelledProblem

Sample = tuple[np.ndarray, int]
"""A picture, uint8 [height, width, channels], and its label."""

_BAD = "files that are no such pictures"


class ImageProblem(LabelledProblem, GeneratedProblem):
    """Pictures with a class each. A subclass sets shape and classes and yields pictures from `samples`.

    "targets" of the batches are the pictures, uint8 [steps, rows, height, width, channels]; see `LabelledProblem`.

    Attributes:
      image_shape: (height, width, channels); where only the source can tell, None until the data are generated or
        their manifest is read.
      num_classes: labels are 0 .. num_classes - 1; None as above.
      label_names: of the classes in order, or empty.
    """

    content = "images"
    unit = "pictures"
    shard_size = 1024  # 50 MB of the largest pictures; workers hold a few shards in memory
    image_shape: tuple[int, int, int] | None = None
    num_classes: int | None = None
    label_names: tuple[str, ...] = ()

    def dimensions(self, data_dir: str | None) -> dict[str, Any] | None:
        if data_dir is not None:
            self.manifest(data_dir)
        if self.image_shape is None:
            return None
        return {"image_shape": list(self.image_shape), "num_classes": self.num_classes}

    @property
    def array_format(self) -> ArrayFormat:
        if self.image_shape is None:
            raise UserError(
                f"the size of the pictures of {self.name} is not known before bin/datagen has run"
            )
        return _format(self.image_shape)

    @abc.abstractmethod
    def samples(self, split: str) -> Iterator[Sample | None]:
        """Yields (picture, label); each call yields the same in the same order.

        A picture is uint8 [height, width, channels]. None stands for something in the source that the user asked to
        skip; it is counted.
        """

    def admitted(self, split: str, left_out: Counter[str]) -> Iterator[Sample]:
        """Yields a split's pictures but for those that are skipped."""
        for number, sample in enumerate(self.samples(split)):
            if sample is None:
                left_out[_BAD] += 1
                continue
            picture, label = sample
            where = f"picture {number} of {self.name}, {split},"
            if picture.dtype != np.uint8 or picture.shape != tuple(self.image_shape):
                wanted = f"uint8 {list(self.image_shape)}"
                raise UserError(f"{where} is {picture.dtype} {list(picture.shape)}; it must be {wanted}")
            if not 0 <= label < self.num_classes:
                raise UserError(f"{where} has the label {label}; there are {self.num_classes} classes")
            yield picture, int(label)

    def as_bytes(self, example: Sample) -> bytes:
        picture, label = example
        return label.to_bytes(4, "little") + picture.tobytes()

    @staticmethod
    def write_shard(folder: str, name: str, examples: Sequence[Sample]) -> dict[str, Any]:
        """Writes pictures as they are, number by number, so that reading them costs nothing."""
        from t2t_vqem.problems import array_batches

        records = (
            array_batches.record(picture, label, _format(picture.shape)) for picture, label in examples
        )
        entry = shards.write_records(os.path.join(folder, name), records)
        return entry | {
            "examples": len(examples),
            "labels": _in_order(Counter(label for _, label in examples)),
        }

    def summary(self, entries: Sequence[Mapping[str, Any]], left_out: Counter[str]) -> dict[str, Any]:
        labels: Counter[int] = Counter()
        for entry in entries:
            labels.update({int(label): count for label, count in entry["labels"].items()})
        return {"left_out": left_out.total(), "labels": _in_order(labels)}

    def account(self, folder: str) -> dict[str, Any]:
        return {
            "image_shape": list(self.image_shape),
            "num_classes": self.num_classes,
            "label_names": list(self.label_names),
        }

    def manifest(self, data_dir: str) -> dict[str, Any]:
        manifest = super().manifest(data_dir)
        self.image_shape = tuple(manifest["image_shape"])
        self.num_classes = manifest["num_classes"]
        self.label_names = tuple(manifest["label_names"])
        return manifest

    def described(self, array: np.ndarray) -> str:
        """Returns the mean of each channel, from 0 to 255."""
        return f", mean {' '.join(f'{mean:.1f}' for mean in array.mean(axis=(0, 1)))}"


def _format(image_shape: tuple[int, int, int]) -> ArrayFormat:
    return ArrayFormat("image", image_shape, kept_as="uint8", given_as="uint8")


def _in_order(labels: Counter[int]) -> dict[str, int]:
    """Returns how many pictures each label has as JSON wants it."""
    return {str(label): labels[label] for label in sorted(labels)}
