"""Search over any step function: one code for tokens and for latents."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gin
import tensorflow as tf

from t2t_vqem.context import Draws
from t2t_vqem.errors import UserError, is_number, require

State = Any
StepFunction = Callable[[tf.Tensor, tf.Tensor, State], tuple[tf.Tensor, State]]
Choose = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_NEVER = -1e9
IMPOSSIBLE = -1e8  # a score under it is that of no candidate: fewer were found than asked for

_RANGES = {
    "beam_size": (1, 10_000),
    "num_candidates": (0, 10_000),
    "ctc_beam_size": (1, 256),
    "ctc_candidates": (1, 256),
    "top_k": (0, 2**31 - 1),
    "seed": (0, 2**32 - 1),
}
# A length to the power of its penalty is a float32.
_BELOW = {"length_penalty": 10, "temperature": 100, "blank_penalty": 100, "lm_weight": 100}


@gin.configurable("decode")
@dataclasses.dataclass(frozen=True)
class Settings:
    """How outputs are looked for; gin binds it as `decode.NAME`. Raises UserError for a value out of range.

    Attributes:
      beam_size: unfinished sequences kept at each step; 1 is greedy search.
      num_candidates: finished outputs to choose from; 0 means `beam_size`. More than `beam_size` of them are
        sequences that ended elsewhere: alternatives of length.
      length_penalty: candidates are ranked by log probability / length ** length_penalty; 1 is the mean.
      temperature: above 0, the candidates are independent samples of softmax(logits / temperature).
      top_k: samples come from the so many likeliest classes; 0 means all.
      top_p: samples come from the likeliest classes that hold this share of the mass (Holtzman et al. 2020).
      blank_penalty: nats that a blank of CTC costs at every place, for outputs come out too short without it.
      lm_weight: how much a token's log probability after the tokens before it, by the n-grams that bin/ngrams counted,
        counts beside CTC's; 0 takes CTC's likeliest path, if one output is wanted.
      ctc_candidates: outputs that are read off each row of CTC's places, the best of a search over beginnings; with
        latents, off those of every candidate, or once where they are pooled. They are for a reranker: without one they
        are ranked as all candidates are, by the log probability of all their paths, where blanks cost nothing.
      ctc_beam_size: beginnings of an output that this search keeps at each place, where n-grams count or several
        outputs are wanted.
      pool: whether outputs are read off the mean of what the decoder makes of every candidate's latents, where its
        places are the source's, instead of off each of them.
      seed: of the samples, which depend on it and on the source line alone.
      compile: whether XLA compiles inference for each shape of batch, as many as the system's mappings of memory
        suffice for: seconds each, then about twice as fast.
    """

    beam_size: int = 1
    num_candidates: int = 0
    length_penalty: float = 1.0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    blank_penalty: float = 0.0
    lm_weight: float = 0.0
    ctc_candidates: int = 1
    ctc_beam_size: int = 10
    pool: bool = False
    seed: int = 0
    compile: bool = False

    def __post_init__(self):
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            holds = type(value) is int and least <= value <= most
            require(holds, f"decode.{name}", value, f"a whole number, at least {least} and at most {most}")
        for name, bound in _BELOW.items():
            value = getattr(self, name)
            holds = is_number(value) and 0 <= value < bound
            require(holds, f"decode.{name}", value, f"a number of at least 0 and below {bound}")
            object.__setattr__(self, name, float(value))  # 2 and 2.0 are one search, and are called so
        require(
            is_number(self.top_p) and 0 < self.top_p <= 1, "decode.top_p", self.top_p, "above 0, at most 1"
        )
        for name in ("pool", "compile"):
            value = getattr(self, name)
            require(type(value) is bool, f"decode.{name}", value, "True or False")
        if self.ctc_beam_size != type(self).ctc_beam_size and not self.searches_beginnings:
            raise UserError(
                "decode.ctc_beam_size is of a search over beginnings of outputs, for n-grams or several outputs; "
                "give decode.lm_weight, 0.3 say, or decode.ctc_candidates"
            )
        if self.ctc_candidates > self.ctc_beam_size:
            raise UserError(
                f"decode.ctc_candidates is {self.ctc_candidates}, more than the {self.ctc_beam_size} beginnings of "
                "outputs that decode.ctc_beam_size keeps; raise that, or ask for fewer"
            )
        if self.temperature and self.beam_size > 1:
            raise UserError("decode.temperature draws samples; give decode.num_candidates, not beam_size")
        if self.pool and self.candidates < 2:
            raise UserError(
                f"decode.pool takes the mean over candidates, of which there are {self.candidates}; leave it out, or "
                "give decode.beam_size or decode.num_candidates, 5 say"
            )
        if not self.temperature and (self.top_k or self.top_p < 1):
            raise UserError("decode.top_k and decode.top_p shape samples; give decode.temperature, 1.0 say")

    @classmethod
    def greedy(cls) -> "Settings":
        """Returns the defaults, whatever the configuration binds."""
        return cls(**{field.name: field.default for field in dataclasses.fields(cls)})

    def __str__(self) -> str:
        """Returns what differs from greedy search, as bindings: "beam_size=4, length_penalty=0.6"."""
        changed = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "compile"}
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        return ", ".join(f"{name}={value}" for name, value in changed.items() if value != defaults[name])

    def require_only(self, names: Sequence[str], why: str) -> None:
        """Raises a UserError that says `why` if a setting besides those called `names` is not its default."""
        for field in dataclasses.fields(self):
            if field.name not in names and getattr(self, field.name) != field.default:
                raise UserError(f"{why}; decode.{field.name} has no use here, leave it out")

    def drawing(self) -> dict[str, int | float]:
        """Returns what shapes samples where nothing but samples is asked for: a temperature of 0 stands for 1."""
        temperature = self.temperature or 1.0
        return {"seed": self.seed, "temperature": temperature, "top_k": self.top_k, "top_p": self.top_p}

    @property
    def candidates(self) -> int:
        """How many candidates are found."""
        return self.num_candidates or self.beam_size

    @property
    def outputs(self) -> int:
        """How many outputs there are to choose from in the end."""
        return (1 if self.pool else self.candidates) * self.ctc_candidates

    @property
    def searches_beginnings(self) -> bool:
        """Whether CTC's places are searched, instead of taking the likeliest class of each."""
        return bool(self.lm_weight) or self.ctc_candidates > 1

    @property
    def width(self) -> int:
        """Rows that the step function computes for each example."""
        return self.candidates if self.temperature else self.beam_size


class Found(NamedTuple):
    """Finished sequences.

    Attributes:
      ids: int32 [batch, candidates, length], `end_id` from the end of each sequence on; `steps` long, or as
        `longest` where that is a number.
      lengths: int32 [batch, candidates], without the end.
      scores: float32 [batch, candidates], log probabilities, that of the end included.
      steps: int32 scalar, how often the step function was called.
    """

    ids: tf.Tensor
    lengths: tf.Tensor
    scores: tf.Tensor
    steps: tf.Tensor


def search(
    step: StepFunction,
    state: State,
    settings: Settings,
    *,
    sources: tf.Tensor,
    start_id: int,
    end_id: int,
    max_length: tf.Tensor,
    longest: int | tf.Tensor,
    choose: Choose | None = None,
) -> Found:
    """Finds `settings.candidates` sequences for each example.

    Args:
      step: (ids [rows] chosen last, index, state) -> (logits [rows, classes], state), with
        rows = batch * `settings.width`.
      state: a nest of tensors [rows, ...] of constant shape.
      sources: int32 [batch, length], what the examples are told apart by when samples are drawn.
      max_length: int32 [batch], the number of ids after which a sequence ends of itself.
      longest: the greatest of them, or a number above: then every shape is static, as XLA needs it.
      choose: how a greedy search picks ids [rows] from logits at an index; the likeliest if None.
    """
    batch = tf.shape(sources)[0]
    bounds = {"start_id": start_id, "end_id": end_id, "longest": longest}
    if settings.temperature:
        draws = tf.repeat(line_keys(sources), settings.width)
        draws += tf.cast(tf.tile(tf.range(settings.width), [batch]), tf.uint32)
        choose = sampler(settings, draws)
    elif max(settings.beam_size, settings.candidates) > 1:
        return beam(step, state, settings, batch=batch, max_length=max_length, **bounds)
    rows, most = batch * settings.width, tf.repeat(max_length, settings.width)
    found = one_by_one(step, state, choose or likeliest, batch=rows, max_length=most, **bounds)
    parts = (tf.reshape(part, [batch, settings.width, *part.shape[1:]]) for part in found[1:3])
    ids = tf.reshape(found.ids, [batch, settings.width, tf.shape(found.ids)[1]])
    return Found(ids, *parts, found.steps)


def line_keys(ids: tf.Tensor) -> tf.Tensor:
    """Returns uint32 [batch], a number for each line of ids [batch, length], whatever zeros pad it."""
    places = tf.cast(tf.range(tf.shape(ids)[1]), tf.uint32)[None, :] * tf.constant(0x9E3779B9, tf.uint32)
    bits = tf.cast(ids, tf.uint32) * (places | tf.constant(1, tf.uint32))
    return tf.cast(tf.reduce_sum(tf.cast(bits, tf.int64), axis=1) % (2**31), tf.uint32)


def likeliest(logits: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Returns the likeliest class of each row, int32 [rows]; for every index."""
    del index
    return tf.argmax(logits, axis=-1, output_type=tf.int32)


def sampler(settings: Settings, rows: tf.Tensor) -> Choose:
    """Returns a function that draws classes; equal `rows` uint32 [rows] draw equal numbers."""

    def choose(logits: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        logits = tf.cast(logits, tf.float32) / settings.temperature
        classes = logits.shape[-1]
        if 0 < settings.top_k < classes:
            least = tf.math.top_k(logits, settings.top_k).values[:, -1:]
            logits = tf.where(logits < least, -math.inf, logits)
        if settings.top_p < 1.0:
            ordered = tf.sort(logits, axis=-1, direction="DESCENDING")
            before = tf.cumsum(tf.nn.softmax(ordered), axis=-1, exclusive=True)
            least = tf.reduce_min(tf.where(before < settings.top_p, ordered, tf.float32.max), -1, True)
            logits = tf.where(logits < least, -math.inf, logits)
        uniform = Draws(settings.seed, index, rows).uniform([tf.shape(logits)[0], classes])
        return tf.argmax(logits - tf.math.log(-tf.math.log(uniform)), axis=-1, output_type=tf.int32)

    return choose


def one_by_one(
    step: StepFunction,
    state: State,
    choose: Choose,
    *,
    batch: tf.Tensor,
    start_id: int,
    end_id: int,
    max_length: tf.Tensor,
    longest: int | tf.Tensor,
) -> Found:
    """Chooses one id at each step until every sequence has ended; without the axis of candidates.

    Arguments are as in `search`; `batch` is the number of rows, and `max_length` int32 [batch].
    """

    def unfinished(index, ended, *_):
        return (index < longest) & ~tf.reduce_all(ended)

    def body(index, ended, last, lengths, scores, ids, state):
        logits, state = step(last, index, state)
        chosen = choose(logits, index)
        logits = tf.cast(logits, tf.float32)
        gain = tf.gather(logits, chosen, batch_dims=1) - tf.reduce_logsumexp(logits, axis=-1)
        scores += tf.where(ended, 0.0, gain)
        ended |= chosen == end_id
        chosen = tf.where(ended, end_id, chosen)
        lengths += tf.cast(~ended, tf.int32)
        ended |= index + 1 >= max_length
        ids = tf.where(places == index, chosen[:, None], ids)
        return shaped_like(start, (index + 1, ended, chosen, lengths, scores, ids, state))

    places = tf.range(longest)[None, :]
    start = (
        tf.constant(0),
        tf.zeros([batch], tf.bool),
        tf.fill([batch], start_id),
        tf.zeros([batch], tf.int32),
        tf.zeros([batch]),
        tf.fill([batch, longest], end_id),
        state,
    )
    steps, _, _, lengths, scores, ids, _ = tf.while_loop(unfinished, body, start)
    return Found(ids if isinstance(longest, int) else ids[:, :steps], lengths, scores, steps)


def shaped_like(start: State, values: State) -> State:
    """Returns `values` with the static shapes of `start`, which a loop must keep."""
    return tf.nest.map_structure(lambda old, new: tf.ensure_shape(new, old.shape), start, values)


def beam(
    step: StepFunction,
    state: State,
    settings: Settings,
    *,
    batch: tf.Tensor,
    start_id: int,
    end_id: int,
    max_length: tf.Tensor,
    longest: int | tf.Tensor,
) -> Found:
    """Keeps the `beam_size` likeliest beginnings and the `candidates` best finished sequences, the best first.

    An end counts as a position. An example is done, whatever its neighbours do, when no beginning would be among
    its candidates if it ended at once and for sure; with a `length_penalty` one that goes on for long still might.
    Arguments are as in `search`; what has not ended by `max_length` is no candidate.
    """
    size, kept = settings.beam_size, settings.candidates
    places = tf.range(longest)

    def ranked(scores, length):
        return scores / tf.cast(length, tf.float32) ** settings.length_penalty

    def unfinished(index, done, *_):
        return (index < longest) & ~tf.reduce_all(done)

    def body(index, done, ids, scores, ended, ranks, last, state):
        logits, state = step(tf.reshape(last, [-1]), index, state)
        classes = logits.shape[-1]
        log_probabilities = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        log_probabilities = tf.reshape(log_probabilities, [batch, size, classes])
        allowed = ~done[:, None]  # a neighbour that goes on changes nothing of what is done
        ending = tf.where(allowed, scores + log_probabilities[:, :, end_id], _NEVER)
        rank = tf.where(ending > _NEVER / 2, ranked(ending, index + 1), _NEVER)
        merged = (
            tf.concat([ended[0], ids], axis=1),
            tf.concat([ended[1], tf.fill([batch, size], index)], axis=1),
            tf.concat([ended[2], ending], axis=1),
        )
        ranks, best = tf.math.top_k(tf.concat([ranks, rank], axis=1), kept)
        ended = tuple(tf.gather(part, best, batch_dims=1) for part in merged)

        going_on = tf.where(tf.range(classes) == end_id, _NEVER, log_probabilities)
        totals = tf.reshape(scores[:, :, None] + going_on, [batch, size * classes])
        scores, chosen = tf.math.top_k(totals, size)
        parents, last = chosen // classes, chosen % classes
        ids = tf.where(places == index, last[:, :, None], tf.gather(ids, parents, batch_dims=1))
        rows = tf.reshape(tf.range(batch)[:, None] * size + parents, [-1])
        state = tf.nest.map_structure(lambda x: tf.gather(x, rows), state)
        done |= (index + 1 >= max_length) | (ranked(scores[:, 0], index + 2) <= ranks[:, -1])
        return shaped_like(start, (index + 1, done, ids, scores, ended, ranks, last, state))

    impossible = tf.fill([batch, kept], _NEVER)
    start = (
        tf.constant(0),
        max_length <= 0,
        tf.fill([batch, size, longest], end_id),
        tf.concat([tf.zeros([batch, 1]), tf.fill([batch, size - 1], _NEVER)], axis=1),
        (tf.fill([batch, kept, longest], end_id), tf.zeros([batch, kept], tf.int32), impossible),
        impossible,
        tf.fill([batch, size], start_id),
        state,
    )
    steps, _, _, _, (ids, lengths, scores), *_ = tf.while_loop(unfinished, body, start)
    return Found(ids if isinstance(longest, int) else ids[:, :, :steps], lengths, scores, steps)


def best_of(
    outputs: tf.Tensor, scores: tf.Tensor, settings: Settings, pad_id: int = 0, **others: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Ranks candidate outputs int32 [batch, candidates, length] by their log probabilities [batch, candidates].

    Returns "candidates" and "scores", the best first, "outputs" int32 [batch, length], the best of them, and
    of each of `others` [batch, candidates, ...] the best's.
    """
    lengths = tf.reduce_sum(tf.cast(outputs != pad_id, tf.float32), axis=-1)
    ranks = scores / tf.maximum(lengths, 1.0) ** settings.length_penalty
    order = tf.argsort(ranks, axis=-1, direction="DESCENDING", stable=True)
    candidates = tf.gather(outputs, order, batch_dims=1)
    best = {name: tf.gather(value, order[:, 0], batch_dims=1) for name, value in others.items()}
    ordered = {"candidates": candidates, "scores": tf.gather(scores, order, batch_dims=1)}
    return {"outputs": candidates[:, 0], **ordered, **best}
