"""Translates lines of text with a trained model: one output line for each input line, and nothing else.

With a model of pictures (the last two commands) it rebuilds the pictures of a folder from their codes, or draws new
ones from a prior over the codes, at decode.temperature (1 if it is not given, or 0); the lines of the output are the
files it wrote.

    bin/decoder --model_dir=run --input=test.en --output=test.de
    echo "A man rides a bicycle." | bin/decoder --model_dir=run
    bin/decoder --model_dir=run                         # at a terminal: a prompt
    bin/decoder --model_dir=vqvae --input=pictures --output=rebuilt
    bin/decoder --model_dir=vqvae --prior_model_dir=prior --samples=64 --output=drawn

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

from t2t_vqem import config, files, registry
from t2t_vqem.cli import flags
from t2t_vqem.cli import main as cli_main
from t2t_vqem.errors import UserError

flags.define("model_dir", "usr_dir", "gin_param", "checkpoint", "output", "rerank_model_dir")
flags.define("prior_model_dir", "input")
absl_flags.DEFINE_boolean(
    "candidates",
    False,
    "print every candidate as NUMBER<tab>LOG PROBABILITY<tab>TEXT, the best of each line first",
)
absl_flags.DEFINE_integer("samples", None, "how many pictures to draw", lower_bound=1)
absl_flags.DEFINE_boolean("interactive", False, "prompt for each line, as is done when stdin is a terminal")
FLAGS = flags.FLAGS


_OF_TEXT, _OF_PICTURES = ("candidates", "interactive", "rerank_model_dir"), ("samples", "prior_model_dir")


def main(argv: list[str]) -> None:
    """Flags to library calls."""
    del argv
    metadata = flags.configure_run()
    problem = registry.problems.get(metadata.problem)()
    if problem.content == "codes":
        raise UserError(
            "bin/decoder takes a prior by --prior_model_dir, and by --model_dir the model of pictures"
        )
    text = problem.content == "text"
    for name in _OF_PICTURES if text else _OF_TEXT:
        if FLAGS[name].value:
            problem.require_content("images" if text else "text", f"--{name}")
    (_translate if text else _pictures)(metadata)


def _pictures(metadata: config.RunMetadata) -> None:
    """Rebuilds the pictures in --input, or draws --samples of them, into the folder --output."""
    from t2t_vqem import search
    from t2t_vqem.decoding import pictures, prior
    from t2t_vqem.training import runs

    if bool(FLAGS.input) == bool(FLAGS.samples):
        raise UserError(
            "for pictures give --input=FOLDER to rebuild, or --samples=NUMBER to draw, one of the two"
        )
    if bool(FLAGS.samples) != bool(FLAGS.prior_model_dir):
        raise UserError(
            "--samples are drawn from a prior over the codes: give it by --prior_model_dir, and both"
        )
    flags.require("output")
    files.check_new(FLAGS.output, "output")
    found = pictures.paths(FLAGS.input) if FLAGS.input else []
    searched = search.Settings()
    drawing = searched.drawing()
    if FLAGS.samples:
        searched.require_only(list(drawing), "pictures are drawn, not searched for")
    else:
        searched.require_only([], "pictures are rebuilt from their own codes, which are not searched for")
    run = runs.open_run(FLAGS.model_dir, FLAGS.checkpoint, metadata)
    if not FLAGS.samples:  # else some of it may be the prior's
        flags.require_used()
    pictures.require_codes(run.model, "bin/decoder")
    if FLAGS.samples:
        of_prior = flags.configure_run(FLAGS.prior_model_dir)
        drawn_from = prior.open_prior(FLAGS.prior_model_dir, run, of_prior).model
        classes = run.metadata.dimensions["num_classes"]
        drawn = pictures.samples(run.model, drawn_from, FLAGS.samples, num_classes=classes, **drawing)
        digits = len(str(FLAGS.samples - 1))
        made = (pictures.Picture(f"{n:0{digits}}", pixels) for n, pixels in enumerate(drawn))
    else:
        pictures.warn_of_class(run.model)
        made = pictures.rebuilt(run.model, pictures.read(found, run.model.image_shape))
    _print(pictures.write(made, FLAGS.output))


def _translate(metadata: config.RunMetadata) -> None:
    """Translates --input, or what comes in, line by line."""
    from t2t_vqem.decoding import lines, rerank
    from t2t_vqem.decoding.translator import WINDOW_LINES, Translator
    from t2t_vqem.training import runs

    with contextlib.ExitStack() as stack:
        source = stack.enter_context(contextlib.closing(lines.TextInput(FLAGS.input)))
        interactive = FLAGS.interactive or source.is_terminal
        whole = source.is_regular and not interactive
        if whole and source.check() == 0 and FLAGS.input:
            raise UserError(f"{FLAGS.input} is empty: there is nothing to translate")
        write: Callable[[Iterable[str]], None] = _print
        if FLAGS.output:
            write = stack.enter_context(lines.NewFile(FLAGS.output)).write

        run = runs.open_run(FLAGS.model_dir, FLAGS.checkpoint, metadata)
        flags.require_used()
        model = (
            rerank.reranked(run, FLAGS.rerank_model_dir, FLAGS.usr_dir)
            if FLAGS.rerank_model_dir
            else run.model
        )
        translator = Translator(
            model,
            run.vocabulary,
            boundaries=run.train_config.boundaries,
            batch_tokens=run.train_config.batch_tokens,
        )
        if whole:
            windows = lines.windows(source.lines(), WINDOW_LINES)
        elif interactive:
            windows = source.windows(1, before_wait=_prompt)
        else:
            windows = source.windows(WINDOW_LINES)
        if FLAGS.candidates:
            number = itertools.count(1)
            for window in translator.telling_of_cuts(windows):
                found = zip(translator.candidates(window), number, strict=False)
                write([f"{n}\t{score:.4f}\t{text}" for own, n in found for score, text in own or [(0.0, "")]])
        else:
            for outputs in translator.translate_windows(windows):
                write(outputs)
        if interactive:
            print(file=sys.stderr)  # the shell's prompt goes below ours


def _print(outputs: Iterable[str]) -> None:
    # UTF-8 in every locale; names of files may be any bytes
    sys.stdout.buffer.writelines(f"{output}\n".encode(errors="surrogateescape") for output in outputs)
    sys.stdout.buffer.flush()


def _prompt() -> None:
    print("> ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli_main.run(main)
