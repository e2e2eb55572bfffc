"""What tests of models share."""

import numpy as np
import pytest

from t2t_vqem import ngrams
from t2t_vqem.prefix_search import LanguageModel


@pytest.fixture
def inputs_of(monkeypatch):
    """A function (owner, name) that returns a list, to which the first input of each call of that layer is added."""

    def listen(owner, name):
        read, layer = [], getattr(owner, name)

        def spy(x, **kwargs):
            read.append(x.numpy())
            return layer(x, **kwargs)

        monkeypatch.setattr(owner, name, spy)
        return read

    return listen


@pytest.fixture(scope="session")
def language_model():
    """N-grams of tokens below 13, in a vocabulary of 30."""
    text = np.random.default_rng(0).integers(3, 13, [40, 6])
    return LanguageModel(ngrams.count([[*row, 1] for row in text.tolist()], 30, ""))
