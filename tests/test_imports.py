"""The import directions of the package: which of its parts may import which, read from the sources."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "t2t_vqem"

FOUNDATIONS = {
    "errors",
    "files",
    "progress",
    "picture_file",
    "tiles",
    "fusion",
    "context",
    "registry",
    "config",
    "search",
    "ngrams",
    "prefix_search",
}
BUILDING_BLOCKS = {
    "errors",
    "tiles",
    "fusion",
    "context",
    "registry",
}  # all that layers and bottlenecks may know of the package
ABOVE_MODELS = FOUNDATIONS | {"models", "bottlenecks", "layers", "problems"}

# part -> the parts it may import, besides itself
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "progress": set(),
    "picture_file": set(),
    "tiles": set(),
    "fusion": {"tiles"},
    "context": {"fusion"},
    "search": {"errors", "context"},
    "ngrams": {"errors", "files"},
    "prefix_search": {"ngrams"},
    "registry": {"errors"},
    "config": {"errors", "files", "registry"},
    "problems": {"errors", "files", "progress", "picture_file", "registry", "config"},
    "layers": BUILDING_BLOCKS,
    "bottlenecks": BUILDING_BLOCKS | {"layers"},
    "models": FOUNDATIONS | {"layers", "bottlenecks"},
    "training": ABOVE_MODELS,
    "decoding": ABOVE_MODELS | {"training"},
    "evaluation": ABOVE_MODELS | {"training", "decoding"},
    "export": ABOVE_MODELS | {"training", "decoding"},
    "compression": ABOVE_MODELS | {"training", "decoding"},
    "cli": ABOVE_MODELS | {"training", "decoding", "evaluation", "export", "compression"},
}

OUTSIDE_OF_BUILDING_BLOCKS = {"tensorflow", "keras", "numpy", *sys.stdlib_module_names}


def imports(path: pathlib.Path, *, top_level: bool = False) -> set[str]:
    """Returns the absolute names that a file imports, those for type checking alone left out.

    `from package import name` counts as package.name where that is a module. `top_level` leaves out those
    inside functions.
    """
    names = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                inner = PACKAGE.parent.joinpath(*node.module.split("."), alias.name)
                module = inner.is_dir() or inner.with_suffix(".py").exists()
                names.add(f"{node.module}.{alias.name}" if module else node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return names


def part(name: str) -> str | None:
    """Returns the part of the package that a dotted name belongs to, or None if it is not of the package."""
    components = name.split(".")
    return components[1] if components[0] == "t2t_vqem" and len(components) > 1 else None


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def _name(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_imports_go_one_way(path):
    own = part(_name(path))
    assert own in ALLOWED, f"{own} is a new part: say here what it may import"
    for name in imports(path):
        imported = part(name)
        if imported is not None and imported != own:
            assert imported in ALLOWED[own], f"{_name(path)} imports {name}"


def _of(*parts: str) -> pytest.MarkDecorator:
    paths = [path for path in SOURCES if part(_name(path)) in parts]
    return pytest.mark.parametrize("path", paths, ids=_name)


@_of("training", "decoding", "evaluation", "export", "compression")
def test_a_problem_is_seen_only_through_its_contract(path):
    seen = {name for name in imports(path) if part(name) == "problems"}
    contract = {"t2t_vqem.problems.problem", "t2t_vqem.problems.batches", "t2t_vqem.problems.vocabulary"}
    assert seen <= contract


@_of("layers", "bottlenecks")
def test_building_blocks_know_tensorflow_keras_and_numpy_alone(path):
    outside = {name.split(".")[0] for name in imports(path)} - {"t2t_vqem"}
    assert outside <= OUTSIDE_OF_BUILDING_BLOCKS


@_of("errors", "registry", "config", "cli")
def test_tensorflow_is_imported_late_where_help_must_answer_soon(path):
    heavy = {name.split(".")[0] for name in imports(path, top_level=True)}
    assert not heavy & {"tensorflow", "keras", "tensorflow_text", "tensorflow_datasets"}


def test_importing_the_commands_imports_no_tensorflow():
    commands = [_name(path) for path in SOURCES if part(_name(path)) == "cli"]
    statements = "".join(f"import {name}\n" for name in ["t2t_vqem.config", "t2t_vqem.registry", *commands])
    check = "import sys\nassert not {'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", statements + check], check=True, cwd=PACKAGE.parent)


def test_the_reader_sees_every_kind_of_import(tmp_path):
    path = tmp_path / "probe.py"
    path.write_text(
        "import os.path\nfrom t2t_vqem import registry\nfrom t2t_vqem.errors import near\n"
        "def f():\n    from t2t_vqem.cli import flags\n"
        "if TYPE_CHECKING:\n    import tensorflow\n"
    )
    everything = {"os.path", "t2t_vqem.registry", "t2t_vqem.errors", "t2t_vqem.cli.flags"}
    assert imports(path) == everything
    assert imports(path, top_level=True) == everything - {"t2t_vqem.cli.flags"}
