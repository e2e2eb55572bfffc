"""The mean of several checkpoints of one run, as a run of its own.

Weights along the end of a training circle around a better place than any of them (Vaswani et al. 2017,
section 6.1, average the last 5 or 20 checkpoints).
"""

import os
import re
from collections.abc import Sequence

import numpy as np

from t2t_vqem import config, files
from t2t_vqem.errors import UserError
from t2t_vqem.models.model import Model
from t2t_vqem.training import checkpoints, runs

LAST = 5  # checkpoints that are averaged where nothing is said


def last(model_dir: str, count: int | None = None) -> dict[int, str]:
    """Returns step -> path of the latest `count` checkpoints; None: the latest LAST, or all if fewer are kept.

    Raises UserError if there are fewer than `count`, or than two.
    """
    kept = checkpoints.kept(model_dir)
    wanted = max(2, count or min(LAST, len(kept)))
    if len(kept) < wanted:
        raise UserError(
            f'"{model_dir}" holds {len(kept)} checkpoint(s) beside the best, and {wanted} are to be averaged; '
            "train.keep_last says how many a run keeps"
        )
    return {step: kept[step] for step in list(kept)[-wanted:]}


def listed(paths: Sequence[str]) -> dict[int, str]:
    """Returns step -> path, ascending, of checkpoints given as RUN/ckpt-STEP or RUN/best/ckpt-STEP.

    Raises UserError for what is no checkpoint, fewer than two, a step given twice, or different runs.
    """
    found: dict[int, str] = {}
    for path in paths:
        path = path.removesuffix(".index")
        name = re.fullmatch(r"ckpt-(\d+)", os.path.basename(path))
        if not name or not os.path.exists(f"{path}.index"):
            raise UserError(f'there is no checkpoint "{path}"; give paths such as RUN/ckpt-1000')
        step = int(name[1])
        if step in found:
            raise UserError(f"the checkpoint of step {step} is given twice: {found[step]} and {path}")
        if os.path.basename(os.path.dirname(path)) == checkpoints.BEST_DIR:
            best = checkpoints.read_best(run_of(path))
            if best and best.weights != "raw":
                raise UserError(
                    f"{path} holds averaged weights ({best.weights}); only raw ones can be averaged"
                )
        found[step] = path
    if len(found) < 2:
        raise UserError(f"{len(found)} checkpoint is given; an average needs at least two")
    config.require_one_run([run_of(path) for path in found.values()])
    return {step: found[step] for step in sorted(found)}


def run_of(path: str) -> str:
    """Returns the run directory that a checkpoint lies in."""
    folder = os.path.dirname(os.path.abspath(path))
    return os.path.dirname(folder) if os.path.basename(folder) == checkpoints.BEST_DIR else folder


def average(paths: Sequence[str], model: Model) -> None:
    """Gives `model` the mean of its float variables over checkpoints, the rest as in the last of `paths`.

    Raises UserError if one is damaged or does not fit the model.
    """
    variables = [variable.value for variable in model.variables if variable.value.dtype.is_floating]
    sums = [np.zeros(variable.shape, np.float64) for variable in variables]
    for path in paths:
        checkpoints.restore_weights(path, model)
        for total, variable in zip(sums, variables, strict=True):
            total += variable.numpy()
    for total, variable in zip(sums, variables, strict=True):
        variable.assign(total / len(paths))
    for bottleneck in model.bottlenecks.values():
        bottleneck.settle()


def write_run(output_dir: str, run: runs.Run, averaged: dict[int, str]) -> None:
    """Makes `output_dir` a run directory with the weights of `run.model` as its best checkpoint, or nothing.

    Args:
      run: what the weights were averaged in; it gives configuration and vocabulary.
      averaged: step -> path of the checkpoints, ascending; the last step becomes the run's own.

    Raises:
      UserError: `output_dir` is not new, or cannot be written.
    """
    names = ("problem", "model", "data_dir", "usr_dir", "seed")
    names += ("vocabulary_hash", "data_fingerprint", "dimensions")
    metadata = config.RunMetadata(
        **{name: getattr(run.metadata, name) for name in names},
        averaged={"checkpoints": [os.path.abspath(path) for path in averaged.values()]},
    )
    best = checkpoints.Best(max(averaged), metric=None, value=None, weights="average")
    with files.new_folder(output_dir) as folder:
        checkpoints.keep_best(folder, run.model, best)
        runs.write_run(folder, metadata, run.vocabulary)
