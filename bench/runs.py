"""Runs of the package's own commands, as the scripts beside this one make them."""

import fnmatch
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Mapping

from t2t_vqem import config

RERANKER = "transformer"  # the row of a table whose run distils and reranks


def folder(parent: pathlib.Path, name: str, seed: int) -> pathlib.Path:
    """Returns where the run of a table's row `name` lies."""
    return parent / f"{re.sub('[^a-z0-9]+', '_', name.lower())}_{seed}"


def command(name: str, *words: str, **flags: object) -> None:
    """Runs bin/NAME; flags that are None are left out. Raises CalledProcessError where it fails."""
    given = [f"--{flag}={value}" for flag, value in flags.items() if value is not None]
    subprocess.run([sys.executable, "-P", "-m", f"t2t_vqem.cli.{name}", *given, *words], check=True)


def train(run: pathlib.Path, bindings: Mapping[str, object], **flags: object) -> None:
    """Makes a run with `bindings` beside its gin file, or goes on with it; one that has ended is left as it is."""
    if not _ended(run):
        params = [f"--gin_param={name} = {value!r}" for name, value in bindings.items()]
        command("trainer", *params, model_dir=run, **flags)


def evaluated(run: pathlib.Path, name: str) -> bool:
    """Returns whether a run's results hold an evaluation called `name`, in which * stands for anything."""
    return any(fnmatch.fnmatchcase(key, f"eval/{name}") for key in _results(run))


def _ended(run: pathlib.Path) -> bool:
    found = _results(run).get("train")  # it is there from the first evaluation on
    return found is not None and found["steps"] >= found["train_config"]["train_steps"]


def _results(run: pathlib.Path) -> dict:
    path = run / config.RESULTS_FILE
    return json.loads(path.read_text()) if path.exists() else {}
