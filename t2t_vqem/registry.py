"""Names for problems, models and bottlenecks: the package's own and those of a user's code.

A module registers what it holds with a decorator:

    @registry.problems.register("my_ende")
    class MyEnDe(TranslationProblem): ...

and every registered object is a gin configurable of that name, so that `my_ende.vocab_size = 4000` binds its
constructor's parameter. The decorator returns the object untouched (classes can be subclassed and called as
usual); what gin configures is the callable that `get` returns.
"""

import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import gin

from t2t_vqem.errors import UserError, near

T = TypeVar("T", bound=Callable[..., Any])


class Registry:
    """Objects of one kind by name; the package's own are imported at first use.

    Args:
      kind: what is registered, e.g. "problem"; part of the messages. Its plural is the gin module.
      builtins: the module that registers each of the package's own names when it is imported.
      derived: suffix -> module, for what is made of another: NAME + suffix is known wherever NAME is, and the
        module's `register(name, base)` makes it.
    """

    def __init__(self, kind: str, builtins: Mapping[str, str], derived: Mapping[str, str] | None = None):
        self.kind = kind
        self._builtins = dict(builtins)
        self._derived = dict(derived or {})
        self._configurables: dict[str, Callable[..., Any]] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Returns a decorator that registers a class or function; a class that has no `name` gets this one.

        Raises:
          UserError: the name is taken, or is not an identifier.
        """

        def decorator(obj: T) -> T:
            if not name.isidentifier():
                raise UserError(
                    f'the {self.kind} name "{name}" is not an identifier; use letters, digits and _'
                )
            taken = name in self._configurables or self._builtins.get(name, obj.__module__) != obj.__module__
            if taken:
                raise UserError(
                    f'a {self.kind} named "{name}" is registered already; '
                    f"{obj.__module__} must choose another name"
                )
            if (
                isinstance(obj, type)
                and "name" not in vars(obj)
                and isinstance(getattr(obj, "name", ""), str)
            ):
                obj.name = name  # an inherited name would be the parent's; a Keras layer's is a property
            with gin.unlock_config():
                self._configurables[name] = gin.external_configurable(
                    obj, name=name, module=f"{self.kind}s", allowlist=named_parameters(obj)
                )
            return obj

        return decorator

    def get(self, name: str) -> Callable[..., Any]:
        """Returns the callable of that name, whose unspecified arguments come from the gin configuration.

        Raises:
          UserError: nothing of that name is known; the text names the nearest.
        """
        if name not in self._configurables:
            if not isinstance(name, str):
                raise UserError(f"a {self.kind} is named by its name in quotes, not by {name!r}")
            if name not in self._builtins:
                for suffix, module in self._derived.items():
                    base = name.removesuffix(suffix)
                    if base != name and base in self.names():
                        importlib.import_module(module).register(name, base)
                        return self._configurables[name]
                known = [n + suffix for suffix in ("", *self._derived) for n in self.names()]
                raise UserError(f'unknown {self.kind} "{name}"{near(name, known)}')
            self._import(name)
        return self._configurables[name]

    def names(self) -> list[str]:
        """Returns the known names, sorted, without importing anything."""
        return sorted({*self._builtins, *self._configurables})

    def load_all(self) -> None:
        """Imports every builtin, so that gin knows the parameters of each."""
        for name in self._builtins:
            if name not in self._configurables:
                self._import(name)

    def _import(self, name: str) -> None:
        importlib.import_module(self._builtins[name])
        if name not in self._configurables:
            raise RuntimeError(f'{self._builtins[name]} does not register the {self.kind} "{name}"')


def named_parameters(obj: Callable[..., Any]) -> list[str] | None:
    """Returns the parameters of a function or constructor that gin may bind, or None if there are none.

    A constructor with `**kwargs` would take any misspelt name; what it can mean are its own named
    parameters and those of the constructors that it hands the rest to.
    """
    if not isinstance(obj, type):
        signatures = [inspect.signature(obj)]
    else:
        signatures = [
            inspect.signature(base.__init__) for base in obj.__mro__[:-1] if "__init__" in vars(base)
        ]
    names: dict[str, None] = {}
    for signature in signatures:
        parameters = list(signature.parameters.values())[1 if isinstance(obj, type) else 0 :]
        kinds = {parameter.kind for parameter in parameters}
        names.update(
            (p.name, None) for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        )
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return list(names) or None


problems = Registry(
    "problem",
    {
        "cifar10": "t2t_vqem.problems.cifar10",
        "image_folder": "t2t_vqem.problems.image_folder",
        "multi30k_ende": "t2t_vqem.problems.multi30k",
        "tatoeba_ende": "t2t_vqem.problems.tatoeba",
        "text_pair": "t2t_vqem.problems.text_pair",
        "toy_ende": "t2t_vqem.problems.toy",
        "toy_shapes": "t2t_vqem.problems.toy_shapes",
        "wmt_ende": "t2t_vqem.problems.wmt",
    },
    derived={"_codes": "t2t_vqem.problems.codes", "_distill": "t2t_vqem.problems.distilled"},
)
models = Registry(
    "model",
    {
        "code_vqvae": "t2t_vqem.models.code_vqvae",
        "latent_nat": "t2t_vqem.models.latent_nat",
        "latent_prior": "t2t_vqem.models.latent_prior",
        "nat": "t2t_vqem.models.nat",
        "nat_ctc": "t2t_vqem.models.nat_ctc",
        "pixelcnn": "t2t_vqem.models.pixelcnn",
        "transformer": "t2t_vqem.models.transformer",
        "vqvae": "t2t_vqem.models.vqvae",
    },
)
bottlenecks = Registry(
    "bottleneck",
    {
        "adaptive_em": "t2t_vqem.bottlenecks.adaptive",
        "fsq": "t2t_vqem.bottlenecks.scalar",
        "gradient_vq": "t2t_vqem.bottlenecks.gradient_vq",
        "gumbel_softmax": "t2t_vqem.bottlenecks.relaxed",
        "hard_em": "t2t_vqem.bottlenecks.em",
        "lfq": "t2t_vqem.bottlenecks.scalar",
        "product": "t2t_vqem.bottlenecks.composite",
        "residual": "t2t_vqem.bottlenecks.composite",
        "semhash": "t2t_vqem.bottlenecks.relaxed",
        "simvq": "t2t_vqem.bottlenecks.simvq",
        "soft_em": "t2t_vqem.bottlenecks.em",
    },
)
# What several of the above are made with, and share the bindings of.
parts = Registry("part", {"codebook": "t2t_vqem.bottlenecks.settings"})

_loaded_usr_dirs: set[str] = set()


def bound(parameter: str) -> bool:
    """Returns whether the configuration binds `parameter`, NAME.PARAMETER of something registered."""
    try:
        gin.query_parameter(parameter)
    except ValueError:  # gin's word for what is not
        return False
    return True


def load_usr_dir(path: str | None) -> None:
    """Imports a user's own code, so that what it registers is known: a package, a folder or one file.

    Modules of one folder may import each other relatively (`from . import grammar`). Names that begin with
    "_" or "test_", setup.py and conftest.py are left alone. A second call with the same path does nothing.

    Raises:
      UserError: no such path, or the code in it fails; the text names file and line.
    """
    if path is None:
        return
    real = os.path.realpath(path)
    if real in _loaded_usr_dirs:
        return
    folder = os.path.isdir(real)
    if not folder and not (os.path.isfile(real) and real.endswith(".py")):
        raise UserError(f'--usr_dir "{path}" is neither a folder of Python modules nor a .py file')
    stem = re.sub(r"\W", "_", os.path.splitext(os.path.basename(real))[0])
    package = f"t2t_vqem_usr_{stem}_{hashlib.sha256(real.encode()).hexdigest()[:8]}"
    try:
        if folder:
            _import_folder(package, real)
        else:
            _import_file(package, real)
    except UserError:
        raise
    except Exception as error:
        where = _place(error, real)
        raise UserError(f'--usr_dir "{path}" cannot be imported: {type(error).__name__}: {where}') from error
    _loaded_usr_dirs.add(real)


def _import_folder(package: str, folder: str) -> None:
    init = os.path.join(folder, "__init__.py")
    if os.path.exists(init):
        _import_file(package, init, [folder])
    else:
        module = types.ModuleType(package)
        module.__path__ = [folder]
        sys.modules[package] = module
    for entry in sorted(os.listdir(folder)):
        stem, extension = os.path.splitext(entry)
        aside = stem.startswith(("_", "test_")) or stem in ("setup", "conftest")
        if extension == ".py" and stem.isidentifier() and not aside:
            importlib.import_module(f"{package}.{stem}")


def _import_file(name: str, path: str, search: list[str] | None = None) -> None:
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=search)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _place(error: Exception, path: str) -> str:
    """Returns the message of an exception in a user's code with the innermost line of that code."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({error.filename}, line {error.lineno})"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(path)]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return " ".join(str(error).split()) + place
