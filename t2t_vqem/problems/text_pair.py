"""Any pair of text files, from gin bindings alone."""

from __future__ import annotations

import os

from t2t_vqem import registry
from t2t_vqem.errors import UserError
from t2t_vqem.problems.text_files import TextFilesProblem


@registry.problems.register("text_pair")
class TextPair(TextFilesProblem):
    """Translation between the files that gin names, gzipped or not:

        text_pair.train_source = "corpus/train.fr"
        text_pair.train_target = "corpus/train.it"
        text_pair.dev_source = "corpus/dev.fr"
        text_pair.dev_target = "corpus/dev.it"

    A test set is optional. Relative paths start from --source_dir, if it is given.
    """

    name = "text_pair"
    splits = ("train", "dev", "test")
    dev_split = "dev"

    def __init__(
        self,
        train_source: str | None = None,
        train_target: str | None = None,
        dev_source: str | None = None,
        dev_target: str | None = None,
        test_source: str | None = None,
        test_target: str | None = None,
        vocab_size: int = 8000,
    ):
        super().__init__(vocab_size)
        self._files = {
            "train": (train_source, train_target),
            "dev": (dev_source, dev_target),
            "test": (test_source, test_target),
        }
        if not (test_source or test_target):
            del self._files["test"]
        self.splits = tuple(self._files)
        for split, pair in self._files.items():
            for side, path in zip(("source", "target"), pair, strict=True):
                if not path:
                    binding = f'text_pair.{split}_{side} = "FILE"'
                    raise UserError(f"text_pair needs the binding {binding} (in --gin_file or --gin_param)")

    def files(self, split: str) -> list[tuple[str, str]]:
        source, target = (os.path.join(self.source_dir or "", path) for path in self._files[split])
        return [(source, target)]
