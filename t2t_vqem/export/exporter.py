"""Exports a trained translator, and compares the export with the decoder before it takes its name."""

import contextlib
import dataclasses
import json
import os
from typing import Any

from absl import logging

from t2t_vqem import config, files
from t2t_vqem.decoding import rerank
from t2t_vqem.decoding.translator import InferenceModel, Translator
from t2t_vqem.errors import UserError
from t2t_vqem.export.format import Format, Windows
from t2t_vqem.models.translation import TranslationModel
from t2t_vqem.training.runs import Run

MANIFEST = "export.json"
_SAMPLE_LINES = 64
_ALONE = 3  # lines of the sample that are also translated as batches of their own


def export(
    run: Run,
    output_dir: str,
    form: Format,
    *,
    rerank_model_dir: str | None = None,
    usr_dir: str | None = None,
) -> dict[str, Any]:
    """Writes the model of `run` to the new folder `output_dir` and returns what its `export.json` says.

    Args:
      rerank_model_dir: a run that chooses among the candidates, and is exported with the model.
      usr_dir: as `runs.open_run` takes it.

    Raises:
      UserError: the model is no translator, or not of the format's kind; the folder exists and is not empty,
        or cannot be written; the run that chooses does not fit; the export translates a line otherwise than the
        decoder. Nothing is left then.
    """
    if not isinstance(run.model, TranslationModel):
        raise UserError(f"{run.metadata.model} is no translation model; only those can be exported")
    if rerank_model_dir and not form.chooses:
        raise UserError(
            f"{form.name} has nothing that chooses among candidates; leave out --rerank_model_dir"
        )
    # An export is not compiled for each shape, so what it is compared with must not be either: that rounds otherwise.
    run.model.decoding = dataclasses.replace(run.model.decoding, compile=False)
    model, chooser = run.model, None
    if rerank_model_dir:
        model = rerank.reranked(run, rerank_model_dir, usr_dir)
        chooser = model.scorer_name
    with files.new_folder(output_dir) as folder:
        logging.info("writing %s of step %d", run.metadata.model, run.step)
        form.write(run, model, folder)
        windows, origin = sample(run)
        logging.info(
            "comparing its translations of %d lines (%s) with the decoder's", len(windows[0]), origin
        )
        compare(windows, decode(run, model, windows), form.translate(run, folder, windows))
        manifest = {
            "format": form.name,
            "problem": run.metadata.problem,
            "model": run.metadata.model,
            "step": run.step,
            "vocabulary_hash": run.vocabulary.hash,
            "dtype": run.model.compute_dtype,
            "decode": dataclasses.asdict(run.model.decoding),
            "ngrams": run.ngrams,
            "reranked_by": chooser,
            "most_source_tokens": run.train_config.boundaries[-1],
            **form.details(run),
            "compared": {"lines": len(windows[0]), "source": origin, "different": 0},
            "versions": config.package_versions(),
        }
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        files.write_atomic(os.path.join(folder, MANIFEST), text)
    return manifest


def sample(run: Run) -> tuple[Windows, str]:
    """Returns lines to compare on, as windows to be translated together, and where they are from.

    Lines of the development split where the run's data are still there; and always awkward ones: blank, of
    unknown characters, with line breaks, too long.
    """
    origin = "built in"
    lines = ["A man rides a red bicycle.", "Two dogs play in the snow."]
    with contextlib.suppress(UserError):
        sources, _ = run.problem.texts(run.problem.dev_split, run.metadata.data_dir)
        lines, origin = sources[:_SAMPLE_LINES], f"{run.metadata.problem} {run.problem.dev_split}"
    longest = run.train_config.boundaries[-1]
    awkward = ["", " \u00a0", "🙂 東京", "one\u2028two\r\n", "a\tb", f"{lines[0]} " * longest]
    together = [*lines, *awkward]
    return [together, *([line] for line in together[:_ALONE])], origin


def decode(run: Run, model: InferenceModel, windows: Windows) -> Windows:
    """Translates as bin/decoder does, with the model of `run` or one that chooses for it."""
    trained = run.train_config
    translator = Translator(
        model, run.vocabulary, boundaries=trained.boundaries, batch_tokens=trained.batch_tokens
    )
    return list(translator.translate_windows(windows))


def compare(windows: Windows, expected: Windows, found: Windows) -> None:
    """Raises UserError, naming the first line, if the export's translations are not the decoder's."""
    sources, ours, theirs = ([line for window in w for line in window] for w in (windows, expected, found))
    differing = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    if differing:
        first = differing[0]
        raise UserError(
            f"the export translates {len(differing)} of {len(sources)} lines otherwise than the decoder and was "
            f"not kept: {sources[first][:80]!r} became {theirs[first][:80]!r}, not {ours[first][:80]!r}"
        )
