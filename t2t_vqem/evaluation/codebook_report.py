"""What a run's codebook is used for, over a whole split: every figure of `bin/codebook`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from t2t_vqem.bottlenecks import movement
from t2t_vqem.bottlenecks.bottleneck import Bottleneck
from t2t_vqem.decoding import pictures
from t2t_vqem.errors import UserError
from t2t_vqem.evaluation import codebook, codebook_picture_swaps, codebook_stability, codebook_swaps, patches
from t2t_vqem.evaluation.codebook_movement import Interval, between_checkpoints
from t2t_vqem.evaluation.codebook_patches import CodePatches, look
from t2t_vqem.evaluation.codebook_reading import Reading, read
from t2t_vqem.evaluation.codebook_text import CodeTexts
from t2t_vqem.evaluation.translation import forward
from t2t_vqem.models.model import Features, Model
from t2t_vqem.problems.batches import Batching
from t2t_vqem.training.runs import Run

_DIGITS = 6


class Report(NamedTuple):
    """What was found.

    Attributes:
      values: ready for JSON; see `report`.
      places: float32 [codes, slots, dim], what the decoder reads of each code.
    """

    values: dict[str, Any]
    places: np.ndarray


def require_codebook(run: Run) -> Bottleneck:
    """Returns the bottleneck of the run's model. Raises UserError unless it has one, of texts or pictures."""
    if run.problem.content not in ("text", "images"):
        raise UserError(
            f"bin/codebook works on text and images, and {run.problem.name} is a problem of {run.problem.content}"
        )
    if len(run.model.bottlenecks) != 1:
        what = "a model with several codebooks" if run.model.bottlenecks else "a model without a codebook"
        raise UserError(
            f"this is a run of {run.metadata.model}, {what}; --model_dir takes one with a single bottleneck, such as "
            "latent_nat or vqvae"
        )
    if run.problem.content == "images":
        pictures.require_codes(run.model, "bin/codebook")
    (bottleneck,) = run.model.bottlenecks.values()
    return bottleneck


def report(run: Run, model_dir: str, split: str) -> Report:
    """Reads a split with the run's model and returns its report.

    Of the values: "figures" are the numbers of the whole codebook, means over its slots where there are several;
    "slots" has for each slot its own "figures", "counts" and "half_counts" [2][codes], and "codes", those that
    occur, the most frequent first, with what `CodeTexts.of_slot` or `CodePatches.of_slot` tells of them and how like
    each other its halves are; "movement" the intervals between kept checkpoints, with `moved` [slots][codes]; "swaps"
    what `codebook_swaps.study` or `codebook_picture_swaps.study` returned, or None if the model cannot decode codes.

    Raises:
      UserError: the model has no codebook, the problem no such split; the data are missing.
    """
    bottleneck, problem, model = require_codebook(run), run.problem, run.model
    problem.require_split(split)
    places = movement.places(bottleneck)
    intervals = between_checkpoints(model_dir, model, bottleneck)
    subject = (_pictures if problem.content == "images" else _text)(run, split, bottleneck.num_codes)
    reading = subject.reading

    slots = _slots(reading, subject.meaning, bottleneck)
    counts = np.array([slot["counts"] for slot in slots])
    swapped = subject.swaps(codebook_swaps.choose(reading, counts))
    figures: dict[str, float | None] = {"examples": len(reading.features)}
    figures |= codebook.usage(counts) | reading.metrics
    figures |= _means([slot["figures"] for slot in slots], but=figures)
    if (size := bottleneck.usage().get("size")) is not None:  # of a codebook that chooses it
        figures["size"] = float(size)
    if intervals:
        figures["movement"] = float(intervals[-1].moved.mean())
    for name, value in (swapped or {}).items():
        if isinstance(value, float):
            figures[f"swap_{name}"] = value
    values = {
        "content": problem.content,
        "problem": run.metadata.problem,
        "model": run.metadata.model,
        "split": split,
        "step": run.step,
        "num_codes": bottleneck.num_codes,
        "num_slots": bottleneck.slots,
        **subject.facts,
        "figures": figures,
        "slots": slots,
        "movement": [_interval(interval) for interval in intervals],
        "swaps": swapped,
    }
    return Report(values, places)


class _Subject(NamedTuple):
    """What depends on whether a split is of texts or of pictures.

    Attributes:
      reading: its codes.
      meaning: what each code stands for.
      swaps: studies the swaps that `codebook_swaps.choose` chose.
      facts: what the report says of a position.
    """

    reading: Reading
    meaning: CodeTexts | CodePatches
    swaps: Callable[[list[codebook_swaps.Swap]], dict[str, Any] | None]
    facts: dict[str, Any]


def _text(run: Run, split: str, num_codes: int) -> _Subject:
    model, reading = run.model, _read(run, forward, split)
    group = getattr(model, "group", 1)
    in_place = getattr(model, "places", 1) == 1  # else an alignment decides where a token stands

    def swaps(chosen: list[codebook_swaps.Swap]) -> dict[str, Any] | None:
        if not hasattr(model, "decode_codes"):
            return None
        return codebook_swaps.study(model, run.vocabulary, reading, chosen, group if in_place else 0)

    meaning = CodeTexts(reading, run.vocabulary, group, num_codes)
    return _Subject(reading, meaning, swaps, {"tokens_per_code": group})


def _pictures(run: Run, split: str, num_codes: int) -> _Subject:
    model, reading = run.model, _read(run, look, split)
    meaning = CodePatches(reading, model.code_shape, patches.patch_shape(model), num_codes)

    def swaps(chosen: list[codebook_swaps.Swap]) -> dict[str, Any]:
        return codebook_picture_swaps.study(model, reading, chosen, meaning.patch_shape)

    return _Subject(reading, meaning, swaps, {"pixels_per_code": list(meaning.patch_shape)})


def _read(run: Run, look: Callable[[Model, Features], tuple], split: str) -> Reading:
    config = run.train_config
    batching = Batching(batch_tokens=config.batch_tokens, boundaries=config.boundaries)
    return read(lambda batch: look(run.model, batch), run.problem, run.metadata.data_dir, split, batching)


def _slots(
    reading: Reading, meaning: CodeTexts | CodePatches, bottleneck: Bottleneck
) -> list[dict[str, Any]]:
    """Returns what the report says of each slot."""
    second = codebook_stability.halves(len(reading.features))
    in_second = second[reading.examples]
    counts, *of_halves = (
        codebook.code_counts(reading.codes, mask, bottleneck.num_codes)
        for mask in (np.ones(len(in_second), bool), ~in_second, in_second)
    )
    found = []
    for slot in range(bottleneck.slots):
        likeness, by_chance = meaning.likeness(slot, second)
        halves = [half[slot] for half in of_halves]
        figures = codebook.usage(counts[slot : slot + 1]) | codebook_stability.agreement(*halves)
        figures |= {
            "compared_codes": len(likeness),
            meaning.figure: float(np.mean(list(likeness.values()))) if likeness else None,
            f"{meaning.figure}_by_chance": by_chance,
        }
        told, total = meaning.of_slot(slot), counts[slot].sum()
        order = [int(code) for code in np.argsort(-counts[slot], kind="stable") if counts[slot][code]]
        codes = [
            {
                "code": code,
                "count": int(counts[slot][code]),
                "share": float(counts[slot][code] / total),
                "likeness": likeness.get(code),
                **told[code],
            }
            for code in order
        ]
        found.append(
            {
                "figures": figures,
                "counts": counts[slot].tolist(),
                "half_counts": [half.tolist() for half in halves],
                "codes": codes,
            }
        )
    return found


def _means(rows: Sequence[Mapping[str, float | None]], but: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns the mean of each figure over the slots that have it, None where none has; not of those in `but`."""
    means = {}
    for name in rows[0].keys() - but.keys():
        values = [row[name] for row in rows if row[name] is not None]
        means[name] = float(np.mean(values)) if values else None
    return {name: means[name] for name in rows[0] if name in means}


def _interval(interval: Interval) -> dict[str, Any]:
    return {
        "start": interval.start,
        "end": interval.end,
        "mean": interval.moved.mean(axis=0).astype(float).round(_DIGITS).tolist(),
        "moved": interval.moved.T.astype(float).round(_DIGITS).tolist(),
    }
