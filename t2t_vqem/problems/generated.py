"""Problems whose examples are generated once from a source that can be read again: text and pictures alike."""

from __future__ import annotations

import abc
import hashlib
import itertools
import math
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging

from t2t_vqem.errors import UserError
from t2t_vqem.problems import generation, shards
from t2t_vqem.problems.problem import Problem


class GeneratedProblem(Problem):
    """Reads its source twice: once to count and to hash, before anything is written, and once to write.

    Attributes:
      unit: what an example is called in messages, in the plural.
      shard_size: examples in a shard, at most.
      sampled: examples to train on that the first reading keeps for `prepare`, evenly spaced, at most.
      source_dir: the folder of published files, while data are generated from them.
    """

    unit: str = "examples"
    shard_size: int = 16_384
    sampled: int = 0
    source_dir: str | None = None

    @abc.abstractmethod
    def admitted(self, split: str, left_out: Counter[str]) -> Iterator[Any]:
        """Yields the examples of a split that are to be written, the same in the same order each time.

        Args:
          left_out: counts those of the source that are not, by what is the matter with them.

        Raises:
          UserError: the source is missing, or there is something in it that cannot be an example.
        """

    @abc.abstractmethod
    def as_bytes(self, example: Any) -> bytes:
        """Returns what tells an example from every other, to hash."""

    @staticmethod
    @abc.abstractmethod
    def write_shard(folder: str, name: str, examples: Sequence[Any]) -> dict[str, Any]:
        """Writes a shard, in a worker perhaps; returns its entry: "examples", "bytes", "sha256" and more."""

    @abc.abstractmethod
    def summary(self, entries: Sequence[Mapping[str, Any]], left_out: Counter[str]) -> dict[str, Any]:
        """Returns what else the manifest says of a split, whose shards have these entries."""

    def prepare(self, folder: str, sample: Sequence[Any]) -> list[str]:
        """Writes into `folder` what the shards need besides, unless it is there; returns the files' names."""
        return []

    def account(self, folder: str) -> dict[str, Any]:
        """Returns what the manifest says of all the data in `folder` together."""
        return {}

    def source_files(self) -> list[str]:
        """Returns the paths of the files that the examples are read from, if they are."""
        return []

    def sources(self) -> list[dict[str, Any]]:
        """Returns what tells the source from another, without machine or time.

        Raises:
          UserError: it cannot be read.
        """
        return _describe_files(self.source_files())

    def settings(self) -> dict[str, Any]:
        """Returns what decides the data beside their source; data of other settings are refused."""
        return {"shard_size": self.shard_size}

    def provenance(self) -> dict[str, Any]:
        """Returns what else the manifest says of where the data come from."""
        return {}

    def generate(
        self, data_dir: str, source_dir: str | None = None, workers: int | None = None
    ) -> dict[str, Any]:
        self.source_dir = source_dir
        final = self.folder(data_dir)
        if os.path.exists(os.path.join(final, shards.MANIFEST)):
            return self._complete(data_dir)
        made_of = {"problem": self.name, "settings": self.settings(), "sources": self.sources()}
        surveys = {split: self._survey(split) for split in self.splits}
        plan = made_of | {"content": {split: survey.sha256 for split, survey in surveys.items()}}
        partial = final + ".partial"
        with generation.exclusive(partial):
            if os.path.exists(os.path.join(final, shards.MANIFEST)):  # another process was faster
                return self._complete(data_dir)
            generation.resume(partial, plan)
            prepared = self.prepare(partial, surveys[self.train_split].sample)
            entries = generation.write_shards(
                partial,
                self._shards(surveys),
                self.write_shard,
                total=sum(survey.examples for survey in surveys.values()),
                workers=workers or os.cpu_count() or 1,
            )
            contents = self.account(partial) | self._contents(surveys, entries)
            contents["files"] |= {name: shards.describe(os.path.join(partial, name)) for name in prepared}
            generation.publish(partial, final, made_of | self.provenance() | contents)
        return self.manifest(data_dir)

    def _complete(self, data_dir: str) -> dict[str, Any]:
        """Returns the manifest of data that lie there, unless they were made of something else."""
        manifest = self.manifest(data_dir)
        remedy = f"choose another --data_dir or delete {self.folder(data_dir)}"
        for key, value in self.settings().items():
            there = manifest["settings"].get(key, value)  # a setting newer than the data
            if there != value:
                raise UserError(f"{self.folder(data_dir)} was made with {key}={there}, not {value}; {remedy}")
        try:
            sources = self.sources()
        except UserError:  # the source is needed no more
            return manifest
        if sources and manifest["sources"] and sources != manifest["sources"]:
            raise UserError(f"{self.folder(data_dir)} was made from other source files; {remedy}")
        return manifest

    def _survey(self, split: str) -> _Survey:
        """Reads a split once; keeps every n-th example for `prepare`, n growing with the corpus."""
        keep = self.sampled if split == self.train_split else 0
        digest = hashlib.sha256()
        sample: list[Any] = []
        left_out: Counter[str] = Counter()
        stride = 1
        count = 0
        start = time.monotonic()
        for example in self.admitted(split, left_out):
            digest.update(self.as_bytes(example))
            if keep and count % stride == 0:
                sample.append(example)
                if len(sample) > keep:
                    sample = sample[::2]
                    stride *= 2
            count += 1
        for what, number in left_out.items():
            logging.warning("datagen: %s: %d %s are left out", split, number, what)
        if count == 0:
            raise UserError(f"the problem {self.name} has no {self.unit} in its split {split}")
        seconds = max(time.monotonic() - start, 1e-9)
        logging.info("datagen: %s: %d %s read, %d a second", split, count, self.unit, count / seconds)
        return _Survey(count, left_out, digest.hexdigest(), sample)

    def _shards(self, surveys: Mapping[str, _Survey]) -> Iterator[generation.Shard]:
        """Yields the shards of all splits: contiguous stretches of the source, those to train on shuffled."""
        for split, survey in surveys.items():
            names, size = self._shard_names(split, survey.examples)
            admitted = self.admitted(split, Counter())
            digest = hashlib.sha256()
            for name in names:
                examples = list(itertools.islice(admitted, size))
                for example in examples:
                    digest.update(self.as_bytes(example))
                if split == self.train_split:  # on disk, so that a small buffer is enough in training
                    random.Random(name).shuffle(examples)
                yield generation.Shard(name, examples)
            if digest.hexdigest() != survey.sha256 or next(admitted, None) is not None:
                raise UserError(
                    f"the {self.unit} of {self.name}, {split}, are not the same each time they are read"
                )

    def _shard_names(self, split: str, examples: int) -> tuple[list[str], int]:
        """Returns the names of a split's shards and how many examples each but the last holds."""
        size = math.ceil(examples / math.ceil(examples / self.shard_size))
        count = math.ceil(examples / size)
        return [shards.shard_name(split, i, count) for i in range(count)], size

    def _contents(
        self, surveys: Mapping[str, _Survey], entries: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Returns the manifest's account of the shards that were written."""
        splits = {}
        for split, survey in surveys.items():
            names = sorted(name for name in entries if name.startswith(f"{split}-"))
            summary = self.summary([entries[name] for name in names], survey.left_out)
            splits[split] = {"examples": survey.examples, "shards": names} | summary
        files = {name: {key: entries[name][key] for key in ("bytes", "sha256")} for name in sorted(entries)}
        return {"splits": splits, "files": files}


class _Survey(NamedTuple):
    """What a first pass over a split finds out before anything is written."""

    examples: int
    left_out: Counter[str]
    sha256: str
    sample: list[Any]


def _describe_files(paths: Sequence[str]) -> list[dict[str, Any]]:
    """Returns name, size and SHA-256 of source files, sorted by name."""
    described = []
    for path in sorted(paths, key=os.path.basename):
        try:
            described.append({"name": os.path.basename(path)} | shards.describe(path))
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}; is --source_dir right?") from error
    return described
