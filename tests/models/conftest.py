"""What tests of models share."""

import pytest


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
