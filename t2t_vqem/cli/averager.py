"""Averages checkpoints of one run into a run of its own, which the other commands open like any run.

    bin/averager --model_dir=run --output_dir=averaged              # the latest five, or as many as are kept
    bin/averager --model_dir=run --last=3 --output_dir=averaged
    bin/averager --model_dir=run --steps=1000,2000 --output_dir=averaged
    bin/averager --output_dir=averaged run/ckpt-1000 run/best/ckpt-1500

Checkpoints of different runs are refused. Where the run's data are there, the averaged weights are evaluated
on the split that the best checkpoint was chosen on, beside the raw weights of the newest checkpoint averaged and the
run's best, raw or a moving average; the figures go into results.json of the new run. The last line of stdout is one
JSON object.
"""

import json
from typing import Any

from absl import flags as absl_flags
from absl import logging

from t2t_vqem import config, files
from t2t_vqem.cli import flags
from t2t_vqem.cli import main as cli_main
from t2t_vqem.errors import UserError

flags.define("model_dir", "usr_dir", "data_dir", "output_dir")
absl_flags.DEFINE_integer("last", None, "average the latest so many checkpoints", lower_bound=2)
absl_flags.DEFINE_list("steps", None, "average the checkpoints of these steps")
FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Flags to library calls."""
    flags.require("output_dir")
    _require_one_choice(argv)

    from t2t_vqem.training import averaging, checkpoints, runs

    files.check_new(FLAGS.output_dir)
    if argv:
        averaged = averaging.listed(argv)
        FLAGS.model_dir = averaging.run_of(averaged[max(averaged)])
    metadata = flags.configure_run()
    if FLAGS.steps:
        averaged = averaging.listed([checkpoints.find(FLAGS.model_dir, step) for step in FLAGS.steps])
    elif not argv:
        averaged = averaging.last(FLAGS.model_dir, FLAGS.last)
    run = runs.open_run(FLAGS.model_dir, max(averaged), metadata)
    evaluator = _evaluator(run)
    beside = _evaluate_beside(evaluator, run.model, averaged) if evaluator else {}
    averaging.average(list(averaged.values()), run.model)
    figures = {"average": _evaluate(evaluator, run.model, max(averaged)), **beside} if evaluator else {}
    averaging.write_run(FLAGS.output_dir, run, averaged)
    logging.info("%s is the average of steps %s", FLAGS.output_dir, ", ".join(map(str, averaged)))

    report = {"problem": metadata.problem, "model": metadata.model, "output_dir": FLAGS.output_dir}
    report |= {"steps": list(averaged)}
    if figures:
        split = run.problem.dev_split
        report |= {"split": split, **figures}
        searched = str(getattr(run.model, "decoding", ""))
        name = f"eval/{split} ({searched})" if searched else f"eval/{split}"
        config.update_results(
            FLAGS.output_dir, name, {"checkpoint": "best", "search": searched, **figures["average"]}
        )
        config.update_results(
            FLAGS.output_dir, "average", {"split": split, "steps": list(averaged), **figures}
        )
        _print_table(f"{metadata.problem}, {split}", figures)
    print(json.dumps(report, ensure_ascii=False))


def _require_one_choice(argv: list[str]) -> None:
    """Raises UserError unless exactly one way of choosing checkpoints is taken."""
    if argv and (FLAGS.model_dir or FLAGS.last or FLAGS.steps):
        raise UserError("checkpoints are given by path; leave out --model_dir, --last and --steps")
    if FLAGS.last and FLAGS.steps:
        raise UserError("--last and --steps both choose checkpoints; give one of them")
    if FLAGS.steps == []:
        raise UserError("--steps names no step; give two or more, as in --steps=1000,2000")
    if not argv:
        flags.require("model_dir")


def _evaluator(run: Any) -> Any | None:
    """Returns the evaluator of the split the run is judged by, or None where the data are not there."""
    from t2t_vqem.evaluation import evaluators
    from t2t_vqem.training import runs

    try:
        runs.check_data(run)
        return evaluators.make(run.problem, run.metadata.data_dir, run.problem.dev_split, run.train_config)
    except UserError as error:
        logging.warning("nothing is evaluated: %s", error)
        return None


def _evaluate_beside(evaluator: Any, model: Any, averaged: dict[int, str]) -> dict[str, dict[str, Any]]:
    """Returns the figures of the newest checkpoint and of the run's best, whose weights are left in `model`."""
    from t2t_vqem.training import checkpoints

    paths = {"newest": averaged[max(averaged)]}
    best = checkpoints.read_best(FLAGS.model_dir)
    if best and (best.step, best.weights) != (max(averaged), "raw"):
        paths["best"] = checkpoints.find(FLAGS.model_dir, "best")
    return {
        name: _evaluate(evaluator, model, checkpoints.restore_weights(path, model))
        for name, path in paths.items()
    }


def _evaluate(evaluator: Any, model: Any, step: int) -> dict[str, Any]:
    """Returns the figures of the weights in `model`."""
    from t2t_vqem.training import summaries

    return {"step": step} | summaries.figures(evaluator.evaluate(model, step))


def _print_table(title: str, figures: dict[str, dict[str, Any]]) -> None:
    print(f"{title:34}" + "".join(f"{name:>12}" for name in figures))
    for key, value in figures["average"].items():
        if not isinstance(value, str):
            cells = [values[key] for values in figures.values()]
            print(f"  {key:32}" + "".join(f"{c:12.4f}" if isinstance(c, float) else f"{c:12}" for c in cells))


if __name__ == "__main__":
    cli_main.run(main, positional="[CHECKPOINT ...]")
