"""What a run has done so far, summed over its resumes: the entry "train" of `results.json`."""

import dataclasses
import json
import os
import platform
from collections import Counter
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from t2t_vqem import config
from t2t_vqem.errors import UserError
from t2t_vqem.training import checkpoints, strategy
from t2t_vqem.training.train_config import TrainConfig

KEY = "train"


@dataclasses.dataclass(frozen=True)
class Amounts:
    """What some calls of the training step took and got through; amounts add.

    Attributes:
      tokens: real target tokens; `padded_tokens` counts padding too.
    """

    steps: int = 0
    seconds: float = 0.0
    examples: int = 0
    tokens: float = 0.0
    padded_tokens: float = 0.0

    def __add__(self, other: "Amounts") -> "Amounts":
        mine, yours = dataclasses.astuple(self), dataclasses.astuple(other)
        return Amounts(*(a + b for a, b in zip(mine, yours, strict=True)))

    def per_second(self) -> dict[str, float]:
        """Returns tokens, padded tokens and examples a second; empty where no time went by."""
        names = ("tokens", "padded_tokens", "examples") if self.seconds else ()
        return {f"{name}_per_second": getattr(self, name) / self.seconds for name in names}


@dataclasses.dataclass
class Record:
    """Times, amounts and evaluations of a run.

    Attributes:
      total: of all calls of the training step; neither evaluations nor checkpoints.
      steady: of those that met no batch shape for the first time, and so compiled nothing.
      evaluations: one dict an evaluation: "step", "seconds", and the values of each evaluator by its name.
    """

    total: Amounts = Amounts()
    steady: Amounts = Amounts()
    evaluations: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @classmethod
    def read(cls, model_dir: str, step: int) -> "Record":
        """Returns the record of the run in `model_dir` up to the `step` that it goes on from.

        Raises:
          UserError: `results.json` is damaged. One that is missing costs the figures, not the run.
        """
        path = os.path.join(model_dir, config.RESULTS_FILE)
        if step == 0 or not os.path.exists(path):
            return cls()
        try:
            with open(path, encoding="utf-8") as file:
                saved = json.load(file)[KEY]
            total, steady = Amounts(**saved["total"]), Amounts(**saved["steady"])
            return cls(total, steady, [e for e in saved["evaluations"] if e["step"] <= step])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error!r}); move it away") from error

    def add(self, amounts: Amounts, compiled: bool) -> None:
        """Adds one call of the training step."""
        self.total += amounts
        if not compiled:
            self.steady += amounts

    @property
    def evaluation_seconds(self) -> float:
        return sum(evaluation["seconds"] for evaluation in self.evaluations)

    def evaluated(self, step: int) -> bool:
        return any(evaluation["step"] == step for evaluation in self.evaluations)

    def evaluations_since(self, step: int) -> int:
        return sum(evaluation["step"] > step for evaluation in self.evaluations)

    def write(
        self, model_dir: str, *, step: int, train_config: TrainConfig, seed: int, replicas: int
    ) -> dict[str, Any]:
        """Writes the entry to `results.json` and returns it."""
        best = checkpoints.read_best(model_dir)
        entry = {
            "steps": step,
            "seconds": self.total.seconds,
            "evaluation_seconds": self.evaluation_seconds,
            **self.steady.per_second(),
            "seed": seed,
            "best": best._asdict() if best else None,
            "final": self.evaluations[-1] if self.evaluations else None,
            "total": dataclasses.asdict(self.total),
            "steady": dataclasses.asdict(self.steady),
            "evaluations": self.evaluations,
            "train_config": dataclasses.asdict(train_config),
            "machine": machine()
            | {"replicas": replicas, "dtype": strategy.compute_dtype(train_config.dtype)},
            "versions": config.package_versions(),
        }
        config.update_results(model_dir, KEY, entry)
        return entry


def machine() -> dict[str, Any]:
    """Returns what this machine computes with: "cpu", "cores" that this process may use, "gpus", "tpus"."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": model, "cores": cores, "gpus": _devices("GPU"), "tpus": _devices("TPU")}


def _devices(kind: str) -> list[str]:
    devices = tf.config.list_physical_devices(kind)
    return [tf.config.experimental.get_device_details(d).get("device_name", kind) for d in devices]


def machine_line(parts: Mapping[str, Any]) -> str:
    """Returns what `machine` found in a few words, e.g. "2 cores of AMD EPYC, 8 x TPU"."""
    accelerators = Counter([*parts["gpus"], *parts["tpus"]])
    counted = [f"{count} x {name}" for name, count in accelerators.items()]
    return ", ".join([f"{parts['cores']} cores of {parts['cpu']}", *counted])
