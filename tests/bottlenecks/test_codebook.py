"""Moving averages, birth and revival of codes, usage."""

import numpy as np
import pytest

from t2t_vqem.bottlenecks.codebook import Codebook
from t2t_vqem.bottlenecks.settings import CodebookSettings

CODES, DIM = 8, 3


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def codebook(counts, *, updates=1e6, decay=0.9, revival_threshold=0.1):
    """A codebook whose first codes have `counts` positions a step; the rest is unborn."""
    book = Codebook(CODES, DIM, CodebookSettings(decay=decay, revival_threshold=revival_threshold))
    counts = np.pad(np.asarray(counts, np.float32), (0, CODES - len(counts)))
    means = normal(CODES, DIM) * (counts > 0)[:, None]
    book.means.assign(means)
    book.counts.assign(counts)
    book.sums.assign(counts[:, None] * means)
    book.hits.assign(counts)
    book.updates.assign(updates)
    return book


def statistics(counts, sums, candidates=()):
    """Statistics of a batch, with `candidates`, rows of dim numbers, in slots 1, 3, 5 ..."""
    slots, places = np.zeros(CODES, np.float32), np.zeros((CODES, DIM), np.float32)
    for i, candidate in enumerate(candidates):
        slots[2 * i + 1], places[2 * i + 1] = 1.0, candidate
    counts = np.asarray(counts, np.float32)
    return {
        "positions": counts.sum(),
        "counts": counts,
        "sums": np.asarray(sums, np.float32),
        "candidate_counts": slots,
        "candidate_sums": places,
    }


def test_codes_are_ratios_of_moving_averages():
    book = codebook(np.arange(1.0, 9.0), revival_threshold=0.0)
    counts, sums = book.counts.numpy(), book.sums.numpy()
    for step in range(3):
        batch = np.abs(normal(CODES, seed=step)) * 5
        totals = normal(CODES, DIM, seed=10 + step) * 5
        book.m_step(statistics(batch, totals))
        counts, sums = 0.9 * counts + 0.1 * batch, 0.9 * sums + 0.1 * totals
    np.testing.assert_allclose(book.counts, counts, rtol=1e-5)
    np.testing.assert_allclose(book.sums, sums, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(book.means, sums / counts[:, None], rtol=1e-3, atol=1e-4)


def test_the_decay_grows_up_to_its_value():
    for updates, decay in ((0, 0.1), (10, 11 / 20), (10**6, 0.9)):
        book = codebook(np.ones(CODES), updates=updates)
        book.m_step(statistics(np.full(CODES, 3.0), np.zeros((CODES, DIM))))
        np.testing.assert_allclose(book.counts, np.full(CODES, decay + 3 * (1 - decay)), rtol=1e-5)
        assert float(book.updates) == updates + 1


def test_an_unused_code_stays_in_its_place():
    book = codebook(np.ones(CODES), decay=0.5, revival_threshold=0.0)
    place = book.means.numpy()[0]
    counts = np.ones(CODES)
    counts[0] = 0.0
    for _ in range(200):  # .5^200 is 0 in float32: a released codebook would be at the origin or at NaN
        book.m_step(statistics(counts, counts[:, None] * book.means.numpy()))
    np.testing.assert_allclose(book.means.numpy()[0], place, rtol=1e-3)
    assert bool(book.born()[0])


def test_revival_moves_code_counts_and_sums_together_and_lasts():
    book = codebook([5.0, 0.01, 5.0, 0.01, 5.0, 5.0, 5.0, 0.01])
    candidates = normal(2, DIM, seed=3) + 10.0
    batch = np.array([4.0, 0, 4, 0, 4, 4, 4, 0], np.float32)
    own = batch[:, None] * book.means.numpy()
    book.m_step(statistics(batch, own, candidates))
    # Three are dead, two candidates on offer: lowest index first, each with a uniform share of 20 positions.
    np.testing.assert_array_equal(book.means.numpy()[[1, 3]], candidates)
    np.testing.assert_allclose(book.counts.numpy()[[1, 3]], [2.5, 2.5])
    np.testing.assert_allclose(book.sums.numpy()[[1, 3]], 2.5 * candidates, rtol=1e-6)
    assert float(book.counts[7]) < 0.02
    assert float(book.births) == 2
    for _ in range(5):  # nobody takes them yet, and more candidates are on offer: they stay all the same
        before = book.means.numpy()[7]
        book.m_step(statistics(batch, own))
        np.testing.assert_allclose(book.means.numpy()[[1, 3]], candidates, rtol=1e-4)
        np.testing.assert_allclose(book.means.numpy()[7], before, rtol=1e-2)
    book.m_step(statistics(batch, own, candidates + 1.0))
    np.testing.assert_array_equal(book.means.numpy()[7], candidates[0] + 1.0)
    np.testing.assert_allclose(book.means.numpy()[[1, 3]], candidates, rtol=1e-4)
    assert float(book.births) == 3


def test_a_slot_that_two_positions_fell_into_is_no_candidate():
    book = codebook([1.0, 1.0])
    batch = statistics([4.0, 4, 0, 0, 0, 0, 0, 0], np.zeros((CODES, DIM)), normal(2, DIM, seed=3))
    batch["candidate_counts"][1] = 2.0
    book.m_step(batch)
    assert book.born().numpy().sum() == 3
    np.testing.assert_array_equal(book.means.numpy()[2], batch["candidate_sums"][3])


def test_revival_threshold_0_leaves_dead_codes_alone_but_lets_codes_be_born():
    book = codebook([5.0, 1e-6, 5.0], revival_threshold=0.0)
    candidates = normal(4, DIM, seed=3)
    batch = np.array([4.0, 0, 4, 0, 0, 0, 0, 0], np.float32)
    dead = book.means.numpy()[1]
    book.m_step(statistics(batch, batch[:, None] * book.means.numpy(), candidates))
    np.testing.assert_allclose(book.means.numpy()[1], dead, rtol=1e-4)
    np.testing.assert_array_equal(book.means.numpy()[3:7], candidates)


@pytest.mark.parametrize(
    ("counts", "perplexity", "live"),
    [([], 0, 0), ([3.0], 1, 1), ([2.0] * 8, 8, 8), ([2.0] * 4, 4, 4), ([8.0, 8, 8, 8, 0.1], 4.07, 4)],
)
def test_usage(counts, perplexity, live):
    usage = codebook(counts).usage()
    np.testing.assert_allclose(usage["perplexity"], perplexity, rtol=1e-2)
    assert float(usage["live_codes"]) == live
    np.testing.assert_array_equal(usage["counts"][0, : len(counts)], np.asarray(counts, np.float32))


def test_a_revived_code_is_not_in_use_until_positions_take_it():
    book = codebook([5.0, 5.0])
    batch = np.array([4.0, 4, 0, 0, 0, 0, 0, 0], np.float32)
    book.m_step(statistics(batch, batch[:, None], normal(2, DIM, seed=3)))
    assert book.born().numpy().sum() == 4
    assert float(book.usage()["live_codes"]) == 2
    batch[2] = 4.0
    book.m_step(statistics(batch, batch[:, None]))
    assert float(book.usage()["live_codes"]) == 3


def test_a_settled_average_weighs_places_by_counts():
    early, late = codebook([4.0, 2.0, 1e-4, 1.0]), codebook([4.0, 6.0, 1.0])
    late.means.assign(late.means + 1.0)
    late.sums.assign(late.counts[:, None] * late.means)
    book = codebook([])
    for name in ("means", "counts", "sums"):
        values = [np.asarray(getattr(old, name)) for old in (early, late)]
        getattr(book, name).assign(np.mean(values, axis=0))
    book.settle()
    weights = np.asarray([[0.5, 0.5], [0.25, 0.75], [0.0, 1.0], [1.0, 0.0]])  # the third was revived
    expected = weights[:, :1] * early.means[:4] + weights[:, 1:] * late.means[:4]
    np.testing.assert_allclose(book.means[:4], expected, atol=1e-3)
    np.testing.assert_array_equal(book.born(), [True] * 4 + [False] * 4)
