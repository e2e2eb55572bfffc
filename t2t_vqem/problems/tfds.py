"""Examples from TensorFlow Datasets, which downloads what is published."""

from __future__ import annotations

import importlib.resources.abc
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

from t2t_vqem.errors import UserError


def examples(name: str, split: str, remedy: str) -> Iterator[dict[str, Any]]:
    """Yields the examples of a data set of TensorFlow Datasets in its order, as numpy arrays and bytes.

    Args:
      remedy: what to do where there is no network.

    Raises:
      UserError: it cannot be had; the text says why in one line.
    """
    if importlib.util.find_spec("importlib_resources") is None:
        # TensorFlow Datasets 4.9 imports this backport and forgets to require it; the library's own will do
        sys.modules["importlib_resources"] = importlib.resources
    try:
        import tensorflow_datasets as tfds

        yield from tfds.as_numpy(tfds.load(name, split=split, shuffle_files=False))
    except Exception as error:  # whatever the download raises
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"TensorFlow Datasets cannot give {name} ({reason[0]}); {remedy}") from error
