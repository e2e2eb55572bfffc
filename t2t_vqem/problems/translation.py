"""Problems that translate one text into another."""

from __future__ import annotations

import abc
import functools
import hashlib
import itertools
import math
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import logging

from t2t_vqem import files
from t2t_vqem.errors import UserError
from t2t_vqem.problems import generation, shards, vocabulary
from t2t_vqem.problems.metrics import sacrebleu_scores
from t2t_vqem.problems.problem import Problem
from t2t_vqem.problems.vocabulary import Vocabulary

if TYPE_CHECKING:
    import tensorflow as tf

    from t2t_vqem.problems.batches import Batching

VOCABULARY = "vocabulary.model"
_VOCABULARY_PAIRS = 500_000  # more cost memory and hours, and change few pieces


class TranslationProblem(Problem):
    """Pairs of sentences. A subclass sets `vocab_size` and `splits` and yields pairs from `samples`.

    Attributes:
      vocab_size: pieces of the joint vocabulary, at most; a small corpus may give fewer.
      model_type: of the vocabulary, "unigram" or "bpe".
      character_coverage: share of the training text's characters that get a piece of their own.
      shard_size: pairs in a shard, at most.
      source_dir: the folder of published files, while data are generated from them.
    """

    vocab_size: int = 8000
    model_type: str = "unigram"
    character_coverage: float = 1.0
    shard_size: int = 16_384
    source_dir: str | None = None

    def __init__(self, vocab_size: int | None = None):
        if vocab_size is not None:
            self.vocab_size = vocab_size

    @abc.abstractmethod
    def samples(self, split: str) -> Iterator[tuple[str, str]]:
        """Yields (source, target) texts; each call yields the same pairs in the same order."""

    def source_files(self) -> list[str]:
        """Returns the paths of the files that `samples` reads, if it reads any."""
        return []

    def settings(self) -> dict[str, Any]:
        """Returns what decides the data beside their source; data of other settings are refused."""
        return {
            "vocab_size": self.vocab_size,
            "model_type": self.model_type,
            "character_coverage": self.character_coverage,
            "shard_size": self.shard_size,
        }

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
        sources = _describe_files(self.source_files())
        surveys = {split: _survey(self, split) for split in self.splits}
        made_of = {"problem": self.name, "settings": self.settings(), "sources": sources}
        plan = made_of | {"content": {split: survey.sha256 for split, survey in surveys.items()}}
        partial = final + ".partial"
        with generation.exclusive(partial):
            if os.path.exists(os.path.join(final, shards.MANIFEST)):  # another process was faster
                return self._complete(data_dir)
            generation.resume(partial, plan)
            path = os.path.join(partial, VOCABULARY)
            if not os.path.exists(path):
                files.write_atomic(path, self._make_vocabulary(partial, surveys[self.train_split].sample))
            entries = generation.write_shards(
                partial,
                self._shards(surveys),
                _write_pairs,
                total=sum(survey.pairs for survey in surveys.values()),
                workers=workers or os.cpu_count() or 1,
            )
            contents = _contents(os.path.join(partial, VOCABULARY), surveys, entries)
            manifest = made_of | self.provenance() | contents
            generation.publish(partial, final, manifest)
        return self.manifest(data_dir)

    def vocabulary(self, data_dir: str) -> Vocabulary:
        return Vocabulary.load(os.path.join(self.folder(data_dir), VOCABULARY))

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
        from t2t_vqem.problems import batches

        manifest = self.manifest(data_dir)
        paths = shards.split_paths(self.folder(data_dir), manifest, self.require_split(split))
        entry = manifest["splits"][split]
        too_long = batching.too_long({int(length): n for length, n in entry["lengths"].items()})
        if too_long:
            fate = "left out" if training else "truncated"
            _report_too_long(self.name, split, too_long, entry["examples"], batching.max_length, fate)
        if not training:
            return batches.evaluation_batches(paths, batching, input_pipeline=input_pipeline)
        if entry["examples"] - too_long < input_pipeline[1]:
            raise UserError(
                f"{too_long} of {entry['examples']} examples of {self.name}, {split}, are longer than "
                f"{batching.max_length} pieces, which leaves too few; give a longer last boundary"
            )
        return batches.training_batches(paths, batching, seed=seed, input_pipeline=input_pipeline)

    def batch_shapes(self, batching: Batching) -> list[dict[str, tuple[int, ...]]]:
        return batching.shapes()

    def texts(self, split: str, data_dir: str) -> tuple[list[str], list[str]]:
        """Returns the raw sources and references of a split; "index" in evaluation batches counts these."""
        import tensorflow as tf

        manifest = self.manifest(data_dir)
        paths = shards.split_paths(self.folder(data_dir), manifest, self.require_split(split))
        features = {side: tf.io.FixedLenFeature([], tf.string) for side in ("source", "target")}
        sources: list[str] = []
        references: list[str] = []
        for records in tf.data.TFRecordDataset(paths).batch(1024):
            parsed = tf.io.parse_example(records, features)
            sources += [text.decode() for text in parsed["source"].numpy()]
            references += [text.decode() for text in parsed["target"].numpy()]
        return sources, references

    def inspect(self, split: str, data_dir: str, count: int) -> Iterator[str]:
        """Yields lines that show the first examples of a split: text, and the pieces it is cut into."""
        pieces = self.vocabulary(data_dir)
        pairs = zip(*self.texts(split, data_dir), strict=True)
        for number, pair in enumerate(itertools.islice(pairs, count)):
            for side, text, ids in zip(("source", "target"), pair, pieces.encode(pair), strict=True):
                yield f"{split} {number} {side}: {text}"
                yield f"{split} {number} pieces: {' '.join(pieces.pieces(ids))}"

    def score(self, hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float | int | str]:
        """Returns sacreBLEU (13a, cased) and chrF of detokenised text, with their signatures.

        Raises:
          ValueError: not as many hypotheses as references, or none.
        """
        return sacrebleu_scores(hypotheses, [references])

    def _complete(self, data_dir: str) -> dict[str, Any]:
        """Returns the manifest of data that lie there, unless they were made of something else."""
        manifest = self.manifest(data_dir)
        remedy = f"choose another --data_dir or delete {self.folder(data_dir)}"
        for key, value in self.settings().items():
            there = manifest["settings"].get(key, value)  # a setting newer than the data
            if there != value:
                raise UserError(f"{self.folder(data_dir)} was made with {key}={there}, not {value}; {remedy}")
        try:
            sources = _describe_files(self.source_files())
        except UserError:  # the source is needed no more
            return manifest
        if sources and manifest["sources"] and sources != manifest["sources"]:
            raise UserError(f"{self.folder(data_dir)} was made from other source files; {remedy}")
        return manifest

    def _make_vocabulary(self, folder: str, lines: Sequence[str]) -> bytes:
        logging.info("datagen: training a vocabulary of %d pieces on %d lines", self.vocab_size, len(lines))
        start = time.monotonic()
        try:
            model = vocabulary.train(lines, self.vocab_size, self.model_type, self.character_coverage)
        except UserError:
            generation.discard(folder)
            raise
        logging.info("datagen: vocabulary trained in %.1f s", time.monotonic() - start)
        return model

    def _shards(self, surveys: Mapping[str, _Survey]) -> Iterator[generation.Shard]:
        """Yields the shards of all splits: contiguous stretches of the source, those to train on shuffled."""
        for split, survey in surveys.items():
            names, size = self._shard_names(split, survey.pairs)
            pairs = _pairs(self, split)
            digest = hashlib.sha256()
            for name in names:
                examples = list(itertools.islice(pairs, size))
                for pair in examples:
                    digest.update(_bytes(pair))
                if split == self.train_split:  # on disk, so that a small buffer is enough in training
                    random.Random(name).shuffle(examples)
                yield generation.Shard(name, examples)
            if digest.hexdigest() != survey.sha256 or next(pairs, None) is not None:
                raise UserError(
                    f"the pairs of {self.name}, {split}, are not the same each time they are read"
                )

    def _shard_names(self, split: str, pairs: int) -> tuple[list[str], int]:
        """Returns the names of a split's shards and how many pairs each but the last holds."""
        size = math.ceil(pairs / math.ceil(pairs / self.shard_size))
        count = math.ceil(pairs / size)
        return [shards.shard_name(split, i, count) for i in range(count)], size


@functools.cache  # once, however often the split is read
def _report_too_long(name: str, split: str, count: int, examples: int, max_length: int, fate: str) -> None:
    share = 100.0 * count / examples
    text = "%s, %s: %d of %d examples (%.2f%%) are longer than %d pieces and are %s"
    logging.warning(text, name, split, count, examples, share, max_length, fate)


class _Survey(NamedTuple):
    """What a first pass over a split finds out before anything is written."""

    pairs: int
    left_out: int  # pairs to train on with an empty side
    sha256: str
    sample: list[str]  # lines to train a vocabulary on


def _survey(problem: TranslationProblem, split: str) -> _Survey:
    """Reads a split once; keeps every n-th pair for the vocabulary, n growing with the corpus."""
    training = split == problem.train_split
    digest = hashlib.sha256()
    sample: list[tuple[str, str]] = []
    left_out = Counter()
    stride = 1
    count = 0
    start = time.monotonic()
    for pair in _pairs(problem, split, left_out):
        digest.update(_bytes(pair))
        if training and count % stride == 0:
            sample.append(pair)
            if len(sample) > _VOCABULARY_PAIRS:
                sample = sample[::2]
                stride *= 2
        count += 1
    if count == 0:
        raise UserError(f"the problem {problem.name} has no pairs in its split {split}")
    seconds = max(time.monotonic() - start, 1e-9)
    logging.info("datagen: %s: %d pairs read, %d pairs/s", split, count, count / seconds)
    if left_out:
        logging.warning("datagen: %s: %d pairs with an empty side are left out", split, left_out[split])
    return _Survey(count, left_out[split], digest.hexdigest(), [text for pair in sample for text in pair])


def _pairs(
    problem: TranslationProblem, split: str, left_out: Counter[str] | None = None
) -> Iterator[tuple[str, str]]:
    """Yields a split's pairs but for those to train on that have an empty side."""
    training = split == problem.train_split
    for number, pair in enumerate(problem.samples(split)):
        source, target = pair
        if "\n" in source or "\n" in target:
            raise UserError(f"pair {number} of {problem.name}, {split}, has a line break in it")
        if training and not (source.strip() and target.strip()):
            if left_out is not None:
                left_out[split] += 1
            continue
        yield pair


def _bytes(pair: tuple[str, str]) -> bytes:
    return f"{pair[0]}\n{pair[1]}\n".encode()


def _write_pairs(folder: str, name: str, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Tokenises pairs and writes them as a shard; runs in the workers."""
    pieces = Vocabulary.load(os.path.join(folder, VOCABULARY))
    inputs = pieces.encode([source for source, _ in pairs])
    targets = pieces.encode([target for _, target in pairs])
    records = (_example(*ids, *pair) for *ids, pair in zip(inputs, targets, pairs, strict=True))
    entry = shards.write_records(os.path.join(folder, name), records)
    lengths = Counter(max(len(x), len(y)) for x, y in zip(inputs, targets, strict=True))
    return entry | {
        "examples": len(pairs),
        "input_tokens": sum(map(len, inputs)),
        "target_tokens": sum(map(len, targets)),
        "lengths": {str(length): lengths[length] for length in sorted(lengths)},
    }


def _example(inputs: Sequence[int], targets: Sequence[int], source: str, target: str) -> bytes:
    import tensorflow as tf

    features = {
        "inputs": tf.train.Feature(int64_list=tf.train.Int64List(value=inputs)),
        "targets": tf.train.Feature(int64_list=tf.train.Int64List(value=targets)),
        "source": tf.train.Feature(bytes_list=tf.train.BytesList(value=[source.encode()])),
        "target": tf.train.Feature(bytes_list=tf.train.BytesList(value=[target.encode()])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def _contents(
    vocabulary_path: str, surveys: Mapping[str, _Survey], entries: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns the manifest's account of what was written."""
    pieces = Vocabulary.load(vocabulary_path)
    splits = {}
    for split, survey in surveys.items():
        names = sorted(name for name in entries if name.startswith(f"{split}-"))
        lengths = Counter()
        for name in names:
            lengths.update({int(length): count for length, count in entries[name]["lengths"].items()})
        splits[split] = {
            "examples": survey.pairs,
            "empty_left_out": survey.left_out,
            "shards": names,
            "input_tokens": sum(entries[name]["input_tokens"] for name in names),
            "target_tokens": sum(entries[name]["target_tokens"] for name in names),
            "lengths": {str(length): lengths[length] for length in sorted(lengths)},
        }
    files = {name: {key: entries[name][key] for key in ("bytes", "sha256")} for name in sorted(entries)}
    files[VOCABULARY] = shards.describe(vocabulary_path)
    return {"vocabulary": {"size": pieces.size, "hash": pieces.hash}, "splits": splits, "files": files}


def _describe_files(paths: Sequence[str]) -> list[dict[str, Any]]:
    """Returns name, size and SHA-256 of source files, sorted by name."""
    described = []
    for path in sorted(paths, key=os.path.basename):
        try:
            described.append({"name": os.path.basename(path)} | shards.describe(path))
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}; is --source_dir right?") from error
    return described
