"""WMT'14 English to German: newstest2013 to develop on, newstest2014 to test."""

from __future__ import annotations

import os
from collections.abc import Iterator

from t2t_vqem import registry
from t2t_vqem.errors import UserError
from t2t_vqem.problems import tfds
from t2t_vqem.problems.text_files import TextFilesProblem, find

_TFDS = "wmt14_translate/de-en"
_REMEDY = (
    "give --source_dir, which holds the published files: train, newstest2013, newstest2014 (.en and .de)"
)
_TFDS_SPLITS = {"train": "train", "newstest2013": "validation", "newstest2014": "test"}

# As they lie in the published archives: newest first, one of each line is enough.
_CORPORA = (
    ("europarl-v7.de-en",),
    ("commoncrawl.de-en",),
    ("news-commentary-v13.de-en", "news-commentary-v12.de-en", "news-commentary-v9.de-en"),
)
_FOLDERS = ("", "training", "training-parallel-nc-v13", "training-parallel-nc-v12", "dev", "test-full")


@registry.problems.register("wmt_ende")
class WmtEnDe(TextFilesProblem):
    """About 4.5 million pairs.

    `source_dir` holds train.en and train.de, or any of the published training corpora, and the two test sets;
    plain or gzipped, there or in the folders that the published archives unpack to. Without `source_dir` the
    data come from TensorFlow Datasets (wmt14_translate/de-en).
    """

    name = "wmt_ende"
    vocab_size = 32_768
    character_coverage = 0.99999  # commoncrawl has thousands of stray characters; one in 100,000 is unknown
    splits = ("train", "newstest2013", "newstest2014")
    dev_split = "newstest2013"

    def source_files(self) -> list[str]:
        return super().source_files() if self.source_dir is not None else []

    def samples(self, split: str) -> Iterator[tuple[str, str]]:
        if self.source_dir is not None:
            yield from super().samples(split)
            return
        for example in tfds.examples(_TFDS, _TFDS_SPLITS[split], _REMEDY):
            yield example["en"].decode(), example["de"].decode()

    def files(self, split: str) -> list[tuple[str, str]]:
        if split != "train":
            stems = [split, f"{split}-deen", f"{split}-ende"]
            source = self._find(*(f"{stem}.en" for stem in stems), *(f"{stem}-src.en.sgm" for stem in stems))
            target = self._find(*(f"{stem}.de" for stem in stems), *(f"{stem}-ref.de.sgm" for stem in stems))
            if source is None or target is None:
                raise UserError(f"{self.source_dir} lacks {split}.en or {split}.de; is --source_dir right?")
            return [(source, target)]
        corpora = [("train",)] if self._find("train.en") else _CORPORA
        pairs = []
        for names in corpora:
            for name in names:
                source, target = self._find(f"{name}.en"), self._find(f"{name}.de")
                if (source is None) != (target is None):
                    found, missing = (source, "de") if source else (target, "en")
                    raise UserError(f"{found} has no {name}.{missing} beside it")
                if source is not None:
                    pairs.append((source, target))
                    break
        if not pairs:
            wanted = ", ".join(f"{names[0]}.{{en,de}}" for names in _CORPORA)
            raise UserError(f"{self.source_dir} has neither train.en and train.de nor any of {wanted} or .gz")
        return pairs

    def _find(self, *stems: str) -> str | None:
        places = (os.path.join(folder, stem) for stem in stems for folder in _FOLDERS)
        return find(self.source_dir, *places)
