"""Scores a trained model on splits of its problem, or compares several in quality and speed.

    bin/evaluator --model_dir=run
    bin/evaluator --model_dir=run --split=test_2016_flickr,test_2017_flickr --checkpoint=latest --latency

Without --split, the split that the best checkpoint was chosen on. Prints a table for each split and then, as
the last lines, one JSON object for each, in the order given; the same figures go into the run's results.json,
under "eval/SPLIT" and "latency", or "eval/SPLIT (SEARCH)" and "latency (SEARCH)" where the search is not greedy: those
of several searches stand side by side.

    bin/evaluator --compare --split=val --output=docs/ runs/teacher runs/latent_nat
    bin/evaluator --compare "AR beam 4=runs/teacher,decode.beam_size=4" "AR greedy=runs/teacher" \\
        "latest=runs/latent_nat,checkpoint=latest"
    bin/evaluator --compare "NPD 4=runs/nat,decode.num_candidates=4,rerank=runs/teacher" runs/teacher

A model of pictures is judged by bits per dimension, with --prior_model_dir=RUN under that prior over its codes instead
of the uniform one; its pictures go to MODEL_DIR/pictures.

Each run is given as [NAME=]RUN[,SETTING=VALUE]..., where a setting is a gin binding for this run alone, its
checkpoint, or rerank, the run that chooses among its candidates; the same run may stand there several times.
--gin_param, --checkpoint and --data_dir hold for all. The runs must share the texts of the split, not the
problem's name. They take turns on the clock, sentence by sentence, so that a noisy machine hits them alike. Prints
one table and, as the last line, one JSON object; --output=PREFIX writes both and a picture to PREFIX.md,
PREFIX.json and PREFIX.png, and --output=FOLDER to compare_SPLIT there. A run that fails to translate has no
figures, and the exit status is 2 then.
"""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags as absl_flags

from t2t_vqem import config, files, picture_file
from t2t_vqem.cli import flags
from t2t_vqem.cli import main as cli_main
from t2t_vqem.errors import UserError

if TYPE_CHECKING:
    from t2t_vqem.evaluation import comparison
    from t2t_vqem.training import runs

flags.define("model_dir", "split", "usr_dir", "data_dir", "gin_param", "checkpoint", "output")
flags.define("rerank_model_dir", "prior_model_dir")
absl_flags.DEFINE_string("hypotheses", None, "a file to write the translations to; for one split")
absl_flags.DEFINE_boolean("latency", False, "also time the translation of one sentence and of batches of 32")
absl_flags.DEFINE_integer(
    "latency_sentences",
    100,
    "sentences to time one by one; in batches of 32, ten times as many where there are",
    lower_bound=1,
)
absl_flags.DEFINE_boolean("compare", False, "compare the runs that are named behind the flags")
FLAGS = flags.FLAGS

_TEXT_ALONE = ("hypotheses", "latency", "rerank_model_dir")
_COMPARE_ALONE, _RUN_ALONE = ("output",), ("model_dir", "prior_model_dir", *_TEXT_ALONE)


def main(argv: list[str]) -> None:
    """Flags to library calls."""
    for name in _RUN_ALONE if FLAGS.compare else _COMPARE_ALONE:
        if FLAGS[name].value:
            raise UserError(f"--{name} goes {'without' if FLAGS.compare else 'with'} --compare alone")
    if FLAGS.compare:
        _compare(argv)
    elif argv:
        raise UserError(f'unexpected argument "{argv[0]}"; only --compare takes runs behind the flags')
    else:
        _evaluate()


def _evaluate() -> None:
    """Scores the run in --model_dir."""
    metadata = flags.configure_run()
    config.read_results(FLAGS.model_dir)  # which the figures are added to: before the work, not after

    from t2t_vqem.training import runs

    run = runs.open_run(FLAGS.model_dir, FLAGS.checkpoint, metadata)
    splits = _splits(run.problem)
    runs.check_data(run)
    for content, names in {"text": _TEXT_ALONE, "images": ("prior_model_dir",)}.items():
        for name in names:
            if FLAGS[name].value:
                run.problem.require_content(content, f"--{name}")
    reports = _evaluate_text(run, splits) if run.problem.content == "text" else _evaluate_other(run, splits)
    for report in reports:
        print(json.dumps(report, ensure_ascii=False))


def _evaluate_text(run: "runs.Run", splits: Sequence[str]) -> list[dict[str, Any]]:
    """Translates the splits; returns a report of each."""
    from t2t_vqem.decoding import lines, rerank
    from t2t_vqem.evaluation import latency
    from t2t_vqem.evaluation.evenly import evenly
    from t2t_vqem.evaluation.translation import TranslationEvaluator
    from t2t_vqem.training import record, summaries

    metadata = run.metadata
    flags.require_used()
    model = (
        rerank.reranked(run, FLAGS.rerank_model_dir, FLAGS.usr_dir) if FLAGS.rerank_model_dir else run.model
    )
    batching = {"boundaries": run.train_config.boundaries, "batch_tokens": run.train_config.batch_tokens}
    reports, searched = [], str(getattr(run.model, "decoding", ""))
    if FLAGS.rerank_model_dir:
        searched += f", reranked by {os.path.basename(os.path.abspath(FLAGS.rerank_model_dir))}"
    with contextlib.ExitStack() as stack:
        hypotheses = stack.enter_context(lines.NewFile(FLAGS.hypotheses)) if FLAGS.hypotheses else None
        for split in splits:
            evaluator = TranslationEvaluator(run.problem, metadata.data_dir, split, **batching)
            evaluation = evaluator.evaluate_with_hypotheses(run.model, model)
            if hypotheses:
                hypotheses.write(evaluation.hypotheses)
            figures = {"step": run.step, "checkpoint": FLAGS.checkpoint, "search": searched, **_bindings()}
            if FLAGS.rerank_model_dir:
                figures["reranked_by"] = model.scorer_name
            if run.ngrams:
                figures["ngrams"] = run.ngrams
            figures |= summaries.figures(evaluation.values)
            reports.append({"problem": metadata.problem, "model": metadata.model, "split": split, **figures})
            _print_table(f"{metadata.problem}, {split}, step {run.step}", figures)
            print(f"\n{evaluation.values['samples']}\n", flush=True)
            name = f"{split} ({searched})" if searched else split
            config.update_results(FLAGS.model_dir, f"eval/{name}", figures)
    if FLAGS.latency:
        conditions = latency.conditions()
        system = latency.System(
            model,
            run.vocabulary,
            boundaries=run.train_config.boundaries,
            single=FLAGS.latency_sentences,
        )
        timed = evenly(len(evaluator.sources), latency.BATCHED * FLAGS.latency_sentences)
        system.prepare([evaluator.sources[i] for i in timed])
        times = latency.measure([system])[0] | conditions
        compiled = "compiled" if getattr(run.model, "decoding", None) and run.model.decoding.compile else ""
        how = ", ".join(filter(None, (searched, compiled)))
        latency_of = {"step": run.step, "split": splits[-1], "search": how, **_bindings(), **times}
        config.update_results(FLAGS.model_dir, f"latency ({how})" if how else "latency", latency_of)
        machine = record.machine_line(times["machine"])
        _print_table(f"latency, sentences of {splits[-1]}", times | {"machine": machine})
        reports[-1].update(times)
    return reports


def _evaluate_other(run: "runs.Run", splits: Sequence[str]) -> list[dict[str, Any]]:
    """Judges a model of pictures or codes on the splits; returns a report of each."""
    from t2t_vqem.evaluation import evaluators
    from t2t_vqem.training import summaries

    metadata, reports, prior, of = run.metadata, [], None, ""
    if FLAGS.prior_model_dir:
        from t2t_vqem.decoding import prior as priors

        of = f"_{os.path.basename(os.path.abspath(FLAGS.prior_model_dir))}"
        of_prior = flags.configure_run(FLAGS.prior_model_dir)
        prior = priors.open_prior(FLAGS.prior_model_dir, run, of_prior)
    else:  # with a prior some of it may be the prior's
        flags.require_used()
    for split in splits:
        evaluator = evaluators.make(run.problem, metadata.data_dir, split, run.train_config)
        values = (
            evaluator.evaluate_with_prior(run.model, prior)
            if prior
            else evaluator.evaluate(run.model, run.step)
        )
        figures = {
            "step": run.step,
            "checkpoint": FLAGS.checkpoint,
            **_bindings(),
            **summaries.figures(values),
        }
        reports.append({"problem": metadata.problem, "model": metadata.model, "split": split, **figures})
        _print_table(f"{metadata.problem}, {split}, step {run.step}", figures)
        for key, picture in values.items():
            if np.ndim(picture) == 3:
                path = os.path.join(FLAGS.model_dir, "pictures", f"{split}_{key}{of}.png")
                files.write_atomic(path, picture_file.png(picture))
                print(f"  {key:32} {path}")
        name = f"{split} (prior {prior.name}, {of[1:]})" if prior else split
        config.update_results(FLAGS.model_dir, f"eval/{name}", figures)
    return reports


def _bindings() -> dict[str, str]:
    """Returns what --gin_param changed, to stand beside the figures."""
    return {"bindings": "; ".join(FLAGS.gin_param)} if FLAGS.gin_param else {}


def _compare(texts: Sequence[str]) -> None:
    """Compares the runs that the command line names."""
    from t2t_vqem.decoding import lines
    from t2t_vqem.evaluation import comparison
    from t2t_vqem.training import record

    used: set[str] = set()
    competitors = [_open(entry, used) for entry in comparison.parse_entries(texts)]
    for binding in FLAGS.gin_param:
        if binding not in used:
            raise UserError(f"none of the runs has a use for --gin_param='{binding}'; leave it out")
    split = FLAGS.split or competitors[0].run.problem.dev_split
    with contextlib.ExitStack() as stack:
        reports, prefix = {}, None
        if FLAGS.output:
            from t2t_vqem.evaluation import picture

            folder = os.path.isdir(FLAGS.output) or FLAGS.output.endswith("/")
            prefix = os.path.join(FLAGS.output, f"compare_{split}") if folder else FLAGS.output
            for suffix in (".md", ".json"):  # begun before the work: a folder without rights is found at once
                reports[suffix] = stack.enter_context(lines.NewFile(prefix + suffix))
        report = comparison.compare(competitors, split, single=FLAGS.latency_sentences)
        failed = [row["name"] for row in report["runs"] if "error" in row]
        table = comparison.markdown(report)
        print(table, flush=True)
        if prefix:
            reports[".md"].write([table])
            reports[".json"].write([json.dumps(report, indent=1, ensure_ascii=False)])
            if len(failed) < len(competitors):
                png = picture.quality_against_latency(report, record.machine_line(report["machine"]))
                files.write_atomic(f"{prefix}.png", png)
    print(json.dumps(report, ensure_ascii=False))
    if failed:
        raise UserError(f"failed to translate, and have no figures: {', '.join(failed)}; the table says why")


def _open(entry: "comparison.Entry", used: set[str]) -> "comparison.Competitor":
    """Opens a run under its own configuration, which replaces that of the run before.

    What it has a use for of --gin_param is added to `used`.
    """
    from t2t_vqem.decoding import rerank
    from t2t_vqem.evaluation import comparison
    from t2t_vqem.training import runs

    checkpoint = entry.checkpoint or FLAGS.checkpoint
    try:
        metadata = flags.configure_run(entry.model_dir, entry.bindings)
        run = runs.open_run(entry.model_dir, checkpoint, metadata)
        run.problem.require_content("text", "--compare")
        config.require_used(entry.bindings)
        used.update(config.used(FLAGS.gin_param))
        model = rerank.reranked(run, entry.rerank, FLAGS.usr_dir) if entry.rerank else run.model
    except UserError as error:
        raise UserError(f'"{entry.name}": {error}') from error
    return comparison.Competitor(entry, run, model, checkpoint)


def _splits(problem: Any) -> list[str]:
    splits = (FLAGS.split or problem.dev_split).split(",")
    if FLAGS.hypotheses and len(splits) > 1:
        raise UserError(f"--hypotheses is one file, and --split names {len(splits)} splits; give one")
    return [problem.require_split(split.strip()) for split in splits]


def _print_table(title: str, figures: Mapping[str, Any]) -> None:
    print(title)
    for name, value in figures.items():
        print(f"  {name:32} {value:.4f}" if isinstance(value, float) else f"  {name:32} {value}")


if __name__ == "__main__":
    cli_main.run(main, positional="[RUN ...]")
