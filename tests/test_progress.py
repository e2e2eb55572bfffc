import logging as python_logging
import types

import pytest
from absl import logging

from t2t_vqem import progress


@pytest.fixture
def clock(monkeypatch):
    clock = types.SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_says_how_far_it_is_and_how_long_the_rest_takes(clock, caplog):
    loop = progress.Progress("datagen", 100, "examples")
    loop.kept(40)  # by an earlier run: they took no time
    with caplog.at_level(python_logging.INFO, logger=logging.get_absl_logger().name):
        for _ in range(4):
            clock.now += 4.0
            loop.made(10)
    assert caplog.messages == ["datagen: 70 of 100 examples, 2.5 examples/s, ETA 0:00:12"]


def test_nothing_made_yet_has_no_end_in_sight(clock, caplog):
    with caplog.at_level(python_logging.INFO, logger=logging.get_absl_logger().name):
        progress.Progress("distiller", 10, "sentences").report()
    assert caplog.messages == ["distiller: 0 of 10 sentences, 0.0 sentences/s, ETA ?"]


def test_a_clock_has_hours():
    assert progress.clock(3661.4) == "1:01:01"
