"""Several runs on one split: quality and speed side by side, measured on one machine by one code path."""

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from t2t_vqem import config
from t2t_vqem.decoding.translator import InferenceModel
from t2t_vqem.errors import UserError
from t2t_vqem.evaluation import latency
from t2t_vqem.training import record, strategy
from t2t_vqem.training.runs import Run

# A comma ends a setting only where another begins: values such as (8, 16) hold commas of their own.
_NEXT_SETTING = re.compile(r",\s*(?=[\w./]+\s*=)")

# Heading of a column, the figure it shows, and how.
_COLUMNS = (
    ("BLEU", "bleu", ".2f"),
    ("brevity penalty", "bleu_brevity_penalty", ".3f"),
    ("chrF", "chrf", ".2f"),
    ("p50, ms", "latency_p50_ms", ".1f"),
    ("p95, ms", "latency_p95_ms", ".1f"),
    ("ids p50, ms", "infer_latency_p50_ms", ".1f"),
    ("ids p95, ms", "infer_latency_p95_ms", ".1f"),
    ("speed-up", "speed_up", ".2f"),
    ("sentences/s", "sentences_per_second_batch_32", ".1f"),
    ("decoder calls", "decoder_calls", ".1f"),
    ("parameters", "parameters", ",d"),
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A run as the command line names it: [NAME=]RUN[,SETTING=VALUE]...

    Attributes:
      name: what the table calls it; where none is given, the run's folder and the settings.
      checkpoint, rerank: the settings of that name, or None.
      bindings: the settings that are gin bindings, e.g. "decode.beam_size = 4".
    """

    name: str
    model_dir: str
    checkpoint: str | None = None
    bindings: tuple[str, ...] = ()
    rerank: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Entry":
        """Raises UserError if `text` is not in that notation."""
        first, *settings = _NEXT_SETTING.split(text)
        name, named, model_dir = (part.strip() for part in first.partition("="))
        if not named:
            name, model_dir = "", name
        if not model_dir or (named and not name):
            raise UserError(f'"{text}" names no run; write [NAME=]RUN[,SETTING=VALUE]...')
        own, bindings = {}, {}
        for setting in settings:
            key, value = (part.strip() for part in setting.split("=", 1))
            if not value:
                raise UserError(f'"{text}": {key} has no value')
            if key in own or key in bindings:
                raise UserError(f'"{text}" gives {key} twice')
            if key in ("checkpoint", "rerank"):
                own[key] = value
            elif "." in key:
                bindings[key] = value
            else:
                raise UserError(
                    f'"{text}": a run has no setting "{key}"; give checkpoint=..., rerank=RUN '
                    "or a gin binding such as decode.beam_size=4; a name holds no comma"
                )
        name = name or ", ".join([os.path.basename(os.path.abspath(model_dir)), *settings])
        return cls(name, model_dir, bindings=tuple(f"{k} = {v}" for k, v in bindings.items()), **own)


def parse_entries(texts: Sequence[str]) -> list[Entry]:
    """Returns the runs that a command line names. Raises UserError if there are none, or two of one name."""
    if not texts:
        raise UserError(
            "no runs to compare; name them behind the flags, each as [NAME=]RUN[,SETTING=VALUE]..."
        )
    entries = [Entry.parse(text) for text in texts]
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'two runs are called "{name}"; name them apart, as in "another name=RUN"')
    return entries


class Competitor(NamedTuple):
    """An entry with its run opened.

    Attributes:
      model: what translates: the run's own model, or one around it.
      checkpoint: which weights of the run were asked for.
    """

    entry: Entry
    run: Run
    model: InferenceModel
    checkpoint: str | int


def compare(competitors: Sequence[Competitor], split: str, *, single: int = 100) -> dict[str, Any]:
    """Translates a split with each run, then times them all in turns, and returns the figures.

    Args:
      single: sentences to time one by one; in batches, ten times as many (`latency.System`).

    Returns:
      what holds for all, and "runs", in the order given: what each is, its metrics, and the figures of
      `latency.measure` with "speed_up", the ratio of `reference`'s `latency_p50_ms` to its own. `reference`
      is the first autoregressive run that decodes greedily, or else the first run. A run that failed to
      translate has "error" in the place of all figures.

    Raises:
      UserError: a run's problem has no such split, or its texts are others than the first run's; its data
        are missing.
    """
    sources, references = _texts(competitors, split)
    conditions = latency.conditions()
    rows, systems = [], []
    for number, competitor in enumerate(competitors, 1):
        row, system = _description(competitor), _system(competitor, single)
        try:
            hypotheses = system.prepare(sources, f"{row['name']} ({number} of {len(competitors)})")
            if not any(hypotheses):
                raise _Untranslated("all of its translations are empty")
        except (tf.errors.OpError, ValueError, _Untranslated) as error:
            row["error"] = _reason(error)
            logging.error('"%s" failed to translate: %s', row["name"], row["error"])
        except UserError as error:
            raise UserError(f'"{row["name"]}": {error}') from error
        else:
            row |= competitor.run.problem.score(hypotheses, references)
            systems.append((row, system))
        rows.append(row)
    common = {"split": split, "sentences": len(sources), **conditions, "rounds": latency.ROUNDS}
    if systems:
        times = latency.measure([system for _, system in systems])
        for (row, _), figures in zip(systems, times, strict=True):
            row |= figures
        reference = _reference([row for row, _ in systems])
        for row, _ in systems:
            row["speed_up"] = reference["latency_p50_ms"] / row["latency_p50_ms"]
        common["reference"] = reference["name"]
    return common | {"versions": config.package_versions(), "runs": rows}


class _Untranslated(Exception):
    """A model ran and translated nothing."""


def _reason(error: Exception) -> str:
    """Returns the line of an error that says what went wrong; TensorFlow puts a traceback before it."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("[[")]
    return told[-1][:300] if told else type(error).__name__


def _texts(competitors: Sequence[Competitor], split: str) -> tuple[list[str], list[str]]:
    """Returns sources and references of the split, which all runs must share."""
    first, texts = competitors[0], None
    for competitor in competitors:
        problem, metadata, name = competitor.run.problem, competitor.run.metadata, competitor.entry.name
        if not hasattr(problem, "texts"):
            raise UserError(f'"{name}" is a run of {metadata.problem}, which is no translation problem')
        try:
            own = problem.texts(problem.require_split(split), metadata.data_dir)
        except UserError as error:
            raise UserError(f'"{name}": {error}') from error
        texts = texts or own
        if own != texts:
            raise UserError(
                f'"{name}" and "{first.entry.name}" cannot be compared: the texts of {split} in '
                f"{problem.folder(metadata.data_dir)} are not those in "
                f"{first.run.problem.folder(first.run.metadata.data_dir)}"
            )
    return texts


def _system(competitor: Competitor, single: int) -> latency.System:
    run = competitor.run
    return latency.System(
        competitor.model, run.vocabulary, boundaries=run.train_config.boundaries, single=single
    )


def _description(competitor: Competitor) -> dict[str, Any]:
    """Returns what a row says of its run beside the figures."""
    entry, run = competitor.entry, competitor.run
    decoding = getattr(run.model, "decoding", None)
    return {
        "name": entry.name,
        "model_dir": entry.model_dir,
        "problem": run.metadata.problem,
        "model": run.metadata.model,
        "checkpoint": competitor.checkpoint,
        "step": run.step,
        "bindings": list(entry.bindings),
        "rerank": entry.rerank,
        "decoding": dataclasses.asdict(decoding) if decoding else None,
        "dtype": strategy.compute_dtype(run.train_config.dtype),
    }


def _reference(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the row that speed-ups are relative to."""
    for row in rows:
        decoding = row["decoding"]
        if row["rerank"] or (decoding and decoding["temperature"]):
            continue
        if row["model"] == "transformer" and decoding["beam_size"] == 1 and decoding["num_candidates"] <= 1:
            return row
    return rows[0]


def markdown(report: dict[str, Any]) -> str:
    """Returns the report of `compare` as a Markdown table with notes, aligned to be read as it is, too."""
    table = [["run", *(heading for heading, _, _ in _COLUMNS)]]
    for row in report["runs"]:
        cells = [format(row[key], form) if key in row else "–" for _, key, form in _COLUMNS]
        table.append([row["name"].replace("|", "\\|"), *cells])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["| " + " | ".join(_pad(cells, widths)) + " |" for cells in table]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join([*lines, "", *_notes(report), *_run_lines(report)])


def _pad(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = zip(cells, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]


def _notes(report: dict[str, Any]) -> list[str]:
    """Returns how the figures were come by."""
    timed = [row for row in report["runs"] if "latency_p50_ms" in row]
    notes = [f"{report['split']}, {report['sentences']} sentences."]
    for metric, key in (("BLEU", "bleu_signature"), ("chrF", "chrf_signature")):
        signatures = sorted({row[key] for row in timed if key in row})
        notes += [f"{metric}: sacreBLEU {', '.join(f'`{s}`' for s in signatures)}."] if signatures else []
    if timed:
        notes += [
            f"p50, p95: latency of {timed[0]['latency_sentences']} sentences one at a time, text in and text "
            f"out; ids: ids in and ids out, without tokenisation; sentences/s: {timed[0]['throughput_sentences']} "
            f"sentences in batches of {latency.BATCH}, text in and text out. Warm, all runs in turns, "
            f"{report['rounds']} rounds.",
            f"Speed-up: against {report['reference']}, by p50. Decoder calls: sequential ones a sentence. "
            "Parameters: those that translation reads.",
        ]
    machine = record.machine_line(report["machine"])
    return [*notes, f"Machine: {machine}; load average before {report['load_average']:.2f}.", ""]


def _run_lines(report: dict[str, Any]) -> list[str]:
    """Returns what each run is."""
    lines = []
    for row in report["runs"]:
        settings = "".join(f", `{binding}`" for binding in row["bindings"])
        settings += f", reranked by {row['rerank']}" if row["rerank"] else ""
        failed = f"; failed: {row['error']}" if "error" in row else ""
        lines.append(
            f"- {row['name']}: {row['model']} on {row['problem']}, {row['model_dir']}, step {row['step']} "
            f"({row['checkpoint']}), {row['dtype']}{settings}{failed}"
        )
    return lines
