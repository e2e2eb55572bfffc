"""Problems that translate one text into another."""

from __future__ import annotations

import abc
import functools
import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import logging

from t2t_vqem import files
from t2t_vqem.errors import UserError, require
from t2t_vqem.problems import generation, shards, vocabulary
from t2t_vqem.problems.generated import GeneratedProblem
from t2t_vqem.problems.metrics import sacrebleu_scores
from t2t_vqem.problems.vocabulary import Vocabulary

if TYPE_CHECKING:
    import tensorflow as tf

    from t2t_vqem.problems.batches import Batching

VOCABULARY = "vocabulary.model"
_EMPTY = "pairs with an empty side"


class TranslationProblem(GeneratedProblem):
    """Pairs of sentences. A subclass sets `vocab_size` and `splits` and yields pairs from `samples`.

    Attributes:
      vocab_size: pieces of the joint vocabulary, at most; a small corpus may give fewer.
      model_type: of the vocabulary, "unigram" or "bpe".
      character_coverage: share of the training text's characters that get a piece of their own.
      main_metric: the figure of `score` that says most: the best checkpoint is that with the best of it.
    """

    content = "text"
    unit = "pairs"
    sampled = 500_000  # for the vocabulary: more cost memory and hours, and change few pieces
    vocab_size: int = 8000
    model_type: str = "unigram"
    character_coverage: float = 1.0
    main_metric: str = "bleu"

    def __init__(self, vocab_size: int | None = None):
        if vocab_size is not None:
            whole = type(vocab_size) is int and vocab_size >= 1
            require(whole, f"{self.name}.vocab_size", vocab_size, "a whole number above 0")
            self.vocab_size = vocab_size

    def dimensions(self, data_dir: str | None) -> dict[str, int]:
        return {"vocab_size": self.vocab_size if data_dir is None else self.vocabulary(data_dir).size}

    @abc.abstractmethod
    def samples(self, split: str) -> Iterator[tuple[str, str]]:
        """Yields (source, target) texts; each call yields the same pairs in the same order."""

    def settings(self) -> dict[str, Any]:
        vocabulary_settings = {
            "vocab_size": self.vocab_size,
            "model_type": self.model_type,
            "character_coverage": self.character_coverage,
        }
        return vocabulary_settings | super().settings()

    def admitted(self, split: str, left_out: Counter[str]) -> Iterator[tuple[str, str]]:
        """Yields a split's pairs but for those to train on that have an empty side."""
        training = split == self.train_split
        for number, pair in enumerate(self.samples(split)):
            source, target = pair
            if "\n" in source or "\n" in target:
                raise UserError(f"pair {number} of {self.name}, {split}, has a line break in it")
            if training and not (source.strip() and target.strip()):
                left_out[_EMPTY] += 1
                continue
            yield pair

    def as_bytes(self, example: tuple[str, str]) -> bytes:
        return f"{example[0]}\n{example[1]}\n".encode()

    def prepare(self, folder: str, sample: Sequence[tuple[str, str]]) -> list[str]:
        path = os.path.join(folder, VOCABULARY)
        if not os.path.exists(path):
            lines = [text for pair in sample for text in pair]
            files.write_atomic(path, self._make_vocabulary(folder, lines))
        return [VOCABULARY]

    @staticmethod
    def write_shard(folder: str, name: str, examples: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Tokenises pairs and writes them as a shard; runs in the workers."""
        pieces = Vocabulary.load(os.path.join(folder, VOCABULARY))
        inputs = pieces.encode([source for source, _ in examples])
        targets = pieces.encode([target for _, target in examples])
        records = (_record(*ids, *pair) for *ids, pair in zip(inputs, targets, examples, strict=True))
        entry = shards.write_records(os.path.join(folder, name), records)
        lengths = Counter(max(len(x), len(y)) for x, y in zip(inputs, targets, strict=True))
        return entry | {
            "examples": len(examples),
            "input_tokens": sum(map(len, inputs)),
            "target_tokens": sum(map(len, targets)),
            "lengths": {str(length): lengths[length] for length in sorted(lengths)},
        }

    def summary(self, entries: Sequence[Mapping[str, Any]], left_out: Counter[str]) -> dict[str, Any]:
        lengths = Counter()
        for entry in entries:
            lengths.update({int(length): count for length, count in entry["lengths"].items()})
        return {
            "empty_left_out": left_out[_EMPTY],
            "input_tokens": sum(entry["input_tokens"] for entry in entries),
            "target_tokens": sum(entry["target_tokens"] for entry in entries),
            "lengths": {str(length): lengths[length] for length in sorted(lengths)},
        }

    def account(self, folder: str) -> dict[str, Any]:
        pieces = Vocabulary.load(os.path.join(folder, VOCABULARY))
        return {"vocabulary": {"size": pieces.size, "hash": pieces.hash}}

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
        """Yields text and the pieces it is cut into, side by side."""
        pieces = self.vocabulary(data_dir)
        pairs = zip(*self.texts(split, data_dir), strict=True)
        for number, pair in enumerate(itertools.islice(pairs, count)):
            for side, text, ids in zip(("source", "target"), pair, pieces.encode(pair), strict=True):
                yield f"{split} {number} {side}: {text}"
                yield f"{split} {number} pieces: {' '.join(pieces.pieces(ids))}"

    def score(self, hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float | int | str]:
        """Returns the problem's metrics by name: sacreBLEU (13a, cased) and chrF of detokenised text, with signatures.

        Raises:
          ValueError: not as many hypotheses as references, or none.
        """
        return sacrebleu_scores(hypotheses, [references])

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


@functools.cache  # once, however often the split is read
def _report_too_long(name: str, split: str, count: int, examples: int, max_length: int, fate: str) -> None:
    share = 100.0 * count / examples
    text = "%s, %s: %d of %d examples (%.2f%%) are longer than %d pieces and are %s"
    logging.warning(text, name, split, count, examples, share, max_length, fate)


def _record(inputs: Sequence[int], targets: Sequence[int], source: str, target: str) -> bytes:
    import tensorflow as tf

    features = {
        "inputs": tf.train.Feature(int64_list=tf.train.Int64List(value=inputs)),
        "targets": tf.train.Feature(int64_list=tf.train.Int64List(value=targets)),
        "source": tf.train.Feature(bytes_list=tf.train.BytesList(value=[source.encode()])),
        "target": tf.train.Feature(bytes_list=tf.train.BytesList(value=[target.encode()])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)
