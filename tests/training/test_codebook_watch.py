"""Movement from look to look, and the alarm: once, and again only after a recovery."""

import numpy as np
import pytest

from t2t_vqem.bottlenecks.em import HardEM
from t2t_vqem.training.codebook_watch import CodebookWatch

CODES = 20


@pytest.fixture
def bottleneck():
    return HardEM(CODES, 2)


def use(bottleneck, live):
    """Gives so many codes all the positions, evenly."""
    hits = np.zeros(CODES, np.float32)
    hits[:live] = 3.0
    bottleneck.codebook.hits.assign(hits)


def warnings(caplog):
    return [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]


def test_figures(bottleneck):
    watch = CodebookWatch({"latents": bottleneck}, alarm=0.0, quiet_steps=0)
    use(bottleneck, 5)
    bottleneck.codebook.means.assign(np.ones([CODES, 2]))
    first = watch.look(10)["latents"]
    assert float(first["perplexity_per_code"]) == pytest.approx(5 / CODES)
    assert first["counts"].shape == [1, CODES]
    assert not {"movement", "alarm"} & first.keys()
    bottleneck.codebook.means.assign(np.full([CODES, 2], 4.0))
    assert watch.look(20)["latents"]["movement"] == pytest.approx(3 / 4)
    assert watch.look(30)["latents"]["movement"] == 0.0


def test_one_warning_a_collapse(bottleneck, caplog):
    watch = CodebookWatch({"latents": bottleneck}, alarm=0.2, quiet_steps=100)
    told = []
    for step, live in [(100, 0), (110, 4), (120, 3), (130, 2), (140, 4), (150, 3), (160, 3)]:
        use(bottleneck, live)
        told.append((watch.look(step)["latents"]["alarm"], len(warnings(caplog))))
    assert told == [(0, 0), (0, 0), (1, 1), (1, 1), (0, 1), (1, 2), (1, 2)]
    assert "step 120: the codebook latents collapses: 3 of 20 codes are live" in warnings(caplog)[0]


def test_no_alarm_while_codes_are_born(bottleneck, caplog):
    watch = CodebookWatch({"latents": bottleneck}, alarm=0.2, quiet_steps=100)
    use(bottleneck, 1)
    assert [watch.look(step)["latents"]["alarm"] for step in (50, 99, 100)] == [0, 0, 1]
    assert len(warnings(caplog)) == 1
