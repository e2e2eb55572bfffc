"""The figures of a codebook, each against what can be worked out by hand."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.bottlenecks.em import HardEM
from t2t_vqem.context import LossTerm
from t2t_vqem.errors import UserError
from t2t_vqem.evaluation import (
    codebook_page,
    codebook_pictures,
    codebook_report,
    codebook_stability,
    codebook_swaps,
)
from t2t_vqem.evaluation.codebook_movement import between_checkpoints
from t2t_vqem.evaluation.codebook_reading import Reading, read
from t2t_vqem.evaluation.codebook_text import CodeTexts, associations, piece_text
from t2t_vqem.evaluation.translation import forward
from t2t_vqem.models.model import ModelOutput
from t2t_vqem.problems.batches import Batching
from t2t_vqem.training import checkpoints
from t2t_vqem.training.runs import Run
from t2t_vqem.training.train_config import TrainConfig

PIECES = ["<pad>", "</s>", "<unk>", "▁a", "▁dog", "s", "▁run", ".", "▁"]


class Pieces:
    """As much of a vocabulary as the report asks for."""

    def pieces(self, ids):
        return [PIECES[i] for i in ids]

    def decode(self, rows):
        texts = ("".join(PIECES[i] for i in row if i > 2) for row in rows)
        return [text.replace("▁", " ").strip() for text in texts]


def reading(codes, targets=None, inputs=None):
    """A reading of one slot; `codes` holds a list for each example."""
    features = [
        {"inputs": np.array((inputs or codes)[i]), "targets": np.array((targets or codes)[i])}
        for i in range(len(codes))
    ]
    return Reading(
        codes=np.array([[code] for row in codes for code in row], np.int32),
        examples=np.array([i for i, row in enumerate(codes) for _ in row]),
        positions=np.array([i for row in codes for i in range(len(row))]),
        features=features,
        metrics={},
    )


# Reading a split


@pytest.mark.parametrize("batch_tokens", [32, 4096])
def test_a_split_is_read_in_its_order_without_padding(echo_data, copy_model, batch_tokens):
    problem, data_dir = echo_data
    plain = copy_model.__call__

    class Soft(type(copy_model)):
        def __call__(self, features, training=None):
            output = plain(features, training)
            real = tf.cast(features["targets"] != 0, tf.float32)
            softness = LossTerm(tf.reduce_sum(real * 1.5), tf.reduce_sum(real))
            return output._replace(metrics={"effective_codes": softness, "other": softness})

    batching = Batching(batch_tokens=batch_tokens, boundaries=(8, 16, 32))
    model = Soft()
    found = read(lambda batch: forward(model, batch), problem, data_dir, "val", batching)
    ids = problem.vocabulary(data_dir).encode(problem.texts("val", data_dir)[1])
    assert found.codes[:, 0].tolist() == [i % 8 for row in ids for i in row]
    assert found.examples.tolist() == [n for n, row in enumerate(ids) for _ in row]
    assert found.positions.tolist() == [i for row in ids for i in range(len(row))]
    assert [row["targets"][: len(own)].tolist() for row, own in zip(found.features, ids, strict=True)] == ids
    assert found.metrics == {"effective_codes": pytest.approx(1.5)}


# Two halves


def test_halves_are_even_and_the_same_each_time():
    half = codebook_stability.halves(101)
    assert np.count_nonzero(half) == 50
    assert half.tolist() == codebook_stability.halves(101).tolist()
    assert half.tolist() != sorted(half.tolist())


def test_agreement_by_hand():
    found = codebook_stability.agreement(np.array([4, 2, 2, 0]), np.array([1, 1, 2, 0]))
    assert found["split_half_tv"] == pytest.approx((0.25 + 0 + 0.25) / 2)
    assert found["split_half_spearman"] == pytest.approx(
        np.corrcoef([4, 2.5, 2.5, 1], [2.5, 2.5, 4, 1])[0, 1]
    )
    assert found["split_half_pearson"] == pytest.approx(
        np.corrcoef(np.log([5, 3, 3, 1]), np.log([2, 2, 3, 1]))[0, 1]
    )


def test_agreement_at_its_ends():
    same = codebook_stability.agreement(np.array([3, 1, 0]), np.array([6, 2, 0]))
    assert same["split_half_tv"] == pytest.approx(0.0)
    assert same["split_half_spearman"] == pytest.approx(1.0)
    assert codebook_stability.agreement(np.array([3, 0]), np.array([0, 3]))["split_half_tv"] == 1.0
    assert codebook_stability.agreement(np.array([3, 3]), np.array([1, 2]))["split_half_pearson"] is None
    assert codebook_stability.agreement(np.array([0, 0]), np.array([1, 2]))["split_half_tv"] is None


def test_a_stranger_is_another_and_no_neighbour():
    found = codebook_stability.strangers(100)
    assert sorted(found.tolist()) == list(range(100))
    assert (found != np.arange(100)).all()
    assert np.abs(found - np.arange(100)).mean() > 20
    assert found.tolist() == codebook_stability.strangers(100).tolist()
    assert codebook_stability.strangers(1).tolist() == [0]


def test_the_distance_by_chance_is_that_of_independent_draws():
    draw = np.random.default_rng(1)
    shares = draw.dirichlet(np.full(64, 0.5))
    pairs = [(draw.multinomial(800, shares), draw.multinomial(600, shares)) for _ in range(50)]
    found = [codebook_stability.agreement(*pair) for pair in pairs]
    measured = np.mean([one["split_half_tv"] for one in found])
    assert np.mean([one["split_half_tv_by_chance"] for one in found]) == pytest.approx(measured, rel=0.1)


# Text


def test_associations_by_count_and_by_lift():
    codes, items = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 0, 2, 2])
    totals = np.array([3, 3]), np.array([3, 1, 2]), 6
    by_count = associations(codes, items, *totals)
    assert by_count[0] == [(0, 2, pytest.approx(2 * 6 / 9)), (1, 1, pytest.approx(2.0))]
    assert by_count[1] == [(2, 2, pytest.approx(2.0)), (0, 1, pytest.approx(6 / 9))]
    assert [pair.item for pair in associations(codes, items, *totals, by_lift=True)[0]] == [1, 0]
    assert [pair.item for pair in associations(codes, items, *totals, least=2, by_lift=True)[0]] == [0]


def test_what_a_code_stood_for_padding_left_out():
    # "a dogs run. </s>" in windows of two: a dog | s run | . </s>; and "a dog | </s>"
    targets = [[3, 4, 5, 6, 7, 1, 0, 0], [3, 4, 1, 0]]
    texts = CodeTexts(reading([[5, 2, 6], [5, 6]], targets), Pieces(), 2, 8).of_slot(0)
    assert texts.keys() == {2, 5, 6}
    assert texts[5]["windows"] == [{"text": "a dog", "count": 2, "lift": 2.5}]
    assert texts[2]["windows"] == [{"text": "…s run", "count": 1, "lift": 5.0}]
    assert {t["text"]: t["count"] for t in texts[6]["windows"]} == {"…. </s>": 1, "</s>": 1}
    assert texts[6]["pieces"][0] == {"text": "</s>", "count": 2, "lift": 3.0}  # 2 * 9 / (3 * 2)
    assert texts[6]["pieces"][1] == {"text": "….", "count": 1, "lift": 3.0}


def test_source_n_grams_of_a_code_by_lift_in_sentences():
    # Codes stand there twice in a sentence, and count once. "a" is everywhere, "dog" and "run" lie in a longer n-gram.
    with_dog, without = [3, 4, 6, 1], [3, 3, 1]
    inputs = [with_dog] * 3 + [without] * 6
    told = CodeTexts(reading([[1, 1]] * 3 + [[2, 2]] * 6, inputs, inputs), Pieces(), 1, 4).of_slot(0)
    assert told[1]["source"] == [{"text": "a dog run", "count": 3, "lift": 3.0}]
    assert told[2]["source"] == [{"text": "a a", "count": 6, "lift": 1.5}]
    rare = CodeTexts(reading([[1]] * 2 + [[2]] * 6, inputs[1:], inputs[1:]), Pieces(), 1, 4).of_slot(0)
    assert rare[1]["source"] == [], "two sentences are too few to speak of lift"
    rows = [[4, 1]] * 3 + [[6, 1]] * 220 + [[3, 1]] * 100
    among_many = CodeTexts(reading([[1]] * 123 + [[2]] * 200, rows, rows), Pieces(), 1, 4).of_slot(0)
    assert [t["text"] for t in among_many[1]["source"]] == ["run"], (
        "3 of 123 sentences say little of the code"
    )
    alike = CodeTexts(reading([[1, 2]] * 6, inputs[:6], inputs[:6]), Pieces(), 1, 4).of_slot(0)
    assert alike[1]["source"] == [], "the code is everywhere: nothing is more frequent with it"


def test_overlap_of_the_most_frequent_pieces_of_two_halves():
    targets = [[3, 3, 3, 3, 3, 4, 4, 4, 4, 4]] * 2 + [[3, 3, 3, 3, 3, 5, 5, 5, 5, 5]] * 2
    codes = [[1, 1, 1, 1, 1, 2, 2, 2, 2, 2]] * 4
    texts = CodeTexts(reading(codes, targets), Pieces(), 1, 4)
    own, by_chance = texts.likeness(0, np.array([False, False, True, True]))
    assert own == {1: 1.0, 2: 0.0}
    assert by_chance == 0.0
    own, by_chance = texts.likeness(0, np.array([False, True, False, True]))
    assert own == {1: 1.0, 2: 1.0}
    assert texts.likeness(0, np.array([True, True, True, True])) == ({}, None)


def test_pieces_as_text():
    show = {ids: piece_text(Pieces(), ids) for ids in [(3, 4, 5), (5, 6), (7, 1, 0), (1, 0), (0, 0), (8,)]}
    assert list(show.values()) == ["a dogs", "…s run", "…. </s>", "</s>", "", "␣"]


# Swaps


def test_swaps_take_turns_at_positions_and_change_the_code():
    counts = np.array([[0, 9, 3, 5]])
    chosen = codebook_swaps.choose(reading([[1, 2], [], [2, 1], [3], [1, 1, 1, 2]]), counts)
    assert [(swap.example, swap.position, swap.code, swap.replacement) for swap in chosen] == [
        (0, 0, 1, 3),
        (2, 1, 1, 3),
        (3, 0, 3, 1),
        (4, 3, 2, 1),
    ]
    assert len(codebook_swaps.choose(reading([[1, 2]] * 10), counts, most=4)) == 4


class Twice:
    """Decodes each code c into the pieces c + 3 and, second, the piece after that of the code before."""

    def encode(self, inputs):
        return tf.cast(inputs, tf.float32)[:, :, None], inputs != 0

    def decode_codes(self, codes, mask, memory, memory_mask):
        first = codes[:, :, 0] + 3
        second = tf.roll(codes[:, :, 0], 1, axis=1) + 4
        tokens = tf.where(mask[:, :, None], tf.stack([first, second], axis=-1), 0)
        return tf.reshape(tokens, [tf.shape(codes)[0], 1, -1]), None


def test_what_a_swap_changes_inside_and_outside_of_its_window():
    own = reading([[0, 1, 0], [1, 0]], inputs=[[3, 4, 1], [4, 1]])
    chosen = [codebook_swaps.Swap(0, 1, 0, 1, 2), codebook_swaps.Swap(1, 0, 0, 1, 3)]
    found = codebook_swaps.study(Twice(), Pieces(), own, chosen, 2)
    # Of each sentence one of the two tokens in the window changes, and one outside: of 4 and of 2.
    assert found["sentences"] == 2
    assert found["changed_inside"] == pytest.approx(2 / 4)
    assert found["changed_outside"] == pytest.approx(2 / 6)
    assert found["changed"] == pytest.approx(4 / 10)
    first = found["shown"][0]
    assert (first["source"], first["before"], first["after"]) == (
        "a dog",
        "a dog dog dog as",
        "a dogs dog a run",
    )
    without = codebook_swaps.study(Twice(), Pieces(), own, chosen, 0)
    assert without["changed"] == pytest.approx((4 + 4) / (12 + 8))  # aligned, 3 4 | 4 3 and 4 3 have partners
    assert not {"changed_inside", "changed_outside"} & without.keys()


# Movement


class Tiny(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.bottleneck = HardEM(4, 2)


def test_movement_between_the_checkpoints_that_are_kept(tmp_path):
    model = Tiny()
    for step, scale in {10: 1.0, 20: 2.0, 30: 2.0}.items():
        model.bottleneck.codebook.means.assign(np.full([4, 2], scale))
        step_variable = tf.Variable(step, dtype=tf.int64)
        tree = checkpoints.state(model=model)
        tf.train.Checkpoint(**tree, step=step_variable).write(str(tmp_path / f"ckpt-{step}"))
    model.bottleneck.codebook.means.assign(np.full([4, 2], 5.0))
    checkpoints.keep_best(str(tmp_path), model, checkpoints.Best(25, "bleu", 1.0))
    model.bottleneck.codebook.means.assign(np.full([4, 2], 7.0))

    def found():
        intervals = between_checkpoints(str(tmp_path), model, model.bottleneck)
        return [(i.start, i.end, *np.unique(i.moved.astype(float).round(4)).tolist()) for i in intervals]

    assert found() == [(10, 20, 0.5), (20, 25, 0.6), (25, 30, 1.5)]
    assert model.bottleneck.codebook.means.numpy().tolist() == [[7.0, 7.0]] * 4
    checkpoints.keep_best(str(tmp_path), model, checkpoints.Best(25, "bleu", 1.0, "average"))
    assert found() == [(10, 20, 0.5), (20, 30, 0.0)]
    (tmp_path / "ckpt-20.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(UserError, match="ckpt-20"):
        found()


# The whole


class TwoSlots(Tiny):
    """Its second slot tells even ids from odd ones; a code of the first decodes into an id of its own."""

    group = 1

    def __init__(self):
        super().__init__()
        self.bottleneck.slots = 2
        self.bottleneck.parts = lambda codes: tf.one_hot(codes, 2)
        self.bottlenecks = {"latents": self.bottleneck}

    def call(self, features, training=None):
        return ModelOutput(None, {}, None, {}, {})

    def reconstruct(self, features):
        ids = features["targets"]
        return {"outputs": ids, "codes": tf.stack([ids % 4, ids % 2], axis=-1), "code_mask": ids != 0}

    def encode(self, inputs):
        return inputs, inputs != 0

    def decode_codes(self, codes, mask, memory, memory_mask):
        return tf.where(mask, codes[:, :, 0] + 3, 0)[:, None], None


def test_several_slots_are_told_apart_and_averaged(echo_data, tmp_path, monkeypatch):
    problem, data_dir = echo_data
    vocabulary = problem.vocabulary(data_dir)
    names = types.SimpleNamespace(problem="echo", model="two_slots", data_dir=data_dir)
    model = TwoSlots()
    run = Run(problem, model, vocabulary, names, TrainConfig(boundaries=(8, 32)), 9)
    values, places = codebook_report.report(run, str(tmp_path), "val")
    assert places.shape == (4, 2, 2)
    assert "size" not in values["figures"]
    ids = np.array([i for row in vocabulary.encode(problem.texts("val", data_dir)[1]) for i in row])
    assert [slot["counts"] for slot in values["slots"]] == [
        np.bincount(ids % 4, minlength=4).tolist(),
        np.bincount(ids % 2, minlength=4).tolist(),
    ]
    figures = [slot["figures"] for slot in values["slots"]]
    assert figures[0]["live_codes"] == 4
    assert figures[1]["live_codes"] == 2
    for name in ("live_codes", "codebook_perplexity", "split_half_tv", "top_overlap"):
        mean = (figures[0][name] + figures[1][name]) / 2
        assert values["figures"][name] == pytest.approx(mean), name
    assert values["figures"]["latents"] == len(ids)
    assert {swap["slot"] for swap in values["swaps"]["shown"]} == {0, 1}
    # Half of the swaps are of the slot that the decoder reads, and change just the token at its place.
    assert values["figures"]["swap_changed_inside"] == pytest.approx(0.5, abs=0.02)
    assert values["figures"]["swap_changed_outside"] == 0.0
    assert values["movement"] == []
    assert "slot" in codebook_page.page(values, codebook_pictures.pictures(values))

    (bottleneck,) = model.bottlenecks.values()
    monkeypatch.setattr(
        type(bottleneck), "usage", lambda self: {"size": tf.constant(3.0)}
    )  # as adaptive_em's
    values, _ = codebook_report.report(run, str(tmp_path), "val")
    assert values["figures"]["size"] == 3.0
    assert ">size<" in codebook_page.page(values, codebook_pictures.pictures(values)).replace("\n", "")


def test_a_slot_with_one_code_in_use_is_not_swapped():
    chosen = codebook_swaps.choose(reading([[1, 1]] * 3), np.array([[0, 6, 0]]))
    assert chosen == []
