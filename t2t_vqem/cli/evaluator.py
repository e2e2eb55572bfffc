"""Scores a trained model on splits of its problem.

    bin/evaluator --model_dir=run
    bin/evaluator --model_dir=run --split=test_2016_flickr,test_2017_flickr --checkpoint=latest --latency

Without --split, the split that the best checkpoint was chosen on. Prints a table for each split and then, as
the last lines, one JSON object for each, in the order given; the same figures go into the run's results.json,
under "eval/SPLIT" and "latency".
"""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from absl import flags as absl_flags
from absl import logging

from t2t_vqem import config
from t2t_vqem.cli import flags
from t2t_vqem.cli import main as cli_main
from t2t_vqem.errors import UserError

flags.define("model_dir", "split", "usr_dir", "data_dir", "gin_param")
absl_flags.DEFINE_string("hypotheses", None, "a file to write the translations to; for one split")
absl_flags.DEFINE_boolean("latency", False, "also time the translation of one sentence and of batches of 32")
FLAGS = flags.FLAGS
if "checkpoint" not in FLAGS:  # where one process imports decoder and evaluator
    absl_flags.DEFINE_string("checkpoint", "best", "which weights: best, latest, or the number of a step")

_LATENCY_SENTENCES = 1000


def main(argv: list[str]) -> None:
    """Flags to library calls."""
    del argv
    metadata = flags.configure_run()

    from t2t_vqem.decoding import lines
    from t2t_vqem.evaluation import latency
    from t2t_vqem.evaluation.translation import TranslationEvaluator
    from t2t_vqem.training import runs

    run = runs.open_run(FLAGS.model_dir, FLAGS.checkpoint, metadata)
    splits = _splits(run.problem)
    _check_data(run)
    batching = {"boundaries": run.train_config.boundaries, "batch_tokens": run.train_config.batch_tokens}
    reports = []
    with contextlib.ExitStack() as stack:
        hypotheses = stack.enter_context(lines.NewFile(FLAGS.hypotheses)) if FLAGS.hypotheses else None
        for split in splits:
            evaluator = TranslationEvaluator(run.problem, metadata.data_dir, split, **batching)
            evaluation = evaluator.evaluate_with_hypotheses(run.model)
            if hypotheses:
                hypotheses.write(evaluation.hypotheses)
            figures = {k: v for k, v in evaluation.values.items() if k != "samples" and _is_figure(v)}
            figures = {"step": run.step, "checkpoint": FLAGS.checkpoint, **figures}
            reports.append({"problem": metadata.problem, "model": metadata.model, "split": split, **figures})
            _print_table(f"{metadata.problem}, {split}, step {run.step}", figures)
            print(f"\n{evaluation.values['samples']}\n", flush=True)
            config.update_results(FLAGS.model_dir, f"eval/{split}", figures)
    if FLAGS.latency:
        sentences = evaluator.sources[:_LATENCY_SENTENCES]
        times = latency.measure(run.model, run.vocabulary, sentences, boundaries=run.train_config.boundaries)
        config.update_results(FLAGS.model_dir, "latency", {"step": run.step, "split": splits[-1], **times})
        _print_table(f"latency, sentences of {splits[-1]}", times)
        reports[-1].update(times)
    for report in reports:
        print(json.dumps(report, ensure_ascii=False))


def _splits(problem: Any) -> list[str]:
    splits = (FLAGS.split or problem.dev_split).split(",")
    if FLAGS.hypotheses and len(splits) > 1:
        raise UserError(f"--hypotheses is one file, and --split names {len(splits)} splits; give one")
    return [problem.require_split(split.strip()) for split in splits]


def _check_data(run: Any) -> None:
    """Raises UserError if the data have another vocabulary than the run; warns if they are other data."""
    problem, metadata = run.problem, run.metadata
    if problem.vocabulary(metadata.data_dir).hash != run.vocabulary.hash:
        raise UserError(
            f'the vocabulary of {metadata.problem} in "{metadata.data_dir}" is not the one that the run in '
            f'"{FLAGS.model_dir}" was trained with; --data_dir names another folder'
        )
    if problem.fingerprint(metadata.data_dir) != metadata.data_fingerprint:
        logging.warning("the data in %s are not those that the run began with", metadata.data_dir)


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float | str)


def _print_table(title: str, figures: Mapping[str, Any]) -> None:
    print(title)
    for name, value in figures.items():
        print(f"  {name:32} {value:.4f}" if isinstance(value, float) else f"  {name:32} {value}")


if __name__ == "__main__":
    cli_main.run(main)
