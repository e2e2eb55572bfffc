"""Translates lines of text with a trained model: one output line for each input line, and nothing else.

    bin/decoder --model_dir=run --input=test.en --output=test.de
    echo "A man rides a bicycle." | bin/decoder --model_dir=run
    bin/decoder --model_dir=run                         # at a terminal: a prompt

--input may be gzipped. It is read through before anything is translated, and --output appears whole or not at
all. From a pipe, whatever lines have arrived are translated together and written at once, so that a process
which writes a line and waits gets its answer, and one that writes many gets them fast. An empty line gives an
empty line; one that is too long for the model is cut, and stderr says at the end how many were.
"""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterable

from absl import flags as absl_flags

from t2t_vqem.cli import flags
from t2t_vqem.cli import main as cli_main
from t2t_vqem.errors import UserError

flags.define("model_dir", "usr_dir", "gin_param", "checkpoint", "output", "rerank_model_dir")
absl_flags.DEFINE_boolean(
    "candidates",
    False,
    "print every candidate as NUMBER<tab>LOG PROBABILITY<tab>TEXT, the best of each line first",
)
absl_flags.DEFINE_string("input", None, "the file to translate, gzipped or not; stdin if not given")
absl_flags.DEFINE_boolean("interactive", False, "prompt for each line, as is done when stdin is a terminal")
FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Flags to library calls."""
    del argv
    from t2t_vqem.decoding import lines, rerank
    from t2t_vqem.decoding.translator import WINDOW_LINES, Translator
    from t2t_vqem.training import runs

    flags.require("model_dir")
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(contextlib.closing(lines.TextInput(FLAGS.input)))
        interactive = FLAGS.interactive or source.is_terminal
        whole = source.is_regular and not interactive
        if whole and source.check() == 0 and FLAGS.input:
            raise UserError(f"{FLAGS.input} is empty: there is nothing to translate")
        write: Callable[[Iterable[str]], None] = _print
        if FLAGS.output:
            write = stack.enter_context(lines.NewFile(FLAGS.output)).write

        run = runs.open_run(FLAGS.model_dir, FLAGS.checkpoint, flags.configure_run())
        config = run.train_config
        model = rerank.reranked(run, FLAGS.rerank_model_dir) if FLAGS.rerank_model_dir else run.model
        translator = Translator(
            model, run.vocabulary, boundaries=config.boundaries, batch_tokens=config.batch_tokens
        )
        if whole:
            windows = lines.windows(source.lines(), WINDOW_LINES)
        elif interactive:
            windows = source.windows(1, before_wait=_prompt)
        else:
            windows = source.windows(WINDOW_LINES)
        if FLAGS.candidates:
            number = itertools.count(1)
            for window in windows:
                found = zip(translator.candidates(window), number, strict=False)
                write([f"{n}\t{score:.4f}\t{text}" for own, n in found for score, text in own or [(0.0, "")]])
        else:
            for outputs in translator.translate_windows(windows):
                write(outputs)
        if interactive:
            print(file=sys.stderr)  # the shell's prompt goes below ours


def _print(outputs: Iterable[str]) -> None:
    sys.stdout.buffer.writelines(f"{output}\n".encode() for output in outputs)  # UTF-8 in every locale
    sys.stdout.buffer.flush()


def _prompt() -> None:
    print("> ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli_main.run(main)
