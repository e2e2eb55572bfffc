"""The package as it is installed, as it runs from a checkout, and the scripts that make its environment."""

import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = (
    "trainer",
    "datagen",
    "decoder",
    "evaluator",
    "distiller",
    "encoder",
    "averager",
    "exporter",
    "ngrams",
    "codebook",
    "codec",
)

WHERE = (
    "import os, gin, t2t_vqem; from t2t_vqem import config; folder = config.gin_directory();"
    "assert hasattr(gin, 'parse_config'), gin;"
    "assert os.path.isfile(os.path.join(folder, 'soft_em.gin')), folder;"
    "print(os.path.dirname(t2t_vqem.__file__), folder, sep='\\n')"
)


def _run(*arguments, cwd, **environment):
    return subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        env={key: value for key, value in os.environ.items() if key not in environment} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    for name in ("t2t_vqem", "gin"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "requirements.txt", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel")
    built = _run(*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", ".", cwd=source)
    assert built.returncode == 0, built.stderr
    return next((source / "dist").glob("*.whl"))


def test_the_wheel_holds_the_gin_files_inside_the_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for path in (ROOT / "gin").glob("*.gin"):
        assert f"t2t_vqem/gin_files/{path.name}" in names
    assert not [name for name in names if name.startswith(("gin/", "tests/", "bin/", "bench/"))]
    for path in (ROOT / "t2t_vqem").rglob("*.py"):
        assert str(path.relative_to(ROOT)) in names


def test_an_installed_package_finds_its_gin_files_and_commands(wheel, tmp_path):
    target = tmp_path / "target"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install")
    done = _run(*pip, "--no-deps", "--no-index", "--target", target, wheel, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for cwd in (tmp_path, ROOT):  # the folder gin/ of the working directory must not be taken for the module
        done = _run(sys.executable, "-P", "-c", WHERE, cwd=cwd, PYTHONPATH=str(target))
        assert done.stdout.split() == [str(target / "t2t_vqem"), str(target / "t2t_vqem" / "gin_files")], done
    done = _run(target / "bin" / "t2t-vqem-trainer", "--no_such_flag", cwd=tmp_path, PYTHONPATH=str(target))
    assert done.returncode == 2
    assert done.stderr.startswith("t2t-vqem-trainer: error: unknown flag --no_such_flag")
    for command in COMMANDS:
        done = _run(target / "bin" / f"t2t-vqem-{command}", "--help", cwd=tmp_path, PYTHONPATH=str(target))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"usage: t2t-vqem-{command}")


@pytest.mark.parametrize("options", [("-c", WHERE), ("-P", "-c", WHERE)])
def test_a_checkout_is_not_shadowed_by_its_gin_folder(options):
    done = _run(sys.executable, *options, cwd=ROOT, PYTHONPATH=str(ROOT))
    assert done.stdout.split() == [str(ROOT / "t2t_vqem"), str(ROOT / "gin")], done.stderr


def test_python_m_works_in_a_checkout():
    done = _run(sys.executable, "-m", "t2t_vqem.cli.trainer", "--help", cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_bin_runs_from_any_folder(command, tmp_path):
    done = _run(ROOT / "bin" / command, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: bin/{command}")
    assert "--model_dir" in done.stdout or "--data_dir" in done.stdout
    done = _run(ROOT / "bin" / command, "--modeldir=x", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"bin/{command}: error: unknown flag --modeldir")
    assert done.stderr.count("\n") == 1


def test_every_runtime_requirement_is_pinned_and_the_pair_is_a_pair():
    pins = dict(
        line.split("==")
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line[:1] not in "#"
    )
    assert pins["tensorflow"].split(".")[:2] == pins["tensorflow-text"].split(".")[:2]
    assert "keras" in pins


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose Python has a pip that only notes what it is asked for."""
    root = tmp_path / "checkout"
    (root / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "bin" / "_environment", root / "bin")
    for name in ("requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, root)
    python = tmp_path / "python"
    python.write_text(f"""#!/bin/sh
case "$*" in
    *sys.version_info*) exit "${{WRONG_VERSION:-0}}" ;;
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo venv >> {tmp_path}/log ;;
    *"pip install"*) echo install >> {tmp_path}/log; sleep "${{SLOW_PIP:-0}}"; exit "${{FAILING_PIP:-0}}" ;;
esac
""")
    python.chmod(0o755)
    log, seen = tmp_path / "log", []

    log.write_text("")

    def make(**environment):
        path = {"PATH": "/usr/bin:/bin", "PYTHON": str(python)}
        done = _run("bin/_environment", cwd=root, **(path | environment))
        new = log.read_text().split()[len(seen) :]
        seen.extend(new)
        return done, new

    make.root = root
    return make


def test_the_environment_is_made_once(checkout):
    done, steps = checkout()
    assert (done.returncode, steps) == (0, ["venv", "install"])
    done, steps = checkout()
    assert (done.returncode, steps, done.stderr) == (0, [], "")
    with open(checkout.root / "requirements.txt", "a") as file:
        file.write("another==1.0\n")
    assert checkout()[1] == ["install"]  # other pins: brought up to date in place
    assert checkout()[1] == []


@pytest.mark.skipif(shutil.which("flock") is None, reason="this system has no flock")
def test_two_commands_that_start_at_once_make_one_environment(checkout):
    with concurrent.futures.ThreadPoolExecutor() as both:
        done = [job.result()[0] for job in [both.submit(checkout, SLOW_PIP="1") for _ in range(2)]]
    assert [one.returncode for one in done] == [0, 0]
    assert (checkout.root.parent / "log").read_text().split() == ["venv", "install"]


def test_a_half_made_environment_is_made_anew(checkout):
    done, _ = checkout(FAILING_PIP="1")
    assert done.returncode == 2
    (checkout.root / ".venv" / "leftover").write_text("")
    done, steps = checkout()
    assert (done.returncode, steps) == (0, ["venv", "install"])
    assert not (checkout.root / ".venv" / "leftover").exists()
    assert checkout()[1] == []


def test_a_wrong_python_is_named(checkout):
    # Only the stand-in can be found, and it says that it is of another version.
    folder = checkout.root.parent / "path"
    folder.mkdir()
    for tool in ("sh", "cat", "cksum", "dirname", "rm"):
        (folder / tool).symlink_to(shutil.which(tool))
    done, steps = checkout(WRONG_VERSION="1", PATH=str(folder))
    assert done.returncode == 2
    assert "Python 3.11, 3.12 or 3.13 is needed" in done.stderr
    assert steps == []
    assert not (checkout.root / ".venv").exists()
