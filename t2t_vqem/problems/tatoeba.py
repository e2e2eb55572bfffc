"""Tatoeba: short conversational sentences, English to German (tatoeba.org, packed by manythings.org/anki)."""

from __future__ import annotations

from t2t_vqem import registry
from t2t_vqem.problems.text_files import TextFilesProblem


@registry.problems.register("tatoeba_ende")
class TatoebaEnDe(TextFilesProblem):
    """`source_dir` holds train, dev and test, .en and .de, .gz or not."""

    name = "tatoeba_ende"
    vocab_size = 8000
    splits = ("train", "dev", "test")
    dev_split = "dev"

    def files(self, split: str) -> list[tuple[str, str]]:
        return [(self.in_source_dir(f"{split}.en"), self.in_source_dir(f"{split}.de"))]
