"""The codes as data of TensorBoard's projector: `tensorboard --logdir=FOLDER` shows them in space."""

import base64
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from t2t_vqem import files, picture_file
from t2t_vqem.evaluation import picture_grid
from t2t_vqem.evaluation.patches import visible

_MOST = 10_000  # codes of a slot, the most frequent ones: more are slow to look at
_TEXTS = {"pieces": "target pieces", "source": "source"}  # of codes of text, and their headings
_CONFIG = "projector_config.pbtxt"  # the name that TensorBoard looks for


def write(folder: str, values: Mapping[str, Any], places: np.ndarray) -> None:
    """Writes vectors, labels, mean patches of pictures, and the file that names them; one embedding a slot.

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
        sprites = ""
        if "pixels_per_code" in values:
            height, width = patch = values["pixels_per_code"]
            scale = visible(height)
            sheet = _sprites(found, chosen, patch, scale)
            files.write_atomic(os.path.join(folder, f"sprites{suffix}.png"), picture_file.png(sheet))
            sprites = (
                f'  sprite {{\n    image_path: "sprites{suffix}.png"\n    single_image_dim: {width * scale}\n'
                f"    single_image_dim: {height * scale}\n  }}\n"
            )
        embeddings.append(
            f'embeddings {{\n  tensor_name: "codes{suffix}"\n  tensor_path: "tensors{suffix}.tsv"\n'
            f'  metadata_path: "metadata{suffix}.tsv"\n{sprites}}}'
        )
    _write_lines(os.path.join(folder, _CONFIG), embeddings)  # last: it names the others


def _labels(slot: Mapping[str, Any], chosen: np.ndarray) -> list[str]:
    """Returns a heading and a line for every code that is chosen."""
    labels = {code["code"]: code for code in slot["codes"]}
    kinds = [kind for kind in _TEXTS if any(kind in code for code in slot["codes"])]
    lines = ["\t".join(["code", "count", *(_TEXTS[kind] for kind in kinds)])]
    for code in chosen.tolist():
        told = labels.get(code, {})
        columns = [" | ".join(text["text"] for text in told.get(kind, [])) for kind in kinds]
        lines.append(
            "\t".join(
                [str(code), str(slot["counts"][code]), *(" ".join(column.split()) for column in columns)]
            )
        )
    return lines


def _sprites(slot: Mapping[str, Any], chosen: np.ndarray, patch: Sequence[int], scale: int) -> np.ndarray:
    """Returns the mean patches of the codes in a square, black for those that never came."""
    means = {code["code"]: code["mean"] for code in slot["codes"]}
    across = math.ceil(math.sqrt(len(chosen)))
    rows = math.ceil(len(chosen) / across)
    sheet = np.zeros([rows * across, *patch, 3], np.uint8)
    for place, code in enumerate(chosen.tolist()):
        if code in means:
            with Image.open(io.BytesIO(base64.b64decode(means[code]))) as mean:
                sheet[place] = mean.convert("RGB")
    return picture_grid.grid(sheet.reshape(rows, across, *patch, 3), scale, gap=0)


def _write_lines(path: str, lines: Iterable[str]) -> None:
    files.write_atomic(path, "".join(f"{line}\n" for line in lines))
