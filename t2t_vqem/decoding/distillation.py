"""A teacher translates the training set of its problem: the data of `NAME_distill`."""

from collections.abc import Sequence
from typing import Protocol

from absl import logging

from t2t_vqem.decoding.translator import Translator
from t2t_vqem.progress import Progress


class Outputs(Protocol):
    """Where translations are kept, part by part (`problems.distilled.Outputs`)."""

    def parts(self, count: int) -> list[range]: ...

    def has(self, part: int) -> bool: ...

    def write(self, part: int, sources: Sequence[str], outputs: Sequence[str], truncated: int) -> None: ...


def translate(
    outputs: Outputs, sources: Sequence[str], translator: Translator, shard: tuple[int, int] = (0, 1)
) -> list[int]:
    """Has `translator` make the parts of one shard that are not there yet; returns the parts still missing.

    The lines of a part are batched by length. A part's bytes depend on its lines alone, so that a run which
    was killed, or several that share the work, end in the same outputs.

    Args:
      shard: (index, count): this process takes every count-th part.
    """
    index, count = shard
    parts = outputs.parts(len(sources))
    todo = [part for part in range(index, len(parts), count) if not outputs.has(part)]
    total = sum(len(parts[part]) for part in todo)
    logging.info("distiller: %d of %d parts to do, %d lines", len(todo), len(parts), total)
    progress = Progress("distiller", total, "sentences")
    for part in todo:
        own = sources[parts[part].start : parts[part].stop]
        before = translator.truncated
        outputs.write(
            part, own, translator.translate_window(own, progress.made), translator.truncated - before
        )
    if todo:
        progress.report()
    if translator.truncated:
        logging.warning(
            "distiller: %d sources were too long for the teacher and were cut", translator.truncated
        )
    return [part for part in range(len(parts)) if not outputs.has(part)]
