"""Runs a command's main function: flags in, one-line errors and exit statuses out.

Status 0: done; 2: a failure that the user can mend, one line on stderr; 130: interrupted; 141: the reader of
stdout went away; 143: terminated; anything else is a defect of the program and comes with its traceback.
"""

import inspect
import logging as python_logging
import os
import re
import runpy
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import flags as absl_flags
from absl import logging

from t2t_vqem.errors import UserError, near

FLAGS = absl_flags.FLAGS

_ENTRY_POINT = "t2t-vqem-"  # see setup.py
_REPEAT = ";\n    repeat this option to specify a list of values"  # absl says so; ours say it already

# TensorFlow writes these before its logging knows any level, so no environment variable hides them.
_CHATTER = re.compile(
    r"All log messages before absl::InitializeLog|oneDNN custom operations|Could not find cuda drivers"
    r"|failed call to cuInit|Unable to register cu|This TensorFlow binary is optimized"
    r"|To enable the following instructions|cuda_diagnostics|computation_placer|precompiled_charsmap is empty"
)

# However Python and TensorFlow wrap them: the reasons why a file cannot be written.
_UNWRITABLE = re.compile(
    "No space left on device|Disk quota exceeded|Read-only file system|Permission denied"
)


def run(
    main: Callable[[list[str]], Any], argv: Sequence[str] | None = None, *, positional: str | None = None
) -> NoReturn:
    """Parses the flags, calls `main` with the positional arguments and exits.

    Args:
      main: its module's docstring is the command's help.
      argv: the command line, `sys.argv` if None.
      positional: what the help calls the positional arguments; None takes none.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # As an exception it lets temporary files be removed; the trainer takes the signal over.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    argv = list(sys.argv if argv is None else argv)
    program = _program(argv[0])
    try:
        arguments = _parse(argv, main, program, positional)
        _log_to_stderr()
        _import_tensorflow_quietly()
        main(arguments)
        sys.stdout.flush()
        status = 0
    except UserError as error:
        status = _fail(program, str(error))
    except absl_flags.Error as error:
        status = _fail(program, _flag_error(error, main))
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        # Whatever is still buffered has no reader; Python would complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        if type(error).__name__ == "DataLossError":  # TensorFlow's, of a record unlike its checksum
            text = f"generated data are damaged: {first}; bin/datagen --verify names the file"
        elif _UNWRITABLE.search(str(error)):
            text = f"{first}; make room or choose another folder"
        elif type(error).__name__ == "ResourceExhaustedError":
            text = f"out of memory ({first[:200]}); bind a smaller train.batch_tokens, 1024 say"
        else:
            raise
        status = _fail(program, text)
    sys.exit(status)


def command() -> None:
    """The entry point of every installed command: t2t-vqem-NAME runs the module t2t_vqem.cli.NAME."""
    name = os.path.basename(sys.argv[0]).removesuffix(".exe").removeprefix(_ENTRY_POINT)
    runpy.run_module(f"t2t_vqem.cli.{name}", run_name="__main__", alter_sys=True)


def _parse(argv: list[str], main: Callable[..., Any], program: str, positional: str | None) -> list[str]:
    if "help" not in FLAGS:
        absl_flags.DEFINE_boolean("help", False, "show this help", short_name="h")
    FLAGS.set_gnu_getopt(True)  # flags may stand behind arguments
    arguments = FLAGS(argv)[1:]
    if FLAGS.help:
        print(_help(main, program, positional))
        sys.exit(0)
    if arguments and positional is None:
        raise UserError(f'unexpected argument "{arguments[0]}"; every option is a --flag, see --help')
    return arguments


def _help(main: Callable[..., Any], program: str, positional: str | None) -> str:
    lines = [f"usage: {program} [--flag=value ...]{' ' + positional if positional else ''}", ""]
    lines += [inspect.getdoc(sys.modules[main.__module__]) or "", "", "flags:"]
    for flag in _flags(main):
        default = "" if flag.default in (None, []) or flag.default is False else f" (default: {flag.default})"
        indent = " " * 6
        text = flag.help.removesuffix(_REPEAT) + default
        lines += [
            f"  --{flag.name}",
            textwrap.fill(text, 96, initial_indent=indent, subsequent_indent=indent),
        ]
    return "\n".join(lines)


def _flags(main: Callable[..., Any]) -> list[absl_flags.Flag]:
    """Returns the flags of the package and of this command, without those that absl itself defines."""
    by_module = FLAGS.flags_by_module_dict()
    modules = ("t2t_vqem.cli.flags", _module_name(main))
    return [flag for module in modules for flag in by_module.get(module, ())]


def _module_name(main: Callable[..., Any]) -> str:
    # absl names the module that was run by its path.
    return sys.argv[0] if main.__module__ == "__main__" else main.__module__


def _flag_error(error: absl_flags.Error, main: Callable[..., Any]) -> str:
    if isinstance(error, absl_flags.UnrecognizedFlagError):
        return f"unknown flag --{error.flagname}{near(error.flagname, [flag.name for flag in _flags(main)])}"
    return str(error)


def _fail(program: str, text: str) -> int:
    # gin appends the configurable that an exception came through, on lines of its own.
    text = text.split("\n  In call to configurable")[0]
    print(f"{program}: error: {' '.join(text.split())}", file=sys.stderr)
    return 2


def _program(path: str) -> str:
    """Returns what the user typed: `bin/trainer` in a checkout, `t2t-vqem-trainer` once installed."""
    name = os.path.basename(path).removesuffix(".py")
    installed = os.path.isdir(os.path.join(os.path.dirname(os.path.dirname(__file__)), "gin_files"))
    return f"{_ENTRY_POINT}{name}" if installed else f"bin/{name}"


def _log_to_stderr() -> None:
    logging.set_verbosity(logging.INFO)
    logging.use_absl_handler()
    # A step is traced once for each shape of batch, on purpose; the trainer reports each itself.
    python_logging.getLogger("tensorflow").addFilter(lambda entry: "retracing" not in entry.getMessage())
    logging.get_absl_handler().setFormatter(python_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))


def _import_tensorflow_quietly() -> None:
    """Imports TensorFlow, looks for devices, and passes on to stderr what is not mere chatter.

    Another process does the passing on: what TensorFlow says before it aborts (on a CPU it is not made for,
    say) must not be lost with this one.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    source, sink = os.pipe()
    reader = os.fork()
    if reader == 0:
        os.close(sink)
        _pass_on(source)
    os.close(source)
    kept = os.dup(2)
    os.dup2(sink, 2)
    os.close(sink)
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.waitpid(reader, 0)


def _pass_on(source: int) -> NoReturn:
    try:
        with os.fdopen(source, "rb") as lines:
            for line in lines:
                if not _CHATTER.search(line.decode(errors="replace")):
                    os.write(2, line)
    finally:
        os._exit(0)
