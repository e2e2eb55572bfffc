"""A model of text by counting: how likely a token is after the few before it.

Interpolated Kneser-Ney (Kneser & Ney 1995; Chen & Goodman 1999, section 2.7) with one discount for each length of
n-gram: what is taken off the counts goes to the distribution after one token less, whose counts are not of tokens but
of the different tokens that they followed.
"""

import array
import dataclasses
import functools
import hashlib
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from t2t_vqem import files
from t2t_vqem.errors import UserError

FILE = "ngrams.npz"  # in the folder of the run whose vocabulary they are of
START_ID = 0  # stands before each sequence; padding elsewhere, and never a token
MOST_ORDER = 4
BITS = 64 // MOST_ORDER  # that a token takes of a key
SPREAD = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio (Knuth, The Art of Computer Programming, 6.4)
_DISCOUNT = 0.75  # where too few n-grams were seen once and twice to estimate it from


class Buckets(NamedTuple):
    """N-grams in the order of a hash, so that a look at few neighbours finds one.

    Attributes:
      starts: int32 [2^bits], the first n-gram of each bucket. The bucket of a key is the highest bits of key * SPREAD.
      keys: int64 [n + slots], zeros at the end.
      values: float32 [2, n + slots], as `NGrams.values`.
      bits: of the hash, which number the buckets.
      slots: n-grams of the fullest bucket.
    """

    starts: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    bits: int
    slots: int


@dataclasses.dataclass(frozen=True)
class NGrams:
    """log P(token | the tokens before it), of what was seen; the rest is a weight times what shorter n-grams say.

    Attributes:
      order: tokens of the longest n-grams.
      unigrams: float32 [2, vocab_size], log probabilities, and log weights of the unigrams after each token.
      keys: uint64 [n], the longer n-grams in order: each token + 1 takes `BITS` bits, the last one the lowest.
      values: float32 [2, n], as `unigrams`; after what was not seen the weight is 1.
      vocabulary_hash: of the vocabulary that the tokens are of.
    """

    order: int
    unigrams: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    vocabulary_hash: str

    def save(self, path: str) -> None:
        """Writes a file that `load` reads. Raises a UserError where it cannot be written."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **dataclasses.asdict(self))
        files.write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str) -> "NGrams":
        """Raises a UserError where the file is missing or holds something else."""
        written = files.read(path)
        try:
            with np.load(io.BytesIO(written), allow_pickle=False) as found:
                parts = {field.name: found[field.name] for field in dataclasses.fields(cls)}
            parts |= {"order": int(parts["order"]), "vocabulary_hash": str(parts["vocabulary_hash"])}
            kinds = {"unigrams": np.float32, "keys": np.uint64, "values": np.float32}
            fits = all(parts[name].dtype == kind for name, kind in kinds.items())
            if not fits or parts["values"].shape != (2, len(parts["keys"])) or parts["order"] > MOST_ORDER:
                raise ValueError("another shape")
        except Exception as error:  # a damaged archive fails in more ways than zipfile and numpy name
            raise UserError(f"{path} holds no n-grams; make them anew with bin/ngrams") from error
        return cls(**parts)

    @functools.cached_property
    def buckets(self) -> Buckets:
        """The longer n-grams to look up, one or two in a bucket on the mean."""
        bits = max(1, (len(self.keys) // 2).bit_length())
        hashes = ((self.keys * np.uint64(SPREAD)) >> np.uint64(64 - bits)).astype(np.int32)
        order = np.argsort(hashes, kind="stable")
        starts = np.searchsorted(hashes[order], np.arange(2**bits)).astype(np.int32)
        slots = int(np.diff(starts, append=len(order)).max())
        keys = np.pad(self.keys[order].view(np.int64), [0, slots])
        return Buckets(starts, keys, np.pad(self.values[:, order], [(0, 0), (0, slots)]), bits, slots)

    @functools.cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that tell these n-grams from others."""
        parts = (self.unigrams, self.keys, self.values)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:12]

    def nats(self, sequences: Iterable[Sequence[int]]) -> tuple[float, int]:
        """Returns -log P of all of them, each ended by its eos, and how many tokens they have."""
        ids, places = _joined(sequences)
        result = self.unigrams[0][ids].astype(np.float64)
        for size in range(2, self.order + 1):
            ends = np.flatnonzero(places >= size - 1)
            seen, (log_probabilities, _) = self._look_up(_packed(ids, ends, size))
            if size == 2:
                weights = self.unigrams[1][ids[ends - 1]]
            else:
                known, (_, weights) = self._look_up(_packed(ids, ends - 1, size - 1))
                weights = np.where(known, weights, 0.0)
            result[ends] = np.where(seen, log_probabilities, weights + result[ends])
        return -float(result[places > 0].sum()), int(np.count_nonzero(places))

    def _look_up(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns which of the keys [n] there are, and their values [2, n]."""
        found = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return self.keys[found] == keys, self.values[:, found]


def require_packable(vocab_size: int) -> None:
    """Raises UserError if a token of the vocabulary does not fit into its part of a key."""
    if vocab_size >= 2**BITS:
        raise UserError(f"n-grams are counted of vocabularies of less than {2**BITS}, not of {vocab_size}")


def count(
    sequences: Iterable[Sequence[int]],
    vocab_size: int,
    vocabulary_hash: str,
    *,
    order: int = MOST_ORDER,
    least: int = 1,
) -> NGrams:
    """Returns the n-grams of `sequences`, each of them ended by its eos.

    Args:
      order: tokens of the longest n-grams, 2 to `MOST_ORDER`.
      least: n-grams of three tokens and more that were seen less often are left out.

    Raises:
      UserError: there is no text, or the vocabulary is too large.
    """
    require_packable(vocab_size)
    ids, places = _joined(sequences)
    if not places.any():
        raise UserError("there is no text to count n-grams of")
    seen = {}  # tokens -> (keys in order, how often they were seen)
    for size in range(1, order + 1):
        ends = np.flatnonzero(places >= size - 1)
        seen[size] = np.unique(_packed(ids, ends, size), return_counts=True)

    counts = _counts(seen, 1)
    counts[seen[1][0] == START_ID + 1] = 0
    discount, rest = _discount(counts), 1.0 / (vocab_size - 1)
    unigrams = np.full(vocab_size, discount * np.count_nonzero(counts) / counts.sum() * rest)
    unigrams[seen[1][0].astype(np.int64) - 1] += np.maximum(counts - discount, 0.0) / counts.sum()
    keys, probabilities = np.arange(1, vocab_size + 1, dtype=np.uint64), unigrams
    levels = []  # of each size: keys, probabilities, log weights
    for size in range(2, order + 1):
        found, counts = seen[size][0], _counts(seen, size)
        contexts, starts, context = np.unique(
            found >> np.uint64(BITS), return_index=True, return_inverse=True
        )
        kept = seen[size][1] >= (least if size > 2 else 1)
        shares = (counts - _discount(counts)) / np.add.reduceat(counts, starts)[context]
        weights = 1.0 - np.add.reduceat(np.where(kept, shares, 0.0), starts)
        log_weights = np.zeros(len(keys))
        known = np.isin(contexts, keys)
        log_weights[np.searchsorted(keys, contexts[known])] = np.log(weights[known])
        levels.append((keys, probabilities, log_weights))
        shorter = np.searchsorted(keys, found[kept] & np.uint64(2 ** (BITS * (size - 1)) - 1))
        probabilities = shares[kept] + weights[context[kept]] * probabilities[shorter]
        keys = found[kept]
    levels.append((keys, probabilities, np.zeros(len(keys))))

    (_, *of_tokens), *longer = levels
    unigrams = np.stack([np.log(of_tokens[0]), of_tokens[1]]).astype(np.float32)
    keys, probabilities, log_weights = (np.concatenate(part) for part in zip(*longer, strict=True))
    values = np.stack([np.log(probabilities), log_weights]).astype(np.float32)
    return NGrams(order, unigrams, keys, values, vocabulary_hash)


def _joined(sequences: Iterable[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns all ids in a row, `START_ID` before each sequence, and how many stand before each in its own; int32."""
    flat, lengths = array.array("i"), array.array("i")  # four bytes a token: there may be a hundred million
    for sequence in sequences:
        flat.append(START_ID)
        flat.extend(sequence)
        lengths.append(len(sequence) + 1)
    starts = np.cumsum(lengths, dtype=np.int32) - np.asarray(lengths)
    places = np.arange(len(flat), dtype=np.int32) - np.repeat(starts, lengths)
    return np.frombuffer(flat, np.int32) if flat else places, places


def _packed(ids: np.ndarray, ends: np.ndarray, size: int) -> np.ndarray:
    """Returns the keys, uint64, of the n-grams of `size` tokens that end at `ends`."""
    keys = np.zeros(len(ends), np.uint64)
    for back in range(size - 1, -1, -1):
        keys <<= np.uint64(BITS)
        keys |= (ids[ends - back] + 1).astype(np.uint64)
    return keys


def _counts(seen: dict[int, tuple[np.ndarray, np.ndarray]], size: int) -> np.ndarray:
    """Returns what Kneser-Ney counts of each n-gram of `size` tokens: of the longest, how often it was seen.

    Of a shorter one, how many different tokens it was seen after, if it does not begin a sequence.
    """
    keys, counts = seen[size]
    counts = counts.astype(np.float64)
    if size + 1 in seen:
        after, kinds = np.unique(seen[size + 1][0] & np.uint64(2 ** (BITS * size) - 1), return_counts=True)
        counts[np.searchsorted(keys, after)] = kinds
    return counts


def _discount(counts: np.ndarray) -> float:
    once, twice = np.count_nonzero(counts == 1), np.count_nonzero(counts == 2)
    return once / (once + 2 * twice) if once and twice else _DISCOUNT
