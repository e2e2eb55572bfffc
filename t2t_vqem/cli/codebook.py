"""Reports what the codebook of a trained model is used for, over a whole split of its problem.

    bin/codebook --model_dir=run
    bin/codebook --model_dir=run --split=test --checkpoint=latest --output=report

Usage, live codes, perplexity, softness of the E-step, movement between the run's checkpoints, agreement of two halves
of the split, what text or which patches each code stands for, and what one code in the place of another changes.
Without --split, the split that the best checkpoint was chosen on. Writes into --output, or MODEL_DIR/codebook if it is
not given:

    codebook.json    all of it
    codebook.html    a page with pictures, which opens offline
    projector/       the codes in space: tensorboard --logdir=MODEL_DIR/codebook/projector

Prints a table and, as the last line, one JSON object of the single figures; they go into the run's results.json
as well, under "codebook/SPLIT".
"""

import contextlib
import json
import os

from t2t_vqem import config
from t2t_vqem.cli import flags
from t2t_vqem.cli import main as cli_main

flags.define("model_dir", "split", "usr_dir", "data_dir", "gin_param", "checkpoint", "output")
FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Flags to library calls."""
    del argv
    metadata = flags.configure_run()

    from t2t_vqem.decoding import lines
    from t2t_vqem.evaluation import codebook_page, codebook_pictures, codebook_projector, codebook_report
    from t2t_vqem.training import runs

    run = runs.open_run(FLAGS.model_dir, FLAGS.checkpoint, metadata)
    flags.require_used()
    codebook_report.require_codebook(run)
    split = run.problem.require_split(FLAGS.split or run.problem.dev_split)
    runs.check_data(run)
    folder = FLAGS.output or os.path.join(FLAGS.model_dir, "codebook")
    with contextlib.ExitStack() as stack:  # begun before the work: a folder without rights is found at once
        names = ("codebook.json", "codebook.html")
        data, page = (stack.enter_context(lines.NewFile(os.path.join(folder, name))) for name in names)
        report = codebook_report.report(run, FLAGS.model_dir, split)
        values = {**report.values, "checkpoint": FLAGS.checkpoint}
        codebook_projector.write(os.path.join(folder, "projector"), values, report.places)
        data.write([json.dumps(values, ensure_ascii=False)])
        page.write([codebook_page.page(values, codebook_pictures.pictures(values))])
    about = {name: values[name] for name in ("step", "checkpoint", "num_codes", "num_slots")}
    figures = about | values["figures"]
    config.update_results(FLAGS.model_dir, f"codebook/{split}", figures)
    print(f"{metadata.problem}, {split}, step {run.step}")
    for name, value in figures.items():
        print(f"  {name:32} {value:.4f}" if isinstance(value, float) else f"  {name:32} {value}")
    told = {"problem": metadata.problem, "model": metadata.model, "split": split, **figures}
    print(json.dumps(told, ensure_ascii=False))


if __name__ == "__main__":
    cli_main.run(main)
