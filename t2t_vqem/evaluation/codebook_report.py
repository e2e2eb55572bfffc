"""What a run's codebook is used for, over a whole split: every figure of `bin/codebook`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from t2t_vqem.bottlenecks import movement
from t2t_vqem.bottlenecks.bottleneck import Bottleneck
from t2t_vqem.errors import UserError
from t2t_vqem.evaluation import codebook, codebook_stability, codebook_swaps
from t2t_vqem.evaluation.codebook_movement import Interval, between_checkpoints
from t2t_vqem.evaluation.codebook_reading import Reading, read
from t2t_vqem.evaluation.codebook_text import CodeTexts
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
    """Returns the bottleneck of the run's model. Raises UserError if it has none."""
    if not run.model.bottlenecks:
        raise UserError(
            f"this is a run of {run.metadata.model}, a model without a codebook; --model_dir takes one with a "
            "bottleneck, such as latent_nat"
        )
    (bottleneck,) = run.model.bottlenecks.values()
    return bottleneck


def report(run: Run, model_dir: str, split: str) -> Report:
    """Reads a split with the run's model and returns its report.

    Of the values: "figures" are the numbers of the whole codebook, means over its slots where there are several;
    "slots" has for each slot its own "figures", "counts" and "half_counts" [2][codes], and "codes", those that
    occur, the most frequent first, with the texts of `CodeTexts.of_slot` and the "overlap" of
    its halves; "movement" the intervals between kept checkpoints, with `moved` [slots][codes]; "swaps" what
    `codebook_swaps.study` returned, or None for a model that cannot decode codes.

    Raises:
      UserError: the model has no codebook, the problem no such split; the data are missing.
    """
    bottleneck, problem, model = require_codebook(run), run.problem, run.model
    problem.require_split(split)
    config, data_dir = run.train_config, run.metadata.data_dir
    batching = Batching(batch_tokens=config.batch_tokens, boundaries=config.boundaries)
    places = movement.places(bottleneck)
    intervals = between_checkpoints(model_dir, model, bottleneck)
    reading = read(model, problem, data_dir, split, batching)
    group = getattr(model, "group", 1)

    slots = _slots(reading, CodeTexts(reading, run.vocabulary, group, bottleneck.num_codes), bottleneck)
    counts = np.array([slot["counts"] for slot in slots])
    swapped = None
    if hasattr(model, "decode_codes"):
        in_place = getattr(model, "places", 1) == 1  # else an alignment decides where a token stands
        chosen = codebook_swaps.choose(reading, counts)
        swapped = codebook_swaps.study(model, run.vocabulary, reading, chosen, group if in_place else 0)
    figures: dict[str, float | None] = {"examples": len(reading.features)}
    figures |= codebook.usage(counts) | reading.metrics
    figures |= _means([slot["figures"] for slot in slots], but=figures)
    if intervals:
        figures["movement"] = float(intervals[-1].moved.mean())
    for name in ("changed", "changed_inside", "changed_outside"):
        if swapped and name in swapped:
            figures[f"swap_{name}"] = swapped[name]
    values = {
        "problem": run.metadata.problem,
        "model": run.metadata.model,
        "split": split,
        "step": run.step,
        "num_codes": bottleneck.num_codes,
        "num_slots": bottleneck.slots,
        "tokens_per_code": group,
        "figures": figures,
        "slots": slots,
        "movement": [_interval(interval) for interval in intervals],
        "swaps": swapped,
    }
    return Report(values, places)


def _slots(reading: Reading, texts: CodeTexts, bottleneck: Bottleneck) -> list[dict[str, Any]]:
    """Returns what the report says of each slot."""
    second = codebook_stability.halves(len(reading.features))
    in_second = second[reading.examples]
    counts, *of_halves = (
        codebook.code_counts(reading.codes, mask, bottleneck.num_codes)
        for mask in (np.ones(len(in_second), bool), ~in_second, in_second)
    )
    found = []
    for slot in range(bottleneck.slots):
        overlaps, by_chance = texts.overlaps(slot, second)
        halves = [half[slot] for half in of_halves]
        figures = codebook.usage(counts[slot : slot + 1]) | codebook_stability.agreement(*halves)
        figures |= {
            "compared_codes": len(overlaps),
            "top_overlap": float(np.mean(list(overlaps.values()))) if overlaps else None,
            "top_overlap_by_chance": by_chance,
        }
        told, total = texts.of_slot(slot), counts[slot].sum()
        order = [int(code) for code in np.argsort(-counts[slot], kind="stable") if counts[slot][code]]
        codes = [
            {
                "code": code,
                "count": int(counts[slot][code]),
                "share": float(counts[slot][code] / total),
                "overlap": overlaps.get(code),
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
