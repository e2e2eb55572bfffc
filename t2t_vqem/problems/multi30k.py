"""Multi30k, task 1: captions of photographs, English to German (Elliott et al. 2016, arXiv:1605.00459)."""

from __future__ import annotations

from t2t_vqem import registry
from t2t_vqem.problems.text_files import TextFilesProblem


@registry.problems.register("multi30k_ende")
class Multi30kEnDe(TextFilesProblem):
    """Raw cased text. `source_dir` holds the splits as .en and .de files, gzipped or not."""

    name = "multi30k_ende"
    vocab_size = 4000
    splits = ("train", "val", "test_2016_flickr", "test_2017_flickr")

    def files(self, split: str) -> list[tuple[str, str]]:
        return [(self.in_source_dir(f"{split}.en"), self.in_source_dir(f"{split}.de"))]
