"""How fast a model translates: one sentence at a time, and in batches."""

import os
import platform
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from t2t_vqem.decoding.translator import InferenceModel, Translator, Vocabulary

BATCH = 32  # sentences, of the throughput figure


def measure(
    model: InferenceModel,
    vocabulary: Vocabulary,
    sentences: Sequence[str],
    *,
    boundaries: Sequence[int],
    single: int = 100,
) -> dict[str, float | str]:
    """Times the translation of `sentences`, text in and text out, tokenisation included.

    Everything is translated once beforehand, so that no graph is traced under the clock. The first `single`
    sentences are then timed one by one: `latency_p50_ms` and `latency_p95_ms`. All of them are timed in
    batches of 32 of similar length, the padding of the last ones included: `sentences_per_second_batch_32`.
    `machine` says on what, `load_average` how busy it had been in the minute before.

    Raises ValueError if there are no sentences.
    """
    if not sentences:
        raise ValueError("no sentences to time")
    load = os.getloadavg()[0]
    translator = Translator(
        model, vocabulary, boundaries=boundaries, batch_tokens=BATCH * max(boundaries), max_rows=BATCH
    )
    ones = sentences[:single]
    list(translator.translate_windows([s] for s in ones))
    milliseconds = []
    for sentence in ones:
        start = time.perf_counter()
        list(translator.translate([sentence]))
        milliseconds.append(1e3 * (time.perf_counter() - start))
    list(translator.translate(sentences))
    start = time.perf_counter()
    list(translator.translate(sentences))
    seconds = time.perf_counter() - start
    return {
        "latency_p50_ms": float(np.percentile(milliseconds, 50)),
        "latency_p95_ms": float(np.percentile(milliseconds, 95)),
        "latency_sentences": float(len(ones)),
        "sentences_per_second_batch_32": len(sentences) / seconds,
        "throughput_sentences": float(len(sentences)),
        "machine": machine(),
        "load_average": load,
    }


def machine() -> str:
    """Names the processor, the cores this process may use, and the accelerators TensorFlow sees."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next(
                (line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), name
            )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    accelerators = [
        tf.config.experimental.get_device_details(device).get("device_name", device.device_type)
        for device in tf.config.list_physical_devices()
        if device.device_type != "CPU"
    ]
    return ", ".join([f"{cores} cores of {name}", *accelerators])
