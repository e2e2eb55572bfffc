"""The codes as data of TensorBoard's projector: `tensorboard --logdir=FOLDER` shows them in space."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from t2t_vqem import files

_MOST = 10_000  # codes of a slot, the most frequent ones: more are slow to look at
_CONFIG = "projector_config.pbtxt"  # the name that TensorBoard looks for


def write(folder: str, values: Mapping[str, Any], places: np.ndarray) -> None:
    """Writes vectors, labels and the file that names them; one embedding a slot.

    Args:
      values, places: of a `codebook_report.Report`.

    Raises:
      UserError: the folder cannot be written.
    """
    embeddings = []
    for slot, found in enumerate(values["slots"]):
        suffix = f"_{slot}" if len(values["slots"]) > 1 else ""
        chosen = np.sort(np.argsort(-np.array(found["counts"]), kind="stable")[:_MOST])
        vectors = ("\t".join(f"{number:.6g}" for number in vector) for vector in places[chosen, slot])
        _write_lines(os.path.join(folder, f"tensors{suffix}.tsv"), vectors)
        _write_lines(os.path.join(folder, f"metadata{suffix}.tsv"), _labels(found, chosen))
        embeddings.append(
            f'embeddings {{\n  tensor_name: "codes{suffix}"\n  tensor_path: "tensors{suffix}.tsv"\n'
            f'  metadata_path: "metadata{suffix}.tsv"\n}}'
        )
    _write_lines(os.path.join(folder, _CONFIG), embeddings)  # last: it names the others


def _labels(slot: Mapping[str, Any], chosen: np.ndarray) -> list[str]:
    """Returns a heading and a line for every code that is chosen."""
    labels = {code["code"]: code for code in slot["codes"]}
    lines = ["code\tcount\ttarget pieces\tsource"]
    for code in chosen.tolist():
        told = labels.get(code, {})
        columns = [" | ".join(text["text"] for text in told.get(kind, [])) for kind in ("pieces", "source")]
        lines.append(
            "\t".join(
                [str(code), str(slot["counts"][code]), *(" ".join(column.split()) for column in columns)]
            )
        )
    return lines


def _write_lines(path: str, lines: Iterable[str]) -> None:
    files.write_atomic(path, "".join(f"{line}\n" for line in lines))
