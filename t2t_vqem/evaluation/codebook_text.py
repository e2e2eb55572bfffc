"""What text each code stands for, and which words of the source it goes with.

The lift of a pair is count(pair) * total / (count(code) * count(text)): how much oftener the two meet than if they
knew nothing of each other. Its logarithm is the pointwise mutual information (Church and Hanks 1990).
"""

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from t2t_vqem.evaluation.codebook_reading import Reading
from t2t_vqem.evaluation.codebook_stability import strangers
from t2t_vqem.problems.vocabulary import EOS_ID, PAD_ID, Vocabulary

TOP = 6  # texts that are told of each code
_LEAST_TOGETHER = 3  # examples that code and source n-gram share: the lift of rarer pairs is noise
_LEAST_SHARE = (
    0.03  # of a code's examples that hold a source n-gram: on a large split the rarest have the highest lift
)
_LONGEST = 3  # words of a source n-gram
_COMPARED = 5  # most frequent pieces that two halves are compared by
_LEAST_COMPARED = 5  # times that a code occurs in each half, or its pieces are not compared

_WORD = re.compile(r"\w+(?:['’-]\w+)*")


class Pair(NamedTuple):
    """An item that goes with a code: how often, and how much oftener than by chance."""

    item: int
    count: int
    lift: float


def associations(
    codes: np.ndarray,
    items: np.ndarray,
    code_totals: np.ndarray,
    item_totals: np.ndarray,
    total: int,
    *,
    least: int = 1,
    by_lift: bool = False,
) -> dict[int, list[Pair]]:
    """Returns what goes with each code, by count or by lift, the highest first.

    Args:
      codes, items: int [pairs], which met.
      code_totals, item_totals: how often each code and each item is there at all.
      total: how often they could have met.
      least: pairs that met less often are left out.
    """
    pairs, counts = np.unique(codes.astype(np.int64) * len(item_totals) + items, return_counts=True)
    pairs, counts = pairs[counts >= least], counts[counts >= least]
    code, item = np.divmod(pairs, max(1, len(item_totals)))
    lift = counts * float(total) / (code_totals[code].astype(float) * item_totals[item])
    first, second = (lift, counts) if by_lift else (counts, lift)
    found: dict[int, list[Pair]] = {}
    for place in np.lexsort((item, -second, -first, code)):
        pair = Pair(int(item[place]), int(counts[place]), float(lift[place]))
        found.setdefault(int(code[place]), []).append(pair)
    return found


class _Names:
    """Numbers for what has none."""

    def __init__(self):
        self._numbers: dict[Hashable, int] = {}

    def number(self, name: Hashable) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    def names(self) -> list[Hashable]:
        return list(self._numbers)


class CodeTexts:
    """The codes of a split of a translation problem, and the text around them.

    Code i of a sentence stands for `group` pieces of its target, from group * i on.

    Attributes:
      figure: what the mean of `likeness` is called.
    """

    figure = "top_overlap"

    def __init__(self, reading: Reading, vocabulary: Vocabulary, group: int, num_codes: int):
        self._codes, self._examples, self._num_codes = reading.codes, reading.examples, num_codes
        self._vocabulary = vocabulary
        targets = [row["targets"] for row in reading.features]
        length = max((len(ids) for ids in targets), default=0)
        padded = np.full([len(targets), length + group], PAD_ID, np.int32)
        for row, ids in enumerate(targets):
            padded[row, : len(ids)] = ids
        columns = reading.positions[:, None] * group + np.arange(group)
        self._windows = padded[reading.examples[:, None], columns]  # int32 [latents, group]
        sources = vocabulary.decode([row["inputs"].tolist() for row in reading.features])
        self._number_grams(sources)

    def _number_grams(self, sources: Sequence[str]) -> None:
        names, lists = _Names(), []
        for source in sources:
            lists.append(sorted({names.number(gram) for gram in _grams(_WORD.findall(source))}))
        self._grams = names.names()
        flat = np.array([gram for grams in lists for gram in grams], np.int64)
        of = np.repeat(np.arange(len(lists)), [len(grams) for grams in lists])
        totals = np.bincount(flat, minlength=len(self._grams))
        frequent = totals[flat] >= _LEAST_TOGETHER  # no pair of the others is frequent enough
        self._gram_totals, flat, of = totals, flat[frequent], of[frequent]
        self._gram_lists = np.split(flat, np.searchsorted(of, np.arange(1, len(lists))))

    def of_slot(self, slot: int) -> dict[int, dict[str, list[dict]]]:
        """Returns of each code that occurs in the slot at most TOP texts with `count` and `lift`.

        "windows": the whole stretches of the target that it stood for, by count; "pieces": the pieces in them, by
        count; "source": n-grams of one to three words of the source, by lift, which is above 1, in sentences.
        """
        windows, pieces, source = self._window_pairs(slot), self._piece_pairs(slot), self._source_pairs(slot)
        return {
            code: {
                "windows": [_told(self._text(key), pair) for key, pair in windows[code][:TOP]],
                "pieces": [_told(self._text([pair.item]), pair) for pair in pieces.get(code, [])[:TOP]],
                "source": [_told(self._grams[pair.item], pair) for pair in source.get(code, [])],
            }
            for code in windows
        }

    def likeness(self, slot: int, second: np.ndarray) -> tuple[dict[int, float], float | None]:
        """Returns how far two halves of the split agree on the most frequent pieces of each code.

        Args:
          second: bool [examples], which are in the second half.

        Returns:
          code -> the share of the pieces among the most frequent of either half that are among those of both, for
          codes that are frequent enough in each; and the mean share of two codes that have nothing to do with each
          other (each code's first half against the second half of another), None for fewer than two codes.
        """
        half = second[self._examples]
        tops = [self._top_pieces(slot, half == part) for part in (False, True)]
        codes = sorted(tops[0].keys() & tops[1].keys())
        own = {code: _jaccard(tops[0][code], tops[1][code]) for code in codes}
        others = [
            _jaccard(tops[0][code], tops[1][codes[other]])
            for code, other in zip(codes, strangers(len(codes)).tolist(), strict=True)
        ]
        return own, float(np.mean(others)) if len(codes) > 1 else None

    def _top_pieces(self, slot: int, where: np.ndarray) -> dict[int, set[int]]:
        often = np.bincount(self._codes[where, slot], minlength=self._num_codes) >= _LEAST_COMPARED
        pairs = self._piece_pairs(slot, where)
        return {
            code: {pair.item for pair in found[:_COMPARED]} for code, found in pairs.items() if often[code]
        }

    def _piece_pairs(self, slot: int, where: np.ndarray | None = None) -> dict[int, list[Pair]]:
        codes, windows = self._codes[:, slot], self._windows
        if where is not None:
            codes, windows = codes[where], windows[where]
        real = windows != PAD_ID
        flat, items = np.broadcast_to(codes[:, None], windows.shape)[real], windows[real]
        totals = np.bincount(flat, minlength=self._num_codes)
        return associations(flat, items, totals, np.bincount(items), len(flat))

    def _window_pairs(self, slot: int) -> dict[int, list[tuple[tuple[int, ...], Pair]]]:
        names = _Names()
        items = np.array([names.number(tuple(row)) for row in self._windows.tolist()], np.int64)
        codes, keys = self._codes[:, slot], names.names()
        totals = np.bincount(codes, minlength=self._num_codes)
        pairs = associations(codes, items, totals, np.bincount(items), len(items))
        return {code: [(keys[pair.item], pair) for pair in found] for code, found in pairs.items()}

    def _source_pairs(self, slot: int) -> dict[int, list[Pair]]:
        # A sentence counts once for each code and n-gram that it holds, however often.
        present = np.unique(np.stack([self._codes[:, slot], self._examples], axis=1), axis=0)
        grams = [self._gram_lists[example] for example in present[:, 1]]
        totals = np.bincount(present[:, 0], minlength=self._num_codes)
        pairs = associations(
            np.repeat(present[:, 0], [len(found) for found in grams]),
            np.concatenate(grams) if grams else np.zeros([0], np.int64),
            totals,
            self._gram_totals,
            len(self._gram_lists),
            least=_LEAST_TOGETHER,
            by_lift=True,
        )
        return {
            code: self._told_apart(pair for pair in found if pair.count >= _LEAST_SHARE * totals[code])
            for code, found in pairs.items()
        }

    def _told_apart(self, pairs: Iterable[Pair]) -> list[Pair]:
        """Returns the first TOP pairs of a lift above 1, without n-grams that lie in one before them or hold it."""
        kept: list[Pair] = []
        for pair in pairs:
            if pair.lift <= 1 or len(kept) == TOP:
                break
            gram = f" {self._grams[pair.item]} "
            others = [f" {self._grams[other.item]} " for other in kept]
            if not any(gram in other or other in gram for other in others):
                kept.append(pair)
        return kept

    def _text(self, ids: Sequence[int]) -> str:
        return piece_text(self._vocabulary, ids)


def piece_text(vocabulary: Vocabulary, ids: Sequence[int]) -> str:
    """Returns pieces as text: "…" before what goes on with a word, "␣" for a space alone, "</s>" for the end."""
    real = [int(i) for i in ids if i != PAD_ID]
    pieces = zip(real, vocabulary.pieces(real), strict=True)
    text = "".join(f"▁{piece}" if i == EOS_ID else piece for i, piece in pieces)
    if not text.startswith("▁"):
        return text and "…" + text.replace("▁", " ")
    return text.replace("▁", " ").strip() or "␣"


def _grams(words: Sequence[str]) -> Iterable[str]:
    for length in range(_LONGEST, 0, -1):  # of n-grams that always come together the longest is to be first
        for start in range(len(words) - length + 1):
            yield " ".join(words[start : start + length])


def _told(text: str, pair: Pair) -> dict[str, str | int | float]:
    return {"text": text, "count": pair.count, "lift": round(pair.lift, 3)}


def _jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b)
