"""What a run tells: one log line now and then, and TensorBoard's events."""

import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from t2t_vqem.progress import clock
from t2t_vqem.training.record import Amounts

EVENTS_DIR = "events"

Value = float | str | np.ndarray
# What the step returns of each loss and metric: the sum over positions, and the number of positions.
Terms = Mapping[str, tuple[float, float]]


class Progress:
    """Adds up the calls between two log lines."""

    def __init__(self):
        self._sums: dict[str, list[float]] = {}
        self._steady = Amounts()

    def add(self, terms: Terms, amounts: Amounts, compiled: bool) -> None:
        """Adds one call; the rates leave out one that compiled."""
        for name, term in terms.items():
            sums = self._sums.setdefault(name, [0.0, 0.0])
            sums[0] += term[0]
            sums[1] += term[1]
        if not compiled:
            self._steady += amounts

    def means(self) -> dict[str, float]:
        """Returns each term's mean over its positions; a term without positions is left out."""
        return {name: total / weight for name, (total, weight) in self._sums.items() if weight > 0}

    def rates(self) -> dict[str, float]:
        """Returns tokens, padded tokens and examples a second; empty if every call compiled."""
        return self._steady.per_second()


def progress_line(
    step: int,
    last_step: int,
    *,
    means: Mapping[str, float],
    rates: Mapping[str, float],
    eta: float,
    tokens: bool,
) -> str:
    """Returns the log line.

    Args:
      eta: in seconds.
      tokens: whether there are any: of pictures and codes the examples count.
    """
    terms = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
    speed = "compiling"
    if rates:
        speed = f"examples/s {rates['examples_per_second']:.1f}"
        if tokens:
            padded = rates["padded_tokens_per_second"]
            speed = f"tokens/s {rates['tokens_per_second']:.0f} (padded {padded:.0f})  {speed}"
    return f"step {step}/{last_step}  {terms}  {speed}  ETA {clock(eta)}"


def evaluation_line(step: int, name: str, values: Mapping[str, Value], seconds: float) -> str:
    """Returns the log line of one evaluator's numbers."""
    terms = "  ".join(f"{key} {value:.4g}" for key, value in numbers(values).items())
    return f"evaluated {name} at step {step} in {seconds:.1f} s  {terms}"


def numbers(values: Mapping[str, Value]) -> dict[str, float]:
    """Returns those of an evaluator's values that are single numbers."""
    return {
        key: float(value)
        for key, value in values.items()
        if not isinstance(value, str) and not np.ndim(value)
    }


def figures(values: Mapping[str, Value]) -> dict[str, float | str]:
    """Returns the numbers of an evaluator's values, and the signatures of their metrics."""
    return numbers(values) | {key: value for key, value in values.items() if key.endswith("_signature")}


class Events:
    """Writes TensorBoard events below `model_dir/events`."""

    def __init__(self, model_dir: str):
        self._writer = tf.summary.create_file_writer(os.path.join(model_dir, EVENTS_DIR))

    def training(self, step: int, means: Mapping[str, float], rates: Mapping[str, float]) -> None:
        """Writes the losses and metrics by name, and the rates."""
        with self._writer.as_default(step):
            for name, value in means.items():
                tf.summary.scalar(f"train/{name}", value)
            for name, value in rates.items():
                tf.summary.scalar(f"speed/{name}", value)

    def codebooks(self, step: int, codebooks: Mapping[str, Mapping[str, tf.Tensor | float]]) -> None:
        """Writes what a `CodebookWatch` saw of each codebook: numbers as scalars, the codes' counts as a histogram."""
        with self._writer.as_default(step):
            for name, figures in codebooks.items():
                for key, value in figures.items():
                    write = tf.summary.histogram if np.ndim(value) else tf.summary.scalar
                    write(f"codebook/{name}/{key}", value)

    def evaluation(self, step: int, name: str, values: Mapping[str, Value]) -> None:
        """Writes an evaluator's values: numbers, texts as Markdown, arrays as histograms.

        An array of three dimensions is a picture, uint8 [height, width, channels].
        """
        with self._writer.as_default(step):
            for key, value in values.items():
                if isinstance(value, str):
                    tf.summary.text(f"{name}/{key}", value)
                elif np.ndim(value) == 3:
                    tf.summary.image(f"{name}/{key}", value[None])
                elif np.ndim(value):
                    tf.summary.histogram(f"{name}/{key}", value)
                else:
                    tf.summary.scalar(f"{name}/{key}", value)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
