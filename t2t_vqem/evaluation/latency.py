"""How fast models translate: one sentence at a time, and in batches; several models under one clock.

What a noisy machine does to a figure must not decide a comparison. So everything runs once before the clock
starts, models take turns sentence by sentence and batch by batch, in an order that rotates, and each time is
the median of three rounds.
"""

import functools
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from t2t_vqem.decoding.translator import InferenceModel, Translator, Vocabulary, rows_per_line
from t2t_vqem.evaluation.evenly import evenly
from t2t_vqem.progress import Progress
from t2t_vqem.training import record

BATCH = 32  # sentences, of the throughput figure
ROUNDS = 3
BATCHED = 10  # times as many sentences are timed in batches as one by one


class System:
    """A model as it is timed: from text to text as the decoder runs it, and from ids to ids.

    Attributes:
      lines: those timed one by one; `batches`, those timed in batches of 32 of similar length.
      parameters: numbers that inference reads, so not those of what serves in training alone.
    """

    def __init__(
        self, model: InferenceModel, vocabulary: Vocabulary, *, boundaries: Sequence[int], single: int = 100
    ):
        """Traces nothing yet; `boundaries` are lengths in tokens, `single` the lines to time one by one."""
        batch_tokens = BATCH * max(boundaries) * rows_per_line(model)
        self._translator = Translator(
            model, vocabulary, boundaries=boundaries, batch_tokens=batch_tokens, max_rows=BATCH
        )
        self._infer = self._translator.inference
        self._single, self._batched = single, BATCHED * single

    def prepare(self, sentences: Sequence[str], name: str = "the model") -> list[str]:
        """Returns the translations of `sentences`, and runs by that all that will be timed.

        That is, one by one, `single` sentences, and batches of ten times as many, both spread evenly over the
        whole; a sentence without text is in neither.

        Args:
          name: what the log calls the system.

        Raises ValueError if no sentence has text.
        """
        batched = [places for places, _ in self._translator.batches(sentences)]
        if not batched:
            raise ValueError("no sentences to time")
        windows = [[sentences[place] for place in places] for places in batched]
        outputs = [""] * len(sentences)
        progress = Progress(f"translating with {name}", len(windows), "batches")
        for places, texts in zip(batched, self._translator.translate_windows(windows), strict=True):
            for place, text in zip(places, texts, strict=True):
                outputs[place] = text
            progress.made()
        self.batches = [windows[i] for i in evenly(len(windows), math.ceil(self._batched / BATCH))]
        textual = sorted(place for places in batched for place in places)
        self.lines = [sentences[textual[i]] for i in evenly(len(textual), self._single)]
        self._ids = [ids for line in self.lines for _, ids in self._translator.batches([line])]
        for call in self.text_to_text([line] for line in self.lines):
            call()
        found = [self._infer(ids) for ids in self._ids]
        self.calls = [int(outputs["calls"]) for outputs in found if "calls" in outputs]
        self.parameters = self._infer.parameters(self._ids[0].shape[1])
        return outputs

    def text_to_text(self, windows: Iterable[Sequence[str]]) -> list[Callable[[], Any]]:
        """Returns a call for each window of lines that translates it."""
        return [functools.partial(self._translator.translate_window, window) for window in windows]

    def ids_to_ids(self) -> list[Callable[[], Any]]:
        """Returns a call for each of `lines` that infers the ids of its translation."""
        return [functools.partial(lambda ids: self._infer(ids)["outputs"].numpy(), ids) for ids in self._ids]


def conditions() -> dict[str, Any]:
    """Returns "machine" (`record.machine`) and "load_average", how busy it was in the minute before."""
    return {"machine": record.machine(), "load_average": os.getloadavg()[0]}


def measure(systems: Sequence[System]) -> list[dict[str, float]]:
    """Times systems that are prepared, in turns, and returns the figures of each.

    Over the sentences timed one by one, their number being `latency_sentences`: `latency_p50_ms` and
    `latency_p95_ms`, text in and text out; `infer_latency_p50_ms` and `infer_latency_p95_ms`, ids in and ids
    out, without tokenisation; `decoder_calls`, the mean of the sequential decoder calls that "calls" of
    `infer` tells, where it does. Over all (`throughput_sentences`): `sentences_per_second_batch_32`, text in
    and text out, the padding of each batch and smaller last batches included. And `parameters`.
    """
    ones = [system.text_to_text([line] for line in system.lines) for system in systems]
    inner = [system.ids_to_ids() for system in systems]
    singles = _in_turns("one sentence at a time", [*ones, *inner])
    batched = _in_turns(f"batches of {BATCH}", [system.text_to_text(system.batches) for system in systems])
    figures = []
    for number, system in enumerate(systems):
        sentences = sum(map(len, system.batches))
        values = {
            **_percentiles("latency", singles[number]),
            **_percentiles("infer_latency", singles[len(systems) + number]),
            "latency_sentences": len(system.lines),
            "sentences_per_second_batch_32": sentences / sum(batched[number]),
            "throughput_sentences": sentences,
            "parameters": system.parameters,
        }
        if system.calls:
            values["decoder_calls"] = float(np.mean(system.calls))
        figures.append(values)
    return figures


def _percentiles(name: str, seconds: np.ndarray) -> dict[str, float]:
    return {f"{name}_p{p}_ms": 1e3 * float(np.percentile(seconds, p)) for p in (50, 95)}


def _in_turns(what: str, contestants: Sequence[Sequence[Callable[[], Any]]]) -> list[np.ndarray]:
    """Returns the seconds that each contestant's calls take, the median over rounds; logs the progress."""
    seconds = [np.zeros([ROUNDS, len(calls)]) for calls in contestants]
    longest = max(map(len, contestants))
    progress = Progress(f"timing {what}", ROUNDS * longest, "turns")
    for turn in range(ROUNDS * longest):
        number, place = divmod(turn, longest)
        for i in range(len(contestants)):
            contestant = (turn + i) % len(contestants)
            if place < len(contestants[contestant]):
                begun = time.perf_counter()
                contestants[contestant][place]()
                seconds[contestant][number, place] = time.perf_counter() - begun
        progress.made()
    return [np.median(rounds, axis=0) for rounds in seconds]
