"""The contract of a format that models are exported to."""

import abc
from typing import Any

from t2t_vqem.decoding.translator import InferenceModel
from t2t_vqem.training.runs import Run

Windows = list[list[str]]


class Format(abc.ABC):
    """How a model is written, and how what was written translates.

    Attributes:
      name: what --format calls it.
      dtype: that the run must be opened in; None leaves it its own.
      chooses: whether a run that chooses among candidates can be part of it.
    """

    name: str
    dtype: str | None = None
    chooses: bool = True

    @abc.abstractmethod
    def write(self, run: Run, model: InferenceModel, folder: str) -> None:
        """Writes what translates into `folder`, which is empty: `model`, the run's or one that chooses for it.

        Raises:
          UserError: it is not of this format's kind.
        """

    @abc.abstractmethod
    def translate(self, run: Run, folder: str, windows: Windows) -> Windows:
        """Translates windows of lines with what `write` wrote, as its users would."""

    @abc.abstractmethod
    def details(self, run: Run) -> dict[str, Any]:
        """Returns what `export.json` says about this format's files."""
