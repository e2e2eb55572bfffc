"""The hparams of training: one gin configurable, named `train`."""

import dataclasses
import math
from collections.abc import Mapping

import gin

from t2t_vqem.errors import UserError, is_number, require

# Metrics of which less is better, by a word in their name; all others are better the higher they are.
_LOWER_IS_BETTER = ("loss", "nll", "bits_per_code", "bits_per_dim", "error", "ter")

_LEAST = {
    "batch_tokens": 1,
    "steps_per_call": 1,
    "micro_batches": 1,
    "warmup_steps": 0,
    "train_steps": 1,
    "eval_every": 1,
    "save_every": 1,
    "log_every": 1,
    "keep_last": 1,
    "eval_examples": 0,
    "early_stop_patience": 0,
}
_CHOICES: Mapping[str, tuple] = {
    "decay": ("rsqrt", "cosine", "constant"),
    "best_mode": ("auto", "max", "min"),
    "dtype": ("auto", "float32", "bfloat16"),
    "compile": ("auto", True, False),
}


@gin.configurable("train")
@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How to train; gin binds it as `train.NAME`. Raises UserError for a value out of range.

    Attributes:
      batch_tokens: padded tokens of one side of the global batch of a step, over all replicas; of pictures, numbers.
      boundaries: lengths of the buckets in tokens, eos included, ascending.
      steps_per_call: steps between two looks of the host; every count of steps below is reached at the first
        multiple of it.
      micro_batches: parts of a replica's batch whose gradients are added before the update.
      learning_rate: the highest, reached after `warmup_steps`.
      decay: "rsqrt", "cosine" (over `train_steps`) or "constant".
      clip_norm: greatest global norm of the gradient; 0 means no clipping.
      ema_decay: of a moving average of the weights, in [0, 1), e.g. 0.999; 0 keeps none. It is evaluated beside
        the raw weights, its values under the evaluator's name with `_ema`.
      eval_examples: at most so many examples are evaluated during training; 0 means the whole split.
      live_codes_alarm: a codebook of which less than this share is live after `warmup_steps` is told of in log and
        events; in [0, 1), 0 tells nothing.
      keep_last: checkpoints kept beside the best.
      best_metric: metric of the first evaluator by which the best checkpoint is kept, raw or averaged weights
        as it turns out; "auto" is the one that the evaluator thinks most of, "" keeps none.
      best_mode: whether "max" or "min" of it is best; "auto" goes by its name.
      early_stop_patience: evaluations without a new best before training ends; 0 means never.
      dtype: "float32", "bfloat16" (the Keras policy mixed_bfloat16) or "auto", the faster on the device at hand.
      compile: whether XLA compiles the step; "auto" takes what is fastest on the device at hand.
    """

    batch_tokens: int = 4096
    boundaries: tuple[int, ...] = (8, 16, 24, 32, 48, 64)
    steps_per_call: int = 10
    micro_batches: int = 1
    learning_rate: float = 1e-3
    warmup_steps: int = 1000
    decay: str = "rsqrt"
    clip_norm: float = 1.0
    ema_decay: float = 0.0
    train_steps: int = 10_000
    eval_every: int = 1000
    eval_examples: int = 0
    save_every: int = 1000
    log_every: int = 100
    live_codes_alarm: float = 0.1
    keep_last: int = 3
    best_metric: str = "auto"
    best_mode: str = "auto"
    early_stop_patience: int = 0
    dtype: str = "auto"
    compile: str | bool = "auto"

    def __post_init__(self):
        for name, least in _LEAST.items():
            value = getattr(self, name)
            whole = type(value) is int and value >= least
            require(whole, f"train.{name}", value, f"a whole number of at least {least}")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            known = any(type(value) is type(choice) and value == choice for choice in choices)
            require(known, f"train.{name}", value, f"one of {', '.join(map(repr, choices))}")
        for name, bound in {
            "learning_rate": float("inf"),
            "clip_norm": float("inf"),
            "ema_decay": 1.0,
            "live_codes_alarm": 1.0,
        }.items():
            value = getattr(self, name)
            wanted = "a number of at least 0" + (" and below 1" if bound == 1.0 else "")
            require(is_number(value) and 0 <= value < bound, f"train.{name}", value, wanted)
        require(isinstance(self.best_metric, str), "train.best_metric", self.best_metric, "a metric's name")
        lengths = self.boundaries
        whole = isinstance(lengths, list | tuple) and all(type(n) is int and n > 0 for n in lengths)
        ascending = whole and lengths and sorted(set(lengths)) == list(lengths)
        require(ascending, "train.boundaries", lengths, "one or more ascending lengths, e.g. (8, 16, 32)")
        object.__setattr__(self, "boundaries", tuple(lengths))
        if self.early_stop_patience and not self.best_metric:
            raise UserError("train.early_stop_patience needs a train.best_metric to go by")

    @property
    def last_step(self) -> int:
        """The step that training ends at: `train_steps`, rounded up to whole calls."""
        return -(-self.train_steps // self.steps_per_call) * self.steps_per_call

    def due(self, step: int, every: int) -> bool:
        """Whether the call that ended at `step` reached a multiple of `every`."""
        return step > 0 and step % every < self.steps_per_call

    def better(self, value: float, than: float) -> bool:
        """Whether `value` of the best metric beats `than`; a NaN beats nothing, and anything else beats it."""
        if math.isnan(than):
            return not math.isnan(value)
        lower = any(f"_{word}_" in f"_{self.best_metric}_" for word in _LOWER_IS_BETTER)
        if self.best_mode != "auto":
            lower = self.best_mode == "min"
        return value < than if lower else value > than
