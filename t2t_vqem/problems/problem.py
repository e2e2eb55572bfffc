"""The contract of a problem: what training, decoding and evaluation may know of what is to be learnt."""

from __future__ import annotations

import abc
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from t2t_vqem.errors import UserError, near
from t2t_vqem.problems import shards

if TYPE_CHECKING:
    import tensorflow as tf

    from t2t_vqem.problems.batches import Batching
    from t2t_vqem.problems.vocabulary import Vocabulary


class Problem(abc.ABC):
    """What to learn: examples on disk, and batches of them.

    What a kind of problem has besides is its own: a `TranslationProblem` a vocabulary, raw texts and metrics, an
    `ImageProblem` the pictures' shape and labels.

    Attributes:
      name: the registered name, and the folder of the data below `data_dir`.
      content: what its examples are, "text", "images" or "codes".
      splits: the names of the splits; the first is trained on.
      dev_split: the split that checkpoints are chosen by.
    """

    name: str = ""
    content: str = ""
    splits: tuple[str, ...] = ("train", "val", "test")
    dev_split: str = "val"

    @property
    def train_split(self) -> str:
        return self.splits[0]

    @abc.abstractmethod
    def dimensions(self, data_dir: str | None) -> dict[str, Any] | None:
        """Returns what a model must be told of the data, the first arguments of its constructor, by name.

        None stands for data that are not made yet, of which that is returned which the model can do with meanwhile:
        None if that is nothing.
        """

    def vocabulary(self, data_dir: str) -> Vocabulary | None:
        """Returns the vocabulary of texts; None where the examples are no texts."""
        return None

    @property
    def test_splits(self) -> tuple[str, ...]:
        return tuple(split for split in self.splits[1:] if split != self.dev_split)

    @abc.abstractmethod
    def generate(
        self, data_dir: str, source_dir: str | None = None, workers: int | None = None
    ) -> dict[str, Any]:
        """Writes the examples once and returns their manifest; cheap where they lie complete already.

        Args:
          data_dir: the folder that holds one folder a problem.
          source_dir: the published files, for problems that are made from files.
          workers: processes; None takes one a core. The bytes written do not depend on it.

        Raises:
          UserError: the source is missing or bad, the disk is full, or other data lie there.
        """

    @abc.abstractmethod
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
        """Returns batches of the split, as `problems.batches` describes them; without end if `training`.

        Args:
          input_pipeline: (index, count) of this reader among the readers that share the split.
        """

    @abc.abstractmethod
    def batch_shapes(self, batching: Batching) -> list[dict[str, tuple[int, ...]]]:
        """Returns the shapes of the training batches, one a bucket, the smallest bucket first."""

    @abc.abstractmethod
    def inspect(self, split: str, data_dir: str, count: int) -> Iterator[str]:
        """Yields lines that show the first `count` examples of a split."""

    def folder(self, data_dir: str) -> str:
        """Returns the folder below `data_dir` that holds this problem's data."""
        return os.path.join(data_dir, self.name)

    def manifest(self, data_dir: str) -> dict[str, Any]:
        """Returns the manifest, after a look at the size of every file it names.

        Raises:
          UserError: no data, or a file of another size than the manifest's.
        """
        return shards.read_manifest(self.folder(data_dir), self.name)

    def check(self, data_dir: str) -> dict[str, Any]:
        """Reads every byte of the data once and returns the manifest.

        Raises:
          UserError: no data, or a file whose size or SHA-256 is not the manifest's; the text names the file.
        """
        manifest = self.manifest(data_dir)
        shards.verify(self.folder(data_dir), manifest)
        return manifest

    def fingerprint(self, data_dir: str) -> str:
        """Returns a hash of the data, vocabulary included: equal data, equal fingerprint."""
        return shards.fingerprint(self.manifest(data_dir))

    def require_content(self, content: str, reader: str) -> None:
        """Raises a UserError unless the examples are `content`, which `reader` ("the model nat", say) works on."""
        if self.content != content:
            raise UserError(
                f"{reader} works on {content}, and the problem {self.name} is one of {self.content}; "
                "choose another of the two"
            )

    def require_split(self, split: str) -> str:
        """Returns `split`, or raises a UserError that names the nearest splits."""
        if split not in self.splits:
            raise UserError(f'the problem {self.name} has no split "{split}"{near(split, self.splits)}')
        return split
