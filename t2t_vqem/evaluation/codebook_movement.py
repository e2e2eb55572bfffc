"""How far the codes moved from checkpoint to checkpoint of a run."""

import os
from typing import NamedTuple

import numpy as np
from absl import logging

from t2t_vqem.bottlenecks import movement
from t2t_vqem.bottlenecks.bottleneck import Bottleneck
from t2t_vqem.errors import UserError
from t2t_vqem.models.model import Model
from t2t_vqem.training import checkpoints


class Interval(NamedTuple):
    """From one checkpoint to the next.

    Attributes:
      start, end: steps.
      moved: float32 [codes, slots], see `movement.moved`.
    """

    start: int
    end: int
    moved: np.ndarray


def between_checkpoints(model_dir: str, model: Model, bottleneck: Bottleneck) -> list[Interval]:
    """Returns the movement between the checkpoints a run keeps, the best among them, by ascending step.

    `model` holds its own weights again afterwards. A mean of several checkpoints takes no part, nor does one that a
    training still under way removes meanwhile.
    """
    paths = checkpoints.kept(model_dir)
    best = checkpoints.read_best(model_dir)
    if best is not None and best.weights != "average":
        paths.setdefault(best.step, checkpoints.find(model_dir, "best"))
    own = [variable.numpy() for variable in model.variables]
    found: list[Interval] = []
    last: tuple[int, np.ndarray] | None = None
    for step in sorted(paths):
        try:
            checkpoints.restore_weights(paths[step], model)
        except UserError:
            if os.path.exists(f"{paths[step]}.index"):
                raise
            logging.warning("the checkpoint of step %d is there no more: the run goes on training", step)
            continue
        here = movement.places(bottleneck)
        if last is not None:
            found.append(Interval(last[0], step, movement.moved(last[1], here)))
        last = step, here
    for variable, value in zip(model.variables, own, strict=True):
        variable.assign(value)
    return found
