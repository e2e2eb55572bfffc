"""N-grams against probabilities written out by hand and by a slow counter of dictionaries."""

import collections
import dataclasses
import math

import numpy as np
import pytest

from t2t_vqem import ngrams
from t2t_vqem.errors import UserError

VOCAB = 9
# Eos is 1. Some words follow many others, some one alone, and some never occur.
TEXT = [[3, 4, 5, 1], [3, 4, 6, 1], [3, 4, 5, 6, 1], [7, 4, 5, 1], [5, 5, 5, 1], [1], [6, 3, 4, 5, 1]]


def counted(**how):
    return ngrams.count(TEXT, VOCAB, "a vocabulary", **how)


def probability(model, before, token):
    return math.exp(model.nats([before])[0] - model.nats([[*before, token]])[0])


def slow(text, order, least):
    """Returns P(token | before) by the recursion as it is written, with dictionaries."""
    seen = [collections.Counter() for _ in range(order + 2)]
    for sequence in text:
        ids = (0, *sequence)
        for size in range(1, order + 1):
            seen[size].update(ids[i : i + size] for i in range(len(ids) - size + 1))
    counts = {order: seen[order]}
    for size in range(order - 1, 0, -1):
        after = collections.Counter(gram[1:] for gram in seen[size + 1])
        counts[size] = {g: n if g[0] == 0 else after[g] for g, n in seen[size].items() if g != (0,)}
    discounts = {}
    for size, found in counts.items():
        once, twice = (list(found.values()).count(n) for n in (1, 2))
        discounts[size] = once / (once + 2 * twice) if once and twice else 0.75

    def given(before, token):
        size = len(before) + 1
        found = {g[-1]: n for g, n in counts[size].items() if g[:-1] == before}
        rest = given(before[1:], token) if before else 1 / (VOCAB - 1)
        if not found:
            return rest
        total, kept = sum(found.values()), found
        if size > 2:
            kept = {t: n for t, n in found.items() if seen[size][*before, t] >= least}
        share = {t: (n - discounts[size]) / total for t, n in kept.items()}
        return share.get(token, 0.0) + (1 - sum(share.values())) * rest

    return lambda before, token: given((0, *before)[-(order - 1) :], token)


@pytest.mark.parametrize(("order", "least"), [(2, 1), (3, 1), (4, 1), (3, 2), (4, 2)])
def test_probabilities_are_those_of_the_recursion_and_sum_to_one(order, least):
    model, expected = counted(order=order, least=least), slow(TEXT, order, least)
    for before in ([], [3], [3, 4], [8], [8, 4], [4, 5, 5], [3, 4, 5], [5, 5, 5, 5], [7, 4, 6]):
        found = [probability(model, before, token) for token in range(1, VOCAB)]
        np.testing.assert_allclose(found, [expected(before, token) for token in range(1, VOCAB)], rtol=1e-5)
        np.testing.assert_allclose(sum(found), 1.0, rtol=1e-5)


def test_bigrams_by_hand():
    model = ngrams.count([[3, 4, 1], [3, 5, 1], [4, 4, 1]], 6, "", order=2)
    # 3 begins two of three sequences; one bigram of two kinds was seen twice of seven: D = 5 / (5 + 2 * 2)
    discount = 5 / 9
    # 3, 4, 5 and eos follow 1, 3, 1 and 2 different tokens; three kinds are not enough: 2 / (2 + 2 * 1)
    unigram = {token: (n - 0.5) / 7 + 0.5 * 4 / 7 / 5 for token, n in {3: 1, 4: 3, 5: 1, 1: 2}.items()}
    np.testing.assert_allclose(
        probability(model, [3], 4), (1 - discount) / 2 + discount * unigram[4], rtol=1e-5
    )
    np.testing.assert_allclose(probability(model, [3], 3), discount * unigram[3], rtol=1e-5)
    np.testing.assert_allclose(
        probability(model, [], 3), (2 - discount) / 3 + 2 * discount / 3 * unigram[3], rtol=1e-5
    )


def test_text_that_was_seen_is_likelier_than_its_tokens_in_another_order():
    model = counted()
    assert model.nats([[3, 4, 5, 1]])[0] + 1.0 < model.nats([[5, 4, 3, 1]])[0]
    nats, tokens = model.nats(TEXT)
    assert tokens == sum(map(len, TEXT))
    assert nats == pytest.approx(sum(model.nats([sequence])[0] for sequence in TEXT), rel=1e-6)


def test_buckets_hold_every_ngram_where_its_hash_says():
    draw = np.random.default_rng(0)
    model = ngrams.count(draw.integers(1, 2000, [300, 20]).tolist(), 2**16 - 2, "")
    starts, keys, values, bits, slots = model.buckets
    assert len(starts) == 2**bits
    assert np.count_nonzero(keys) == len(model.keys) == len(keys) - slots > 10_000
    for key, value in zip(model.keys[::97].tolist(), model.values.T[::97], strict=True):
        start = starts[(key * ngrams.SPREAD % 2**64) >> (64 - bits)]
        [slot] = np.flatnonzero(keys[start : start + slots].view(np.uint64) == key)
        np.testing.assert_array_equal(values[:, start + slot], value)


def test_what_is_written_is_read_and_nothing_else(tmp_path):
    model, path = counted(order=3), str(tmp_path / "new" / "ngrams.npz")
    model.save(path)
    again = ngrams.NGrams.load(path)
    assert (again.order, again.vocabulary_hash) == (3, "a vocabulary")
    assert again.nats(TEXT) == model.nats(TEXT)
    assert again.digest == model.digest != counted(order=2).digest
    with pytest.raises(UserError, match=r"cannot read .*gone"):
        ngrams.NGrams.load(str(tmp_path / "gone"))
    np.savez(tmp_path / "other.npz", keys=[1])
    np.savez(tmp_path / "lists.npz", **dataclasses.asdict(model) | {"order": [1, 2]})
    np.savez(tmp_path / "short.npz", **dataclasses.asdict(model) | {"keys": model.keys[1:]})
    made = [(tmp_path / name).read_bytes() for name in ("other.npz", "lists.npz", "short.npz")]
    whole = (tmp_path / "new" / "ngrams.npz").read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for damaged in (b"", b"text", whole[:middle], flipped, *made):
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(UserError, match="damaged holds no n-grams; make them anew with bin/ngrams"):
            ngrams.NGrams.load(str(tmp_path / "damaged"))


def test_what_cannot_be_counted_is_said():
    with pytest.raises(UserError, match="there is no text to count n-grams of"):
        ngrams.count([], VOCAB, "")
    with pytest.raises(UserError, match="vocabularies of less than 65536, not of 70000"):
        ngrams.count(TEXT, 70_000, "")
