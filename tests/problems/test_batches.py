"""Batches: their shapes, their order, that nothing is lost, and that a saved iterator goes on exactly."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.errors import UserError
from t2t_vqem.problems.batches import Batching

BATCHING = Batching(batch_tokens=160, boundaries=(12, 16, 24), rows_multiple=2, steps_per_call=3)


def take(dataset, count):
    return [{k: v.numpy() for k, v in batch.items()} for batch in dataset.take(count)]


def pairs(batches):
    """Returns the sequence pairs of batches in order, without padding; rows of zeros are no pairs."""
    found = []
    for batch in batches:
        length = batch["inputs"].shape[-1]
        sides = (batch[side].reshape(-1, length) for side in ("inputs", "targets"))
        for pair in zip(*sides, strict=True):
            if pair[0].any():
                found.append(tuple(tuple(ids[ids > 0].tolist()) for ids in pair))
    return found


@pytest.fixture(scope="module")
def encoded(small, data_dir):
    """All pairs to train on, from the texts."""
    pieces = small.vocabulary(data_dir)
    sides = [pieces.encode(texts) for texts in small.texts("train", data_dir)]
    found = [(tuple(source), tuple(target)) for source, target in zip(*sides, strict=True)]
    assert max(len(ids) for pair in found for ids in pair) <= 40
    return found


def fits(pair, boundary):
    return max(map(len, pair)) <= boundary


def test_rows_hold_the_tokens():
    assert [BATCHING.rows(b) for b in (12, 16, 24)] == [12, 10, 6]
    assert Batching(100, (16, 48), rows_multiple=8).rows(48) == 8


@pytest.mark.parametrize(
    "arguments",
    [(0, (8,)), (64, ()), (64, (8, 8)), (64, (16, 8)), (64, (0, 8)), (64, (8,), 0), (64, (8,), 1, 0)],
)
def test_impossible_batching_is_refused(arguments):
    with pytest.raises(UserError):
        Batching(*arguments)


def test_training_batches_have_the_announced_shapes(small, data_dir):
    batches = take(small.dataset("train", data_dir, BATCHING, training=True), 40)
    shapes = {tuple(sorted((k, v.shape) for k, v in batch.items())) for batch in batches}
    assert shapes == {tuple(sorted(shape.items())) for shape in small.batch_shapes(BATCHING)}
    assert all(v.dtype == np.int32 for batch in batches for v in batch.values())


def test_an_example_is_in_the_smallest_bucket_that_holds_it(small, data_dir):
    for batch in take(small.dataset("train", data_dir, BATCHING, training=True), 30):
        boundary = batch["inputs"].shape[-1]
        smaller = [b for b in BATCHING.boundaries if b < boundary]
        assert not any(fits(pair, b) for pair in pairs([batch]) for b in smaller)


@pytest.mark.parametrize("steps", [1, 2])
def test_every_row_ends_in_eos_and_then_pads(small, data_dir, steps):
    batching = Batching(160, (12, 24), steps_per_call=steps)
    for batch in take(small.dataset("train", data_dir, batching, training=True), 10):
        for ids in batch.values():
            assert ((ids == 1).sum(-1) == 1).all()
            ended = np.cumsum(ids == 1, -1) > 0
            assert ((ids == 0) == (ended & (ids != 1))).all()


def test_the_seed_alone_decides_the_order(small, data_dir):
    def first(seed):
        return pairs(take(small.dataset("train", data_dir, BATCHING, training=True, seed=seed), 10))

    assert first(0) == first(0)
    assert first(0) != first(1)


def test_an_epoch_holds_every_example_once_and_the_next_in_another_order(small, data_dir, encoded):
    one_row = Batching(batch_tokens=40, boundaries=(40,))
    dataset = small.dataset("train", data_dir, one_row, training=True)
    seen = pairs(take(dataset, 2 * len(encoded)))
    first, second = seen[: len(encoded)], seen[len(encoded) :]
    assert Counter(first) == Counter(second) == Counter(encoded)
    assert first != second
    assert first != encoded


def test_no_example_is_lost_in_a_bucket(small, data_dir, encoded):
    kept = Counter(pair for pair in encoded if fits(pair, 24))
    dataset = small.dataset("train", data_dir, BATCHING, training=True)
    counts, batches = Counter(), iter(dataset.as_numpy_iterator())
    while counts.total() < 6 * kept.total():
        counts.update(pairs([next(batches)]))
    assert counts.keys() == kept.keys()
    # what waits in buckets and in the iterator's lookahead is the only difference between examples
    assert all(4 * kept[pair] <= count <= 8 * kept[pair] for pair, count in counts.items())


def test_input_pipelines_share_an_epoch_without_overlap(small, data_dir, encoded):
    one_row = Batching(batch_tokens=40, boundaries=(40,))
    shares = []
    for index in range(3):
        dataset = small.dataset("train", data_dir, one_row, training=True, input_pipeline=(index, 3))
        shares.append(pairs(take(dataset, len(encoded) // 3)))
    assert Counter(shares[0] + shares[1] + shares[2]) == Counter(encoded)


@pytest.mark.parametrize("before", [0, 1, 17, 45])
def test_a_saved_iterator_restores_the_exact_next_batches(small, data_dir, tmp_path, before):
    def iterator():
        return iter(small.dataset("train", data_dir, BATCHING, training=True, seed=5))

    batches = iterator()
    for _ in range(before):
        next(batches)
    path = tf.train.Checkpoint(iterator=batches).save(str(tmp_path / "checkpoint"))
    expected = [next(batches) for _ in range(60)]
    restored = iterator()
    tf.train.Checkpoint(iterator=restored).restore(path).assert_consumed()
    for batch in expected:
        tf.nest.map_structure(np.testing.assert_array_equal, batch, next(restored))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 4e6


def test_evaluation_sees_every_example_once_in_full_batches(small, data_dir):
    sources, _ = small.texts("val", data_dir)
    pieces = small.vocabulary(data_dir)
    batching = Batching(batch_tokens=160, boundaries=(12, 16, 40), rows_multiple=2)
    found = {}
    for batch in take(small.dataset("val", data_dir, batching, training=False), -1):
        rows, boundary = batch["inputs"].shape
        assert rows == batching.rows(boundary)
        assert batch["index"].shape == (rows,)
        for index, ids in zip(batch["index"], batch["inputs"], strict=True):
            if index < 0:
                assert not ids.any()
            else:
                found[int(index)] = pieces.decode([ids])[0]
    assert [found[i] for i in range(len(sources))] == sources


def test_evaluation_truncates_what_training_leaves_out(small, data_dir, encoded):
    short = Batching(batch_tokens=64, boundaries=(10,))
    whole = small.texts("val", data_dir)[0]
    batches = take(small.dataset("val", data_dir, short, training=False), -1)
    assert sorted(i for batch in batches for i in batch["index"] if i >= 0) == list(range(len(whole)))
    lengths = [len(ids) for pair in pairs(batches) for ids in pair]
    assert max(lengths) == 10
    assert all(pair[side][-1] == 1 for pair in pairs(batches) for side in (0, 1))
    trained = pairs(take(small.dataset("train", data_dir, short, training=True), 50))
    assert set(trained) <= {pair for pair in encoded if fits(pair, 10)}


def test_evaluation_pipelines_share_the_split(small, data_dir):
    indices = []
    for index in range(2):
        dataset = small.dataset("val", data_dir, BATCHING, training=False, input_pipeline=(index, 2))
        indices += [i for batch in take(dataset, -1) for i in batch["index"] if i >= 0]
    assert sorted(indices) == list(range(45))


def test_over_long_examples_are_counted_once(small, data_dir, caplog):
    short = Batching(batch_tokens=64, boundaries=(11,))
    with caplog.at_level("WARNING", "absl"):
        small.dataset("train", data_dir, short, training=True)
        small.dataset("train", data_dir, short, training=True)
    lengths = small.manifest(data_dir)["splits"]["train"]["lengths"]
    count = sum(n for length, n in lengths.items() if int(length) > 11)
    assert 0 < count < 600
    assert len(caplog.messages) == 1
    assert f"train: {count} of 600 examples" in caplog.messages[0]


def test_nothing_that_fits_is_a_user_error(small, data_dir):
    with pytest.raises(UserError, match="give a longer last boundary"):
        small.dataset("train", data_dir, Batching(64, (2,)), training=True)


def test_unknown_split_is_a_user_error(small, data_dir):
    with pytest.raises(UserError, match='no split "vall"'):
        small.dataset("vall", data_dir, BATCHING, training=False)


@pytest.mark.parametrize("training", [True, False])
def test_no_thread_that_tunes_holds_up_the_end_of_a_run(small, data_dir, training):
    """Its destructor waited for up to a minute (TensorFlow 2.21), each time that a run had ended."""
    dataset = small.dataset("train", data_dir, BATCHING, training=training)
    assert dataset.options().autotune.enabled is False
