"""Compresses pictures with a trained image model, and a prior over its codes, into one file, and reads it.

    bin/codec encode --model_dir=vqvae --prior_model_dir=prior --input=pictures --output=pictures.vqc
    bin/codec decode --model_dir=vqvae --prior_model_dir=prior --input=pictures.vqc --output=again

What is kept are the codes: decode writes what the model makes of them, as PNG. Without --prior_model_dir all codes
count as equally likely. Both commands need the same weights, which the file knows again. The last line of stdout is a
JSON object; that of encode tells the bits per pixel of the codes and, beside them, the bound by the prior's own
likelihood.

Everything runs on the CPU, the prior in float64: it must come to the same probabilities twice. Should another processor
or TensorFlow ever sum to others, decode says so and writes nothing.
"""

import json
import os
import time
from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from t2t_vqem import files
from t2t_vqem.cli import flags
from t2t_vqem.cli import main as cli_main
from t2t_vqem.errors import UserError

if TYPE_CHECKING:
    from t2t_vqem.compression.codec import Codec

flags.define("model_dir", "prior_model_dir", "usr_dir", "gin_param", "checkpoint", "input", "output")
absl_flags.DEFINE_string(
    "prior_checkpoint", "best", "which weights of the prior: best, latest, or the number of a step"
)
FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Flags to library calls."""
    if argv not in (["encode"], ["decode"]):
        raise UserError("say what to do: bin/codec encode or bin/codec decode, with flags")
    flags.require("model_dir", "input", "output")

    from t2t_vqem.compression import coding

    coding.require_library()
    start = time.monotonic()
    report = _encode() if argv == ["encode"] else _decode()
    print(json.dumps(report | {"seconds": round(time.monotonic() - start, 1)}))


def _encode() -> dict[str, Any]:
    from t2t_vqem.decoding import pictures

    paths = pictures.paths(FLAGS.input)
    files.check_writable(FLAGS.output)
    if os.path.realpath(FLAGS.output) in map(os.path.realpath, paths):
        raise UserError(f'--output "{FLAGS.output}" is one of the pictures to encode; give another file')
    codec, shape = _open()
    container, report = codec.encode(pictures.read(paths, shape), len(paths))
    files.write_atomic(FLAGS.output, container.pack())
    return {"output": FLAGS.output, **report}


def _decode() -> dict[str, Any]:
    from t2t_vqem.compression import container
    from t2t_vqem.decoding import pictures

    read = container.unpack(files.read(FLAGS.input), FLAGS.input)
    files.check_new(FLAGS.output, "output")
    codec, _ = _open()
    pictures.write(codec.decode(read, FLAGS.input), FLAGS.output)
    return {"output": FLAGS.output, "pictures": len(read.names)}


def _open() -> tuple["Codec", tuple[int, int, int]]:
    """Returns the codec of the runs that the flags name, and the shape of its pictures."""
    metadata = flags.configure_run()

    import tensorflow as tf

    from t2t_vqem.compression.codec import Codec
    from t2t_vqem.decoding import pictures, prior
    from t2t_vqem.training import runs

    if tf.config.list_physical_devices("GPU"):
        # In which order a GPU sums is chosen by the clock, and a file must be readable without one.
        tf.config.set_visible_devices([], "GPU")
    run = runs.open_run(FLAGS.model_dir, FLAGS.checkpoint, metadata, dtype="float32")
    run.problem.require_content("images", "bin/codec")
    pictures.require_codes(run.model, "bin/codec")
    pictures.warn_of_class(run.model)
    found = None
    if FLAGS.prior_model_dir:
        of_prior, which = flags.configure_run(FLAGS.prior_model_dir), FLAGS.prior_checkpoint
        found = prior.open_prior(FLAGS.prior_model_dir, run, of_prior, which=which, dtype="float64")
    return Codec(run.model, f"{metadata.model}@{run.step}", found), run.model.image_shape


if __name__ == "__main__":
    cli_main.run(main, positional="encode|decode")
