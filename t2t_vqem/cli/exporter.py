"""Writes a trained translator in a form that is served without this package.

    bin/exporter --model_dir=run --output_dir=served
    bin/exporter --model_dir=run --output_dir=served --gin_param='decode.beam_size = 4'
    bin/exporter --model_dir=run --output_dir=served --gin_param='decode.ctc_candidates = 10' --rerank_model_dir=teacher
    bin/exporter --model_dir=run --output_dir=served --format=ctranslate2       # the model `transformer` alone

saved_model: strings in, strings out; TensorFlow and tensorflow-text run it. ctranslate2: pieces in, pieces out,
for the library of that name. Before it is given its name, the export translates a sample (a SavedModel in a new
process that does not know this package) and must give the decoder's text. export.json in the folder says what it
is and what was compared; the last line of stdout is the same, as one JSON object.
"""

import json
import os

from absl import flags as absl_flags

from t2t_vqem import files
from t2t_vqem.cli import flags
from t2t_vqem.cli import main as cli_main

FORMATS = ("saved_model", "ctranslate2")

flags.define("model_dir", "usr_dir", "data_dir", "gin_param", "checkpoint", "output_dir", "rerank_model_dir")
absl_flags.DEFINE_enum("format", "saved_model", FORMATS, "what to write: saved_model or ctranslate2")
FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Flags to library calls."""
    del argv
    flags.require("model_dir", "output_dir")
    metadata = flags.configure_run()
    # The process that checks the export needs room on the GPU beside this one.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

    from t2t_vqem.export import ctranslate2_model, exporter, saved_model
    from t2t_vqem.training import runs

    files.check_new(FLAGS.output_dir)
    form = ctranslate2_model.CTranslate2() if FLAGS.format == "ctranslate2" else saved_model.SavedModel()
    run = runs.open_run(FLAGS.model_dir, FLAGS.checkpoint, metadata, dtype=form.dtype)
    run.problem.require_content("text", "bin/exporter")
    flags.require_used()
    manifest = exporter.export(
        run, FLAGS.output_dir, form, rerank_model_dir=FLAGS.rerank_model_dir, usr_dir=FLAGS.usr_dir
    )
    print(json.dumps({"output_dir": FLAGS.output_dir, **manifest}, ensure_ascii=False))


if __name__ == "__main__":
    cli_main.run(main)
