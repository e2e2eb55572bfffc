"""Problems whose examples are arrays of one shape with a label each: pictures, and the codes of pictures."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from t2t_vqem.errors import UserError
from t2t_vqem.problems import shards
from t2t_vqem.problems.problem import Problem

if TYPE_CHECKING:
    import tensorflow as tf

    from t2t_vqem.problems.batches import Batching


class ArrayFormat(NamedTuple):
    """How the arrays lie on disk, and what becomes of them in a batch.

    Attributes:
      name: of the feature in a record.
      shape: of each array.
      kept_as, given_as: the types on disk, little-endian, and in batches; "uint8", "uint16" or "int32".
    """

    name: str
    shape: tuple[int, ...]
    kept_as: str
    given_as: str

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.numbers * np.dtype(self.kept_as).itemsize


class LabelledProblem(Problem):
    """Batches are {"inputs": int32 [steps, rows], the labels; "targets": [steps, rows, *shape], the arrays}.

    In evaluation they are without the axis of steps, and with "index", int32 [rows]: the array's place in the split,
    -1 for the rows of zeros that fill the last batch. `Batching.batch_tokens` counts the numbers of "targets".

    Attributes:
      unit: what an example is called in messages, in the plural.
    """

    unit: str = "arrays"

    @property
    @abc.abstractmethod
    def array_format(self) -> ArrayFormat:
        """What the arrays are.

        Raises:
          UserError: that is not known before the data are made or their manifest is read.
        """

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
        from t2t_vqem.problems import array_batches

        manifest = self.manifest(data_dir)
        paths = shards.split_paths(self.folder(data_dir), manifest, self.require_split(split))
        if not training:
            return array_batches.evaluation_batches(
                paths, self.array_format, batching, input_pipeline=input_pipeline
            )
        examples, readers = manifest["splits"][split]["examples"], input_pipeline[1]
        if examples < readers:
            raise UserError(f"{self.name}, {split}, has {examples} {self.unit} for {readers} workers")
        return array_batches.training_batches(
            paths, self.array_format, batching, seed=seed, input_pipeline=input_pipeline
        )

    def batch_shapes(self, batching: Batching) -> list[dict[str, tuple[int, ...]]]:
        """Returns the one shape that all training batches have.

        Raises:
          UserError: it is not known yet, see `array_format`.
        """
        stored = self.array_format
        leading = (batching.steps_per_call, batching.rows(stored.numbers))
        return [{"inputs": leading, "targets": (*leading, *stored.shape)}]

    def inspect(self, split: str, data_dir: str, count: int) -> Iterator[str]:
        """Yields a line an array: its label, its shape and what `described` says of it."""
        import tensorflow as tf

        from t2t_vqem.problems import array_batches

        manifest = self.manifest(data_dir)
        paths = shards.split_paths(self.folder(data_dir), manifest, self.require_split(split))
        stored, names = self.array_format, manifest["label_names"]
        shape = " x ".join(map(str, stored.shape))
        for number, record in enumerate(tf.data.TFRecordDataset(paths).take(count)):
            parsed = array_batches.parse(record[None], stored)
            label = int(parsed["inputs"][0])
            name = f" ({names[label]})" if names else ""
            yield f"{split} {number}: label {label}{name}, {shape}{self.described(parsed['targets'][0].numpy())}"

    @abc.abstractmethod
    def described(self, array: np.ndarray) -> str:
        """Returns what `inspect` says of an array behind its shape."""
