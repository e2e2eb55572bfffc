import os
import pathlib
import subprocess
import sys

import pytest

COMMAND = '''"""A command of the tests."""
import sys
from t2t_vqem.cli import flags
from t2t_vqem.cli.main import run
from t2t_vqem.errors import UserError

flags.define("problem", "gin_file", "strategy", "train_steps")

def main(argv):
    what = flags.FLAGS.problem
    if what == "mend":
        raise UserError("mend this\\n  In call to configurable 'x' (<class>)")
    if what == "full":
        # TensorFlow calls a full disk so, too
        raise type("ResourceExhaustedError", (OSError,), {})(28, "No space left on device", "x.txt")
    if what == "memory":
        raise type("ResourceExhaustedError", (Exception,), {})("OOM when allocating tensor")
    if what == "defect":
        raise RuntimeError("a defect")
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "data":
        raise type("DataLossError", (Exception,), {})("corrupted record at 7 [Op:IteratorGetNext]")
    if what == "wait":
        import time
        try:
            print("waiting", flush=True)
            time.sleep(60)
        finally:
            print("cleaned up")
    if what == "pipe":
        for _ in range(100000):
            print("line")
    print(what, "tensorflow" in sys.modules)

if __name__ == "__main__":
    run(main)
'''


PACKAGE = str(pathlib.Path(__file__).parents[2])


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """A command, and a stand-in for TensorFlow: what is tested here has nothing to do with it."""
    folder = tmp_path_factory.mktemp("cli")
    path = folder / "commands" / "probe.py"
    path.parent.mkdir()
    path.write_text(COMMAND)
    (folder / "tensorflow.py").write_text("class config:\n    list_physical_devices = list\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), PACKAGE])}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # the command's own default is what a user has

    def call(*arguments, **more):
        return subprocess.run(
            [sys.executable, str(path), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environment | more,
        )

    call.command = [sys.executable, str(path)]
    call.environment = environment
    return call


def test_a_command_is_quiet_and_succeeds(command):
    done = command("--problem=toy_ende", PYTHONPATH=PACKAGE)  # with the real TensorFlow
    assert (done.returncode, done.stdout, done.stderr) == (0, "toy_ende True\n", "")


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--problm=x", r"bin/probe: error: unknown flag --problm (did you mean problem?)"),
        ("--train_steps=ten", "train_steps"),
        ("--strategy=two", "strategy"),
        ("stray", 'unexpected argument "stray"'),
        ("--problem=mend", "bin/probe: error: mend this\n"),
        ("--problem=full", "No space left on device: 'x.txt'; make room"),
        ("--problem=memory", "out of memory (OOM when allocating tensor); bind a smaller train.batch_tokens"),
        ("--problem=data", "generated data are damaged: corrupted record at 7"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_status_2(command, argument, line):
    done = command(argument)
    assert done.returncode == 2
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_defect_has_its_traceback(command):
    done = command("--problem=defect")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_terminated_command_cleans_up(command):
    call = [*command.command, "--problem=wait"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True, env=command.environment) as process:
        assert process.stdout.readline() == "waiting\n"
        process.terminate()
        assert process.stdout.read() == "cleaned up\n"
    assert process.returncode == 143


def test_an_interrupt_and_a_broken_pipe_are_quiet(command):
    done = command("--problem=interrupt")
    assert (done.returncode, done.stderr) == (130, "")
    shell = subprocess.run(
        ["bash", "-c", '"$0" "$@" --problem=pipe | head -1; exit ${PIPESTATUS[0]}', *command.command],
        capture_output=True,
        text=True,
        env=command.environment,
    )
    assert (shell.returncode, shell.stdout, shell.stderr) == (141, "line\n", "")


def test_help_lists_the_flags_without_tensorflow(command):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", command.command[1], "--help"],
        capture_output=True,
        text=True,
        env=command.environment,
    )
    assert done.returncode == 0
    assert "A command of the tests." in done.stdout
    assert "--strategy" in done.stdout
    assert "auto|one|mirrored" in done.stdout
    assert "tensorflow" not in done.stderr


@pytest.mark.parametrize("end", ["os.abort()", "raise ImportError('no library')"])
def test_what_tensorflow_says_before_it_fails_is_not_lost(command, tmp_path, end):
    (tmp_path / "tensorflow.py").write_text(
        "import os\nos.write(2, b'I0000 oneDNN custom operations are on.\\nneeds AVX\\n')\n" + end + "\n"
    )
    done = command("--problem=x", PYTHONPATH=os.pathsep.join([str(tmp_path), PACKAGE]))
    assert done.returncode != 0
    assert "needs AVX" in done.stderr
    assert "oneDNN" not in done.stderr
