"""What changes in the output when one of its codes is another.

Examples that are spread evenly over the split are decoded from their true codes, and again with a single code
replaced by the most frequent other one. `study` does so with texts, `codebook_picture_swaps` with pictures. A code
that stands for its own stretch of the target changes that stretch alone; what changes elsewhere shows how far the
decoder reads a code in the light of the others.
"""

import difflib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from t2t_vqem.decoding.translator import one_line
from t2t_vqem.evaluation.codebook_reading import Reading
from t2t_vqem.evaluation.evenly import evenly
from t2t_vqem.models.model import Model
from t2t_vqem.problems.vocabulary import PAD_ID, Vocabulary

_MOST = 256
_SHOWN = 12  # swaps that a report shows
_ROWS = 32  # examples decoded together


class Swap(NamedTuple):
    """One code of one example in the place of another.

    Attributes:
      example, position, slot: where; `position` among the latents of the example.
      code, replacement: what stood there, and what stands there now.
    """

    example: int
    position: int
    slot: int
    code: int
    replacement: int


def choose(reading: Reading, counts: np.ndarray, most: int = _MOST) -> list[Swap]:
    """Returns at most one swap an example, the same each time.

    Positions and slots take turns, so that all are met; the replacement is the slot's most frequent other code. A slot
    of which a single code is in use has none.

    Args:
      counts: how often each code occurs, [slots, num_codes].
      most: so many examples with codes, evenly spaced over the split.
    """
    starts = np.flatnonzero(reading.positions == 0)
    ends = np.append(starts[1:], len(reading.positions))
    found = []
    for number, place in enumerate(evenly(len(starts), most)):
        latents = int(ends[place] - starts[place])
        position, slot = number % latents, number % counts.shape[0]
        code = int(reading.codes[starts[place] + position, slot])
        first, second = np.argsort(-counts[slot], kind="stable")[:2].tolist()
        replacement = second if code == first else first
        if counts[slot, replacement] == 0:
            continue
        found.append(Swap(int(reading.examples[starts[place]]), position, slot, code, replacement))
    return found


def decoded(
    chosen: list[Swap],
    batch: Callable[[list[Swap]], tuple[np.ndarray, tuple]],
    decode: Callable[..., tf.Tensor],
) -> Iterator[tuple[Swap, np.ndarray, np.ndarray, bool]]:
    """Yields each swap, what its example's true codes and the changed ones become, and whether a report shows it.

    Args:
      batch: some of the swaps -> the true codes of their examples [rows, latents, slots], and what else `decode` takes.
      decode: (codes, *others) -> outputs [rows, ...].
    """
    shown = set(evenly(len(chosen), _SHOWN))
    for start in range(0, len(chosen), _ROWS):
        part = chosen[start : start + _ROWS]
        codes, others = batch(part)
        swapped = codes.copy()
        for row, swap in enumerate(part):
            swapped[row, swap.position, swap.slot] = swap.replacement
        before, after = (decode(these, *others).numpy() for these in (codes, swapped))
        for row, swap in enumerate(part):
            yield swap, before[row], after[row], start + row in shown


def study(
    model: Model, vocabulary: Vocabulary, reading: Reading, chosen: list[Swap], group: int
) -> dict[str, Any]:
    """Decodes the swaps of `choose` with a model that has `encode` and `decode_codes`.

    Args:
      group: output tokens that a code stands for, one after the other; 0 where outputs have no such places.

    Returns:
      "sentences", how many were decoded; "changed": the share of all output tokens that differ, place by place, or
      where `group` is 0 have no partner when the two outputs are aligned; "changed_inside" and "changed_outside": the
      share within the `group` places of the code that was replaced, and in all others, where `group` is not 0;
      "shown", some of the swaps as text: "source", "before", "after".
    """
    sums = np.zeros([2, 2])  # [outside and inside, changed and all]
    shown, decode = [], _decoder(model, reading.codes.shape[1])
    for swap, before, after, show in decoded(chosen, lambda part: _batch(reading, part), decode):
        sums += _differences(before, after, group, swap.position) if group else _unmatched(before, after)
        if show:
            inputs = reading.features[swap.example]["inputs"]
            texts = vocabulary.decode([ids.tolist() for ids in (inputs, before, after)])
            source, *outputs = map(one_line, texts)
            shown.append({"source": source, "before": outputs[0], "after": outputs[1], **swap._asdict()})
    shares = {"changed": sums.sum(axis=0)}
    if group:
        shares |= {"changed_inside": sums[1], "changed_outside": sums[0]}
    figures = {name: changed / total for name, (changed, total) in shares.items() if total}
    return {"sentences": len(chosen), **figures, "shown": shown}


def _differences(before: np.ndarray, after: np.ndarray, group: int, position: int) -> np.ndarray:
    """Returns how many tokens differ place by place, and how many there are: [outside and inside, 2]."""
    real, differs = (before != PAD_ID) | (after != PAD_ID), before != after
    inside = np.arange(len(before)) // group == position
    kinds = (real & ~inside, real & inside)
    return np.array([[np.count_nonzero(differs & kind), np.count_nonzero(kind)] for kind in kinds])


def _unmatched(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Returns how many tokens of both outputs have no partner in the other, and how many there are, all "outside"."""
    both = [outputs[outputs != PAD_ID].tolist() for outputs in (before, after)]
    matches = difflib.SequenceMatcher(None, *both, autojunk=False).get_matching_blocks()
    total = sum(map(len, both))
    return np.array([[total - 2 * sum(match.size for match in matches), total], [0, 0]])


def _decoder(model: Model, slots: int) -> Callable[[np.ndarray, np.ndarray, np.ndarray], tf.Tensor]:
    codes = tf.TensorSpec([None, None, slots], tf.int32)
    mask, ids = (tf.TensorSpec([None, None], dtype) for dtype in (tf.bool, tf.int32))

    def decode(codes: tf.Tensor, mask: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
        return model.decode_codes(codes, mask, *model.encode(inputs))[0][:, 0]

    signature = [codes, mask, ids]
    return tf.function(decode, input_signature=signature, autograph=False)


def _batch(reading: Reading, part: list[Swap]) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Returns true codes [rows, latents, slots], and their mask [rows, latents] and inputs [rows, length]."""
    sources = [reading.features[swap.example]["inputs"] for swap in part]
    true = [reading.codes[reading.examples == swap.example] for swap in part]
    inputs = np.full([len(part), max(map(len, sources))], PAD_ID, np.int32)
    codes = np.zeros([len(part), max(map(len, true)), reading.codes.shape[1]], np.int32)
    mask = np.zeros(codes.shape[:2], bool)
    for row, (source, own) in enumerate(zip(sources, true, strict=True)):
        inputs[row, : len(source)] = source
        codes[row, : len(own)], mask[row, : len(own)] = own, True
    return codes, (mask, inputs)
