"""Text in, text out: the one translation function under files, pipes, the prompt and the evaluator."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf
from absl import logging

from t2t_vqem.decoding.lines import windows

WINDOW_LINES = 4096  # lines batched together: enough to fill every bucket, few enough to answer soon


class Vocabulary(Protocol):
    """What a translator asks of a vocabulary (`problems.vocabulary.Vocabulary`)."""

    def encode(self, texts: list[str]) -> list[list[int]]: ...

    def tf_detokenize(self, ids: tf.Tensor) -> tf.Tensor: ...


class InferenceModel(Protocol):
    """What a translator asks of a model (`models.model.Model`)."""

    def infer(self, features: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]: ...


def one_line(text: str) -> str:
    """Returns `text` with every line break, in the widest sense (`str.splitlines`), replaced by a space."""
    return " ".join(text.splitlines())


class Translator:
    """Translates lines with a model: exactly one output for each input, in order.

    A line is padded to the smallest boundary that holds it, so that what it becomes depends on the line
    alone, not on its neighbours. One graph serves every batch shape: a trace for each takes seconds a shape
    and runs no faster. It reads the model's variables when it runs: a translator may be kept while the model
    goes on training.

    Attributes:
      truncated: lines cut to the last boundary so far.
    """

    def __init__(
        self,
        model: InferenceModel,
        vocabulary: Vocabulary,
        *,
        boundaries: Sequence[int],
        batch_tokens: int,
        max_rows: int | None = None,
    ):
        """Traces nothing yet.

        Args:
          boundaries: lengths in tokens, the final eos included.
          batch_tokens: padded source tokens of a full batch.
          max_rows: the most lines of a batch; None sets no limit.

        Raises ValueError if they allow no batch.
        """
        self.boundaries = sorted(set(boundaries))
        if not self.boundaries or self.boundaries[0] < 1 or batch_tokens < 1:
            raise ValueError(f"no batch has boundaries {list(boundaries)} and {batch_tokens} tokens")
        self._vocabulary = vocabulary
        self._rows = {b: max(1, min(batch_tokens // b, max_rows or batch_tokens)) for b in self.boundaries}
        self._infer = tf.function(  # ids in, strings out
            lambda inputs: vocabulary.tf_detokenize(model.infer({"inputs": inputs})["outputs"]),
            input_signature=[tf.TensorSpec([None, None], tf.int32)],
            autograph=False,
        )
        self.truncated = 0

    def translate(self, lines: Iterable[str]) -> Iterator[str]:
        """Yields one output line for each line, in order, in windows of some thousand lines.

        An empty or blank line gives an empty one. A line longer than the last boundary is cut to it; how many
        were is logged once, at the end. An output never holds a line break.
        """
        for outputs in self.translate_windows(windows(lines, WINDOW_LINES)):
            yield from outputs

    def translate_windows(self, source: Iterable[Sequence[str]]) -> Iterator[list[str]]:
        """The same for a source that decides itself which lines go together: a pipe, a prompt."""
        before, total = self.truncated, 0
        try:
            for window in source:
                total += len(window)
                yield self.translate_window(window)
        finally:
            if count := self.truncated - before:
                logging.warning(
                    "%d of %d lines were longer than %d tokens and were cut to it: the model reads no more.",
                    count, total, self.boundaries[-1],
                )  # fmt: skip

    def translate_window(self, window: Sequence[str]) -> list[str]:
        """Translates lines together; `truncated` alone says how many were cut."""
        outputs = [""] * len(window)
        for places, inputs in self.batches(window):
            texts = self._infer(tf.constant(inputs)).numpy()
            for place, text in zip(places, texts, strict=True):
                outputs[place] = one_line(text.decode())
        return outputs

    def batches(self, window: Sequence[str]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yields the batches that lines become: their places in `window`, and ids int32 [rows, boundary].

        A line without text is in none of them.
        """
        buckets: dict[int, list[tuple[int, list[int]]]] = {b: [] for b in self.boundaries}
        encoded = self._vocabulary.encode([one_line(line) for line in window])
        for place, (line, ids) in enumerate(zip(window, encoded, strict=True)):
            if not line.strip() or len(ids) < 2:  # nothing but the eos
                continue
            longest = self.boundaries[-1]
            if len(ids) > longest:
                self.truncated += 1
                ids = [*ids[: longest - 1], ids[-1]]
            boundary = next(b for b in self.boundaries if len(ids) <= b)
            buckets[boundary].append((place, ids))
        for boundary, examples in buckets.items():
            rows = self._rows[boundary]
            for start in range(0, len(examples), rows):
                batch = examples[start : start + rows]
                inputs = np.zeros([len(batch), boundary], np.int32)
                for row, (_, ids) in enumerate(batch):
                    inputs[row, : len(ids)] = ids
                yield [place for place, _ in batch], inputs
