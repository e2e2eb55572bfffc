"""The flags that the commands share, each defined once, and what follows from them.

A command names those it needs when its module is imported, and reads their values in its main function:

    flags.define("problem", "gin_file", "gin_param", "usr_dir", "data_dir")

    def main(argv):
        flags.configure()               # a command that makes a run: --usr_dir, then gin files and bindings
        run = flags.configure_run()     # a command on a run: what its model_dir says, bettered by the flags
        ... FLAGS.problem ...

Flags of one command alone are defined in its module through absl.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags as absl_flags

from t2t_vqem import config, registry
from t2t_vqem.errors import UserError

FLAGS = absl_flags.FLAGS

STRATEGIES = ("auto", "one", "mirrored", "multi_worker", "tpu")

_DEFINITIONS: dict[str, tuple[Callable[..., Any], Any, str]] = {
    "problem": (absl_flags.DEFINE_string, None, "the registered problem: what to learn"),
    "model": (absl_flags.DEFINE_string, None, "the registered model: what learns"),
    "gin_file": (
        absl_flags.DEFINE_multi_string,
        [],
        "a gin file, looked up as given, then in --model_dir, then in the package; repeatable, the last wins",
    ),
    "gin_param": (
        absl_flags.DEFINE_multi_string,
        [],
        "a gin binding such as soft_em.num_samples=10, after all files; repeatable",
    ),
    "usr_dir": (absl_flags.DEFINE_string, None, "a folder (or file) of your own Python code to import first"),
    "data_dir": (absl_flags.DEFINE_string, None, "where the problem's generated data lies"),
    "source_dir": (
        absl_flags.DEFINE_string,
        None,
        "where the problem's raw files lie, as they were published",
    ),
    "model_dir": (absl_flags.DEFINE_string, None, "the run: configuration, checkpoints, summaries, results"),
    "split": (absl_flags.DEFINE_string, None, "the split of the data; the problem's own choice if not given"),
    "checkpoint": (absl_flags.DEFINE_string, "best", "which weights: best, latest, or the number of a step"),
    "input": (
        absl_flags.DEFINE_string,
        None,
        "the file to translate, gzipped or not; stdin if not given. Of pictures, a file or a folder of them",
    ),
    "output": (
        absl_flags.DEFINE_string,
        None,
        "the file (bin/evaluator: files; bin/codebook, and where pictures come out: folder) to write",
    ),
    "output_dir": (absl_flags.DEFINE_string, None, "the folder to make; it may exist if it is empty"),
    "rerank_model_dir": (
        absl_flags.DEFINE_string,
        None,
        "a run of transformer that chooses among the candidates of decode.num_candidates, decode.beam_size or "
        "decode.ctc_candidates",
    ),
    "prior_model_dir": (
        absl_flags.DEFINE_string,
        None,
        "for pictures: a run of a prior (latent_prior, pixelcnn) over the codes of the run in --model_dir",
    ),
    "train_steps": (
        absl_flags.DEFINE_integer,
        None,
        "stop at this optimizer step; train.train_steps if not given",
    ),
    "seed": (absl_flags.DEFINE_integer, 0, "of initial weights, data order and every random choice"),
}


def define(*names: str) -> None:
    """Defines shared flags; one that is defined already is left as it is."""
    for name in names:
        if name in FLAGS:
            continue
        if name == "strategy":
            absl_flags.DEFINE_enum(
                name, "auto", STRATEGIES, "how the devices share a batch; auto takes what is there"
            )
        else:
            definer, default, text = _DEFINITIONS[name]
            bounds = {"lower_bound": 0, "upper_bound": 2**32 - 1} if name == "seed" else {}
            definer(name, default, text, **bounds)


def require(*names: str) -> None:
    """Raises UserError for the first of these flags that has no value."""
    for name in names:
        if not _value(name):
            raise UserError(f"--{name} is missing; --help says more")


def configure() -> None:
    """Imports --usr_dir and replaces the configuration by --gin_file and --gin_param.

    Raises:
      UserError: see `registry.load_usr_dir` and `config.parse`.
    """
    registry.load_usr_dir(_value("usr_dir"))
    config.parse(_value("gin_file") or [], _value("gin_param") or [], _value("model_dir"))


def configure_run(model_dir: str | None = None, gin_params: Sequence[str] = ()) -> config.RunMetadata:
    """Imports the code and reads the configuration of the run in --model_dir; returns its metadata.

    --data_dir, --usr_dir, --gin_file and --gin_param, where the command has them and they are given, come
    before what the run says. --problem and --model may repeat what the run says, but not contradict it.

    Args:
      model_dir: the run's folder, for a command that takes several; None means --model_dir.
      gin_params: bindings for this run, which come before --gin_param.

    Raises:
      UserError: --model_dir is missing or holds no run; see `registry.load_usr_dir` and `config.parse_run`.
    """
    if model_dir is None:
        require("model_dir")
        model_dir = FLAGS.model_dir
    run = config.read_run(model_dir)
    for name in ("problem", "model"):
        if _value(name) and _value(name) != getattr(run, name):
            raise UserError(
                f'model_dir "{model_dir}" holds a run of {name} {getattr(run, name)}, not {_value(name)}'
            )
    given = {name: _value(name) for name in ("data_dir", "usr_dir") if _value(name)}
    run = dataclasses.replace(run, **given)
    registry.load_usr_dir(run.usr_dir)
    config.parse_run(model_dir, _value("gin_file") or [], [*(_value("gin_param") or []), *gin_params])
    return run


def require_used() -> None:
    """Raises UserError if the run just opened has no use for a binding of --gin_param."""
    config.require_used(_value("gin_param") or [])


def _value(name: str) -> Any:
    return FLAGS[name].value if name in FLAGS else None
