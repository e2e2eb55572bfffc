"""A small problem, generated once."""

import itertools

import pytest

from t2t_vqem.problems import toy
from t2t_vqem.problems.translation import TranslationProblem

SIZES = {"train": 600, "val": 45, "test": 30}


class Small(TranslationProblem):
    """The first sentences of the toy problem in shards of 100."""

    name = "small"
    vocab_size = 512
    model_type = "bpe"
    shard_size = 100

    def samples(self, split):
        return itertools.islice(toy.ToyEnDe().samples(split), SIZES[split])


@pytest.fixture(scope="session")
def small():
    return Small()


@pytest.fixture(scope="session")
def data_dir(small, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("data"))
    small.generate(folder)
    return folder
