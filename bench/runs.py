"""Runs of the package's own commands, as the scripts beside this one make them."""

import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping

from t2t_vqem import config


def command(name: str, *words: str, **flags: object) -> None:
    """Runs bin/NAME; flags that are None are left out. Raises CalledProcessError where it fails."""
    given = [f"--{flag}={value}" for flag, value in flags.items() if value is not None]
    subprocess.run([sys.executable, "-P", "-m", f"t2t_vqem.cli.{name}", *given, *words], check=True)


def train(run: pathlib.Path, bindings: Mapping[str, object], **flags: object) -> None:
    """Makes a run with `bindings` beside its gin file, or goes on with it; one that has ended is left as it is."""
    path = run / config.RESULTS_FILE
    if not path.exists() or "train" not in json.loads(path.read_text()):
        params = [f"--gin_param={name} = {value!r}" for name, value in bindings.items()]
        command("trainer", *params, model_dir=run, **flags)
