"""gin files and bindings -> a strict configuration; and the files of a run directory.

A `model_dir` says everything about its run: `config.gin` (the operative configuration), `run.json`
(`RunMetadata`) and `results.json`, beside the checkpoints and TensorBoard events.
"""

import dataclasses
import datetime
import importlib
import importlib.metadata
import json
import logging as python_logging
import os
import platform
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gin
from absl import logging
from gin import config_parser

from t2t_vqem import files, registry
from t2t_vqem.errors import UserError, near

# Configurables beside the registered problems, models and bottlenecks, and the module that defines each with
# `@gin.configurable`. They say how a model is trained or decoded, not what it is.
SETTINGS = {"train": "t2t_vqem.training.train_config", "decode": "t2t_vqem.search"}

CONFIG_FILE, RUN_FILE, RESULTS_FILE = "config.gin", "run.json", "results.json"

_PACKAGES = (
    "gin-config",
    "keras",
    "numpy",
    "sacrebleu",
    "sentencepiece",
    "tensorflow",
    "tensorflow-datasets",
    "tensorflow-text",
)


def gin_directory() -> str:
    """Returns the folder of the package's gin files: inside an installed package, or a checkout's `gin/`."""
    package = os.path.dirname(os.path.abspath(__file__))
    installed = os.path.join(package, "gin_files")
    return installed if os.path.isdir(installed) else os.path.join(os.path.dirname(package), "gin")


gin.add_config_file_search_path(gin_directory())  # for `include "soft_em.gin"`


def parse(gin_files: Sequence[str], gin_params: Sequence[str], model_dir: str | None = None) -> None:
    """Replaces the configuration by these files and then these bindings; a later binding wins.

    A file is looked for as given, then in `model_dir`, then among the package's gin files.

    Raises:
      UserError: a file or a name that is not there (with near names), or a line that does not parse.
    """
    for known in _registries():
        known.load_all()
    for module in SETTINGS.values():
        importlib.import_module(module)
    gin.clear_config()
    for gin_file in gin_files:
        path = _find(gin_file, model_dir)
        _strictly(gin.parse_config_file, path, source=path)
    for binding in gin_params:
        _strictly(gin.parse_config, binding, source=f'--gin_param "{binding}"')
    _strictly(gin.finalize, source="the configuration")


def parse_run(model_dir: str, gin_files: Sequence[str] = (), gin_params: Sequence[str] = ()) -> None:
    """Like `parse`, but begins with the configuration that the run in `model_dir` was trained with.

    Raises:
      UserError: as `parse`; `model_dir` holds no run.
    """
    path = os.path.abspath(os.path.join(model_dir, CONFIG_FILE))
    if not os.path.isfile(path):
        raise UserError(f'--model_dir "{model_dir}" holds no {CONFIG_FILE}; train a model there first')
    parse([path, *gin_files], gin_params, model_dir)


def operative() -> str:
    """Returns the bindings that the configurables called so far have used, defaults included, as gin text."""
    return gin.operative_config_str()


def bindings(text: str, *, without: str) -> dict[str, str]:
    """Returns what gin text binds, "configurable.parameter" -> literal, but for the configurable `without`."""
    return {key: value for key, value in _statements(text).items() if _owner(key) != without}


def unused() -> list[str]:
    """Returns the bindings that were given but that nothing has used so far, e.g. "soft_em.num_samples"."""
    return sorted(_statements(gin.config_str()).keys() - _statements(operative()).keys())


def used(bindings: Sequence[str]) -> list[str]:
    """Returns those of `bindings`, such as "decode.beam_size = 4", that something has used so far."""
    idle = unused()
    return [binding for binding in bindings if binding.split("=")[0].strip() not in idle]


def require_used(bindings: Sequence[str]) -> None:
    """Raises UserError if nothing has used one of `bindings`, such as "decode.beam_size = 4", so far."""
    had = used(bindings)
    for binding in bindings:
        if binding not in had:
            raise UserError(
                f"the run has no use for the setting {binding.split('=')[0].strip()}; leave it out"
            )


@dataclasses.dataclass(frozen=True)
class RunMetadata:
    """What `run.json` says about a run; folders are absolute there.

    Attributes:
      vocabulary_hash: of the texts' vocabulary; None where the examples are no texts.
      dimensions: what the model was told of the data besides, see `problems.problem.Problem.dimensions`.
      averaged: for a run that bin/averager made: "checkpoints", those it is the mean of.
    """

    problem: str
    model: str
    data_dir: str
    usr_dir: str | None
    seed: int
    vocabulary_hash: str | None
    data_fingerprint: str
    dimensions: dict[str, Any] | None = None
    averaged: dict[str, Any] | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=lambda: package_versions())
    command: str = dataclasses.field(default_factory=lambda: shlex.join(sys.argv))
    created: str = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )


def package_versions() -> dict[str, str]:
    """Returns the versions of Python, of this package and of what it stands on."""
    from t2t_vqem import __version__

    versions = {"python": platform.python_version(), "t2t_vqem": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def write_run(model_dir: str, metadata: RunMetadata) -> None:
    """Writes `config.gin` and `run.json`, or checks that the run that is there already is this very one.

    Call it once problem, model and training configuration are made: the configuration that they used
    is what is written. Bindings that nothing has used yet (those of decoding, say) are kept with it.

    Raises:
      UserError: `model_dir` holds a run of another problem, model, vocabulary or configuration, or
        cannot be written; nothing is changed then.
    """
    if os.path.exists(os.path.join(model_dir, RUN_FILE)):
        there = read_run(model_dir)
        named = ("problem", "model", "seed", "dimensions")
        require_same(model_dir, there, **{name: getattr(metadata, name) for name in named})
        if there.vocabulary_hash != metadata.vocabulary_hash:
            raise UserError(
                f'model_dir "{model_dir}" holds a run of {there.problem} with another vocabulary '
                f"({there.vocabulary_hash}, the data's is {metadata.vocabulary_hash}); "
                "choose another --model_dir"
            )
        check_run(model_dir)
        if there.data_fingerprint != metadata.data_fingerprint:
            logging.warning(
                "the data is not what the run in %s began with; it goes on with the new", model_dir
            )
        metadata = dataclasses.replace(metadata, created=there.created, command=there.command)
    folders = {name: _absolute(getattr(metadata, name)) for name in ("data_dir", "usr_dir")}
    metadata = dataclasses.replace(metadata, **folders)
    files.write_atomic(os.path.join(model_dir, CONFIG_FILE), _complete_config())
    run = json.dumps(dataclasses.asdict(metadata), indent=2, ensure_ascii=False) + "\n"
    files.write_atomic(os.path.join(model_dir, RUN_FILE), run)


def require_same(model_dir: str, there: RunMetadata, **asked: Any) -> None:
    """Raises UserError if a field of the run in `model_dir` is not what is asked for; None asks for nothing."""
    for field, new in asked.items():
        old = getattr(there, field)
        if new is not None and old != new:
            raise UserError(
                f'model_dir "{model_dir}" holds a run of {field} {old}, not {new}; choose another --model_dir'
            )


def check_run(model_dir: str) -> None:
    """Compares the configuration in use with that of the run in `model_dir`; `train.*` may differ.

    Raises:
      UserError: a binding differs; the text names it and both values.
    """
    for difference in differences(model_dir):
        raise UserError(
            f'model_dir "{model_dir}" holds a checkpoint of another configuration: {difference}; '
            "give it the same value or choose another --model_dir"
        )


def differences(model_dir: str) -> Iterator[str]:
    """Yields, as "KEY is VALUE there and VALUE here", how what is in use differs from the run, `SETTINGS` left out."""
    there, here = _statements(_read(os.path.join(model_dir, CONFIG_FILE))), _statements(operative())
    for key in _differences(there, here):
        yield f"{key} is {there[key]} there and {here[key]} here"


def _differences(there: Mapping[str, str], here: Mapping[str, str]) -> Iterator[str]:
    """Yields the bindings of what a model is, not of `SETTINGS`, that have two values."""
    for key in sorted(there.keys() & here.keys()):
        if "." in key and _owner(key) not in SETTINGS and there[key] != here[key]:
            yield key


def _owner(key: str) -> str:
    """Returns the configurable that a binding is of: "decode" of "scope/decode.beam_size"."""
    return key.rsplit(".", 1)[0].rsplit("/", 1)[-1]


def require_one_run(model_dirs: Sequence[str]) -> None:
    """Raises UserError unless these folders hold the same run: one folder, or copies of it.

    Two trainings are two runs even where configuration and seed agree: they were not begun at the same time.
    `train.*` may differ, for a run can go on with other values of it.
    """
    first, *others = dict.fromkeys(os.path.realpath(folder) for folder in model_dirs)
    one = dataclasses.asdict(read_run(first))
    bindings = _statements(_read(os.path.join(first, CONFIG_FILE)))
    for folder in others:
        other = dataclasses.asdict(read_run(folder))
        theirs = _statements(_read(os.path.join(folder, CONFIG_FILE)))
        named = ("problem", "model", "seed", "vocabulary_hash")
        pairs = [(name, one[name], other[name]) for name in named]
        pairs += [(key, bindings[key], theirs[key]) for key in _differences(bindings, theirs)]
        pairs += [("created", one["created"], other["created"])]
        for name, mine, yours in pairs:
            if mine != yours:
                raise UserError(
                    f'"{first}" and "{folder}" are different runs: {name} is {mine} in the first and {yours} '
                    "in the second; give checkpoints of one run"
                )


def read_run(model_dir: str) -> RunMetadata:
    """Returns what `run.json` says.

    Raises:
      UserError: there is no run, or its file is not one.
    """
    path = os.path.join(model_dir, RUN_FILE)
    if not os.path.isfile(path):
        raise UserError(f'"{model_dir}" holds no run (no {RUN_FILE}); train a model there first')
    try:
        run = RunMetadata(**json.loads(_read(path)))
        for name in ("problem", "model", "data_dir"):
            if not isinstance(getattr(run, name), str):
                raise TypeError(f"{name} is {getattr(run, name)!r}")
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); train into another --model_dir") from error
    return run


def read_results(model_dir: str) -> dict[str, Any]:
    """Returns what `results.json` holds, nothing where there is none. Raises UserError if it is damaged."""
    path = os.path.join(model_dir, RESULTS_FILE)
    try:
        results = json.loads(_read(path)) if os.path.exists(path) else {}
        if not isinstance(results, dict):
            raise TypeError(f"a {type(results).__name__}, not an object")
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); move it away") from error
    return results


def update_results(model_dir: str, key: str, value: Mapping[str, Any]) -> None:
    """Sets one entry of `results.json` and leaves the others as they are, whoever else sets theirs meanwhile.

    Raises:
      UserError: the file is damaged or cannot be written.
    """
    path = os.path.join(model_dir, RESULTS_FILE)
    with files.alone_in(model_dir):
        results = read_results(model_dir)
        results[key] = dict(value)
        files.write_atomic(path, json.dumps(results, indent=2, ensure_ascii=False) + "\n")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _absolute(path: str | None) -> str | None:
    return path if path is None or "://" in path else os.path.abspath(path)


def _find(gin_file: str, model_dir: str | None) -> str:
    places = [gin_file, *(os.path.join(d, gin_file) for d in (model_dir, gin_directory()) if d)]
    for path in places:
        if os.path.isfile(path):
            return path
    package = gin_directory()
    known = [name for name in os.listdir(package) if name.endswith(".gin")] if os.path.isdir(package) else []
    raise UserError(
        f'no gin file "{gin_file}" here{" or in " + model_dir if model_dir else ""} or in {package}'
        + near(gin_file, known)
    )


class _Values(config_parser.ParserDelegate):
    """Reads a value as text that compares equal whenever the value is the same, macros resolved."""

    def __init__(self) -> None:
        self.macros: dict[str, Any] = {}

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        return f"@{scoped_configurable_name}{'()' if evaluate else ''}"

    def macro(self, macro_name: str) -> Any:
        return self.macros.get(macro_name, f"%{macro_name}")


def _statements(text: str) -> dict[str, str]:
    """Returns the bindings of gin text: "scope/configurable.parameter" -> the value's literal."""
    values = _Values()
    found = {}
    for statement in config_parser.ConfigParser(text, values):
        if isinstance(statement, config_parser.BindingStatement):
            key = f"{statement.scope}/{statement.selector}" if statement.scope else statement.selector
            if statement.arg_name:
                found[f"{key}.{statement.arg_name}"] = repr(statement.value)
            else:
                values.macros[key] = statement.value
                found[key] = repr(statement.value)
    return found


def _complete_config() -> str:
    """Returns the operative configuration and, after it, the bindings that were given but not used yet."""
    idle = unused()
    if not idle:
        return operative()
    given = gin.config_str()
    return "\n".join(
        ["# All bindings as given, some not used by this command:", given, "# What was used:", operative()]
    )


def _strictly(step: Callable[..., Any], *arguments: str, source: str) -> None:
    """Calls a step of gin's parser; what it raises becomes a UserError."""
    # Where an include is not found at the first place, gin logs an error before it looks at the next.
    python_logging.disable(python_logging.ERROR)
    try:
        step(*arguments)
    except Exception as error:
        raise UserError(_explain(error, source)) from error
    finally:
        python_logging.disable(python_logging.NOTSET)


def _explain(error: Exception, source: str) -> str:
    """Returns one sentence for what gin raised, with near names and the place."""
    text = str(error)
    place = re.search(r'In file "(.*)", line (\d+)', text)
    where = f"{place[1]}:{place[2]}" if place else source
    if isinstance(error, SyntaxError):
        where = f"{error.filename}:{error.lineno}" if error.filename else source
        if token := re.search(r"Failed to parse token '(.*)'", text):
            return f"{where}: {token[1]} is no value; text needs quotes, a reference @, a macro %"
        return f"{where}: {error.msg.splitlines()[0].rstrip('.')}: {(error.text or '').strip()}"
    if match := re.match(r"No configurable matching (?:reference )?'@?([^']*?)(?:\(\))?'", text):
        known = [*SETTINGS, *(n for r in _registries() for n in r.names())]
        return f'{where}: nothing to configure is called "{match[1]}"{near(match[1], known)}'
    if match := re.match(r"Configurable '(.*?)' (?:doesn't|has denylisted).*?'([^']*)'", text):
        known = registry.named_parameters(gin.get_configurable(match[1])) or []
        return f'{where}: {match[1]} has no parameter "{match[2]}"{near(match[2], known)}'
    if match := re.match(r"Unable to open file: (.*?)\. Searched", text):
        return f'{where}: no gin file "{match[1]}" here or in {gin_directory()}'
    return f"{where}: {' '.join(text.splitlines()[0].split())}"


def _registries() -> tuple[registry.Registry, ...]:
    return registry.problems, registry.models, registry.bottlenecks, registry.parts
