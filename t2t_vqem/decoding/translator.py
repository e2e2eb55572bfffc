"""Text in, text out: the one translation function under files, pipes, the prompt and the evaluator."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf
from absl import logging

from t2t_vqem import fusion, search
from t2t_vqem.decoding.lines import windows
from t2t_vqem.errors import UserError

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


def rows_per_line(model: InferenceModel) -> int:
    """Returns how many rows of a batch the model makes of each line: of its search, its candidates or its outputs."""
    decoding = getattr(model, "decoding", None)
    return max(decoding.width, decoding.candidates, decoding.outputs) if decoding else 1


def rows_by_boundary(model: InferenceModel, boundaries: Sequence[int], batch_tokens: int) -> dict[int, int]:
    """Returns how many lines of each length make a batch: several candidates a line count as several lines."""
    width, decoding = rows_per_line(model), getattr(model, "decoding", None)
    rows = {boundary: max(1, batch_tokens // boundary // width) for boundary in boundaries}
    if decoding and decoding.compile:  # for `Inference` pads to a power of two
        rows = {boundary: 1 << (number.bit_length() - 1) for boundary, number in rows.items()}
    return rows


class Inference:
    """A model's `infer` as a program: for any shape, or, as `decode.compile` says, compiled for each.

    The first way serves every shape with one graph: a trace of each takes seconds and runs no faster. Compiled by
    XLA, which takes longer still, it runs about twice as fast: for a service that warms up, or a long job.
    """

    def __init__(self, model: InferenceModel):
        decoding = getattr(model, "decoding", None)
        self.compiled = decoding is not None and decoding.compile
        self._any_shape, self._each_shape = (_program(model, compiled) for compiled in (False, True))
        self._shapes: dict[tuple[int, int], bool] = {}  # whether one has a program of its own

    def __call__(self, inputs: np.ndarray) -> dict[str, tf.Tensor]:
        """Returns what `infer` does for int32 [rows, length]."""
        rows, program = len(inputs), self._any_shape
        if self.compiled:  # of one line or of a power of two, so that few shapes are compiled
            padded = np.pad(inputs, [[0, (1 << (rows - 1).bit_length()) - rows], [0, 0]])
            if self._compiles(padded.shape):
                inputs, program = padded, self._each_shape
        found = program(tf.constant(inputs))
        return {name: value[:rows] if value.shape.rank else value for name, value in found.items()}

    def _compiles(self, shape: tuple[int, int]) -> bool:
        """Returns whether inputs of `shape` have a program of their own, as all have that meet room for it."""
        if shape not in self._shapes:
            room = fusion.room_to_compile()
            if not room and all(self._shapes.values()):
                logging.warning(
                    "decode.compile: no more shapes of batches are compiled, the further ones are translated "
                    "uncompiled, for the system allows a process too few mappings of memory; raise vm.max_map_count"
                )
            self._shapes[shape] = room
        return self._shapes[shape]

    def parameters(self, length: int) -> int:
        """Returns how many numbers inference reads for a line of `length` tokens: not what training alone needs."""
        program = self._each_shape if self.compiled else self._any_shape
        program = program.get_concrete_function(tf.TensorSpec([1, length], tf.int32))
        return sum(math.prod(variable.shape) for variable in program.variables)


def _program(model: InferenceModel, compiled: bool) -> tf.types.experimental.PolymorphicFunction:
    def infer(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        with fusion.compiled_around(compiled):
            return dict(model.infer({"inputs": inputs}))

    signature = None if compiled else [tf.TensorSpec([None, None], tf.int32)]
    return tf.function(infer, input_signature=signature, jit_compile=compiled or None, autograph=False)


class Translator:
    """Translates lines with a model: exactly one output for each input, in order.

    A line is padded to the smallest boundary that holds it, so that what it becomes depends on the line
    alone, not on its neighbours. It reads the model's variables when it runs: a translator may be kept while the model
    goes on training.

    Attributes:
      inference: the program that maps ids to ids.
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
        rows = rows_by_boundary(model, self.boundaries, batch_tokens)
        self._rows = {boundary: min(number, max_rows or number) for boundary, number in rows.items()}
        self.inference = Inference(model)
        ids = tf.TensorSpec([None, None], tf.int32)
        self._detokenize = tf.function(
            lambda ids: vocabulary.tf_detokenize(ids), input_signature=[ids], autograph=False
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
        yield from map(self.translate_window, self.telling_of_cuts(source))

    def telling_of_cuts(self, source: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
        """Yields the windows of `source`, and logs at the end how many lines were cut by whoever translated them."""
        before, total = self.truncated, 0
        try:
            for window in source:
                total += len(window)
                yield window
        finally:
            if count := self.truncated - before:
                logging.warning(
                    "%d of %d lines were longer than %d tokens and were cut to it: the model reads no more.",
                    count, total, self.boundaries[-1],
                )  # fmt: skip

    def translate_window(
        self, window: Sequence[str], translated: Callable[[int], None] | None = None
    ) -> list[str]:
        """Translates lines together; `truncated` alone says how many were cut. `translated` is told of each batch."""
        outputs = [""] * len(window)
        for places, inputs in self.batches(window):
            for place, text in zip(places, self._texts(self.inference(inputs)["outputs"]), strict=True):
                outputs[place] = text
            if translated is not None:
                translated(len(places))
        return outputs

    def candidates(self, window: Sequence[str]) -> list[list[tuple[float, str]]]:
        """Returns the candidates of each line, the best first: log probability and text; none of a blank line."""
        found: list[list[tuple[float, str]]] = [[] for _ in window]
        for places, inputs in self.batches(window):
            inferred = self.inference(inputs)
            if "candidates" not in inferred:
                raise UserError(
                    "the model's infer() returns outputs alone, and neither candidates nor their scores"
                )
            rows, number, length = inferred["candidates"].shape
            texts = self._texts(tf.reshape(inferred["candidates"], [rows * number, length]))
            scores = inferred["scores"].numpy().tolist()
            for row, place in enumerate(places):
                own = zip(scores[row], texts[row * number : (row + 1) * number], strict=True)
                found[place] = [(score, text) for score, text in own if score > search.IMPOSSIBLE]
        return found

    def _texts(self, ids: tf.Tensor) -> list[str]:
        return [one_line(text.decode()) for text in self._detokenize(ids).numpy()]

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
