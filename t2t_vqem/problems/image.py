"""Problems of labelled pictures, all of one size."""

from __future__ import annotations

import abc
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from t2t_vqem.errors import UserError
from t2t_vqem.problems import shards
from t2t_vqem.problems.generated import GeneratedProblem

if TYPE_CHECKING:
    import tensorflow as tf

    from t2t_vqem.problems.batches import Batching

Sample = tuple[np.ndarray, int]
"""A picture, uint8 [height, width, channels], and its label."""

_BAD = "files that are no such pictures"


class ImageProblem(GeneratedProblem):
    """Pictures with a class each. A subclass sets shape and classes and yields pictures from `samples`.

    Batches are {"inputs": int32 [steps, rows], the labels; "targets": uint8 [steps, rows, height, width, channels]};
    in evaluation without the axis of steps, and with "index", int32 [rows]. `Batching.batch_tokens` counts the
    numbers of "targets".

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
        entry = shards.write_records(os.path.join(folder, name), itertools.starmap(_record, examples))
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

    def dataset(
        self,
        split: str,
        data_dir: str,
        batching: Batching,
        *,
        training: bool,
        seed: int = 0,
        input_pipeline: tuple[int, int] = (0, 1),
    ) -> tf.data.Dataset:
        from t2t_vqem.problems import image_batches

        manifest = self.manifest(data_dir)
        paths = shards.split_paths(self.folder(data_dir), manifest, self.require_split(split))
        if not training:
            return image_batches.evaluation_batches(
                paths, self.image_shape, batching, input_pipeline=input_pipeline
            )
        examples, readers = manifest["splits"][split]["examples"], input_pipeline[1]
        if examples < readers:
            raise UserError(f"{self.name}, {split}, has {examples} pictures for {readers} workers")
        return image_batches.training_batches(
            paths, self.image_shape, batching, seed=seed, input_pipeline=input_pipeline
        )

    def batch_shapes(self, batching: Batching) -> list[dict[str, tuple[int, ...]]]:
        """Returns the one shape that all training batches have.

        Raises:
          UserError: it is not known yet, see `image_shape`.
        """
        if self.image_shape is None:
            raise UserError(
                f"the size of the pictures of {self.name} is not known before bin/datagen has run"
            )
        leading = (batching.steps_per_call, batching.rows(int(np.prod(self.image_shape))))
        return [{"inputs": leading, "targets": (*leading, *self.image_shape)}]

    def inspect(self, split: str, data_dir: str, count: int) -> Iterator[str]:
        """Yields a line a picture: its label, its shape and the mean of each channel, from 0 to 255."""
        import tensorflow as tf

        from t2t_vqem.problems import image_batches

        manifest = self.manifest(data_dir)
        paths = shards.split_paths(self.folder(data_dir), manifest, self.require_split(split))
        shape = " x ".join(map(str, self.image_shape))
        for number, record in enumerate(tf.data.TFRecordDataset(paths).take(count)):
            parsed = image_batches.parse(record[None], self.image_shape)
            label = int(parsed["inputs"][0])
            name = f" ({self.label_names[label]})" if self.label_names else ""
            means = " ".join(f"{mean:.1f}" for mean in parsed["targets"][0].numpy().mean(axis=(0, 1)))
            yield f"{split} {number}: label {label}{name}, {shape}, mean {means}"


def _record(picture: np.ndarray, label: int) -> bytes:
    import tensorflow as tf

    features = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture.tobytes()])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def _in_order(labels: Counter[int]) -> dict[str, int]:
    """Returns how many pictures each label has as JSON wants it."""
    return {str(label): labels[label] for label in sorted(labels)}
