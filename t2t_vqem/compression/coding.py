"""Codes as bits: the range coder of the library constriction, with the probabilities of a prior.

What was written first is read first, so that writer and reader can walk through a field alike. They must come to the
very same probabilities. So both have the prior make code after code by one traced function, on batches of one size
(`PriorModel.generate`): the writer puts the true codes into it, and the reader those that it has just read. And so that
another processor, which sums in another order, reads the same, logits are rounded to a grid: those of a prior that
computes in float64 differ by some 1e-14 from one machine to the next, and the grid is so coarse that hardly ever a
border of it lies between them. All that follows is exact. constriction makes whole numbers of the probabilities, of 24
bits and none of them 0.

constriction is an optional package, the extra `codec`.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from t2t_vqem.decoding.pictures import filled
from t2t_vqem.errors import UserError
from t2t_vqem.models.prior import PriorModel
from t2t_vqem.progress import Progress

try:
    import constriction
except ImportError:
    constriction = None

_WORD = np.dtype("<u4")  # what a payload is made of, on any machine

# Logits are rounded to 1 / _GRID, which costs a code _GRID ** -2 / 24 = 1e-5 nats. _POWERS are e to the -n / _GRID, of
# float32's precision so that no library's last bit shows; e to the -32 is far below the 2 ** -24 of constriction.
_GRID = 64
_POWERS = np.exp(-np.arange(32 * _GRID) / _GRID).astype(np.float32).astype(np.float64)

Exchange = Callable[[np.ndarray, int], np.ndarray]
"""(likelihoods float64 [rows, num_codes], place of the code in the field) -> codes int32 [first rows]."""


def require_library() -> None:
    """Raises a UserError that says what to install if constriction is missing."""
    if constriction is None:
        raise UserError(
            "bin/codec needs the package constriction; pip install 't2t-vqem[codec]', or pip install constriction "
            "where this package is a checkout"
        )


def write(codes: np.ndarray, num_codes: int, prior: PriorModel | None, rows: int) -> bytes:
    """Returns the payload of codes int32 [pictures, height, width, slots].

    Args:
      prior: whose probabilities count; None takes all codes as equally likely. It had better compute in float64.
      rows: pictures that the prior works on at once; the reader must be told the same.
    """
    encoder = constriction.stream.queue.RangeEncoder()
    flat = codes.reshape(len(codes), -1)
    if prior is None:
        encoder.encode(flat.ravel(), constriction.stream.model.Uniform(num_codes))
    else:
        family = constriction.stream.model.Categorical(perfect=False)
        walk, progress = _Walk(prior, rows), Progress("writing codes", len(flat), "pictures")
        for real in _batches(len(flat), rows):
            batch = flat[real]

            def put(weights: np.ndarray, place: int, batch: np.ndarray = batch) -> np.ndarray:
                column = np.ascontiguousarray(batch[:, place])
                encoder.encode(column, family, weights[: len(column)])
                return column

            walk(put)
            progress.made(len(batch))
    return encoder.get_compressed().astype(_WORD).tobytes()


def read(
    payload: bytes,
    pictures: int,
    code_shape: Sequence[int],
    num_codes: int,
    prior: PriorModel | None,
    rows: int,
) -> np.ndarray:
    """Returns the codes int32 [pictures, *code_shape] of a payload that `write` made with the same arguments.

    Where they are not the same, or the prior computes other probabilities, what it returns is noise.
    """
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, _WORD).astype(np.uint32))

    def next_codes(*of: object) -> np.ndarray | None:
        try:
            return decoder.decode(*of)
        except AssertionError:  # so says constriction of bits that no codes have
            return None

    flat = np.zeros([pictures, math.prod(code_shape)], np.int32)
    if prior is None:
        found = next_codes(constriction.stream.model.Uniform(num_codes), flat.size)
        if found is not None:
            flat = found.reshape(flat.shape)
    else:
        family = constriction.stream.model.Categorical(perfect=False)
        walk, progress = _Walk(prior, rows), Progress("reading codes", pictures, "pictures")
        for real in _batches(pictures, rows):
            batch = flat[real]

            def get(weights: np.ndarray, place: int, batch: np.ndarray = batch) -> np.ndarray:
                found = next_codes(family, weights[: len(batch)])
                if found is not None:
                    batch[:, place] = found
                return batch[:, place]

            walk(get)
            progress.made(len(batch))
    return flat.reshape(pictures, *code_shape)


def bound(codes: np.ndarray, num_codes: int, prior: PriorModel | None, rows: int) -> float:
    """Returns -log2 P(codes), the bits that no coder with this prior can go below; by teacher forcing."""
    if prior is None:
        return codes.size * math.log2(num_codes)
    nll = tf.function(prior.code_nll, autograph=False)
    nats = 0.0
    for real in _batches(len(codes), rows):
        batch = codes[real]
        features = {"inputs": tf.zeros([rows], tf.int32), "targets": tf.constant(filled(batch, rows))}
        nats += nll(features).numpy()[: len(batch)].sum(dtype=np.float64)
    return float(nats) / math.log(2.0)


def likelihoods(logits: np.ndarray) -> np.ndarray:
    """Returns what the codes' probabilities are proportional to, float64 [rows, num_codes], the same on any machine.

    Args:
      logits: [rows, num_codes].
    """
    places = np.rint(logits.astype(np.float64) * _GRID)
    below = places.max(axis=1, keepdims=True) - places
    return _POWERS[np.minimum(below, len(_POWERS) - 1).astype(np.int64)]


def _batches(count: int, rows: int) -> Iterator[slice]:
    for first in range(0, count, rows):
        yield slice(first, min(first + rows, count))


class _Walk:
    """Walks through fields of codes in the prior's order, `rows` of them at once.

    A class-conditional prior is told the first class.
    """

    def __init__(self, prior: PriorModel, rows: int):
        self._rows = rows
        self._exchange: Exchange | None = None

        def choose(logits: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.numpy_function(self._choose, [logits, place], tf.int32), [rows])

        self._generate = tf.function(
            lambda: prior.generate(tf.zeros([rows], tf.int32), choose), autograph=False
        )

    def __call__(self, exchange: Exchange) -> None:
        """Calls `exchange` for each code of the field; it returns the codes of the first rows."""
        self._exchange = exchange
        self._generate()

    def _choose(self, logits: np.ndarray, place: np.ndarray) -> np.ndarray:
        return filled(self._exchange(likelihoods(logits), int(place)), self._rows)
