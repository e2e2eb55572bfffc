import logging as python_logging

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import fusion, search
from t2t_vqem.decoding.translator import Translator, one_line, rows_by_boundary
from t2t_vqem.problems import vocabulary

CORPUS = [
    "the old dogs see a small house .",
    "a teacher gives the child a red book ,",
    "Ein Lehrer gibt dem Kind ein rotes Buch !",
    "Äpfel, Öl und Übermut – naïve „Zitate“ 东京 🙂",
]


@pytest.fixture(scope="module")
def pieces():
    return vocabulary.Vocabulary(vocabulary.train(CORPUS * 20, 120))


class Copy:
    """A model whose translation is its source; it counts its traces and remembers its batches."""

    def __init__(self):
        self.shift = tf.Variable(0)
        self.traces = 0
        self.shapes = []

    def infer(self, features):
        self.traces += 1
        inputs = features["inputs"]
        tf.py_function(lambda shape: self.shapes.append(tuple(shape.numpy())), [tf.shape(inputs)], [])
        return {"outputs": tf.where(inputs > 2, inputs + self.shift, inputs)}


def translator(pieces, model=None, boundaries=(8, 16, 64), batch_tokens=128, **options):
    return Translator(model or Copy(), pieces, boundaries=boundaries, batch_tokens=batch_tokens, **options)


AWKWARD = [
    "",
    " ",
    "\t",
    "\u00a0\u2003",
    "the old dogs",
    "a\nb",
    "a\r\nb\r",
    "\r\n",
    "NUL\0inside",
    "\0",
    "the\u2028old\u2029dogs\u0085see",
    "\x0b\x0c\x1c\x1d\x1e\u2028\u0085",
    "🙂 東京 \U0010ffff ﷺ",
    "é a\u0301",
    "dogs " * 500,
    "\ufeff",
    "a",
]


@pytest.mark.parametrize("count", [1, 2, 8, 9, len(AWKWARD)])
def test_one_output_line_for_each_input_line(pieces, count):
    outputs = list(translator(pieces).translate(AWKWARD[:count]))
    assert len(outputs) == count
    assert all(len(output.splitlines()) <= 1 and "\n" not in output for output in outputs)


def test_outputs_never_hold_a_line_break(pieces):
    class Breaks:
        encode = staticmethod(pieces.encode)

        @staticmethod
        def tf_detokenize(ids):
            return tf.fill(tf.shape(ids)[:1], "a\nb\u2028c\r\nd\u0085".encode())

    assert list(translator(Breaks()).translate(["the", "old"])) == ["a b c d"] * 2


def test_blank_lines_are_empty_and_do_not_reach_the_model(pieces):
    model = Copy()
    assert list(translator(pieces, model).translate(["", "  ", "\t", "\u2028"])) == [""] * 4
    assert model.shapes == []


def test_no_lines_give_no_lines(pieces):
    assert list(translator(pieces).translate([])) == []


def sentences(count):
    words = ["the", "old", "dogs", "see", "a", "small", "house"]
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(words, generator.integers(1, 9))) for _ in range(count)]


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_order_is_kept_whatever_the_batch(pieces, batch_tokens):
    lines = sentences(200)
    assert list(translator(pieces, batch_tokens=batch_tokens).translate(lines)) == lines


def test_windows_stream(pieces, monkeypatch):
    monkeypatch.setattr("t2t_vqem.decoding.translator.WINDOW_LINES", 3)
    read = []
    lines = sentences(8)
    outputs = translator(pieces).translate(read.append(line) or line for line in lines)
    assert next(outputs) == lines[0]
    assert len(read) == 3
    assert list(outputs) == lines[1:]


def test_one_trace_serves_every_batch(pieces):
    model = Copy()
    copy = translator(pieces, model, boundaries=(8, 64), batch_tokens=512)
    for count in [1, 1, 2, 9, 200, 1]:
        assert list(copy.translate(sentences(200)[:count])) == sentences(200)[:count]
    assert model.traces == 1


@pytest.mark.parametrize(
    ("max_rows", "expected"), [(None, [(64, 8), (36, 8)]), (30, [(30, 8)] * 3 + [(10, 8)])]
)
def test_batches_are_no_larger_than_allowed(pieces, max_rows, expected):
    model = Copy()
    list(translator(pieces, model, batch_tokens=512, max_rows=max_rows).translate(["a house"] * 100))
    assert model.shapes == expected


def test_one_line_is_a_batch_of_one_row_of_its_boundary(pieces):
    model = Copy()
    list(translator(pieces, model, boundaries=(2, 8, 64)).translate(["a house"]))
    assert model.shapes == [(1, 8)]


def test_weights_that_change_are_seen(pieces):
    model = Copy()
    copy = translator(pieces, model)
    (before,) = copy.translate(["the old dogs"])
    model.shift.assign(1)
    (after,) = copy.translate(["the old dogs"])
    expected = pieces.decode([[i + 1 if i > 2 else i for i in pieces.encode(["the old dogs"])[0]]])
    assert before == "the old dogs"
    assert [after] == expected
    assert model.traces == 1


def test_long_lines_are_cut_and_counted_once(pieces, caplog):
    copy = translator(pieces, boundaries=(8, 16))
    long = "dogs " * 40
    with caplog.at_level(python_logging.WARNING, logger="absl"):
        outputs = list(copy.translate(["a", long, "the", long]))
    assert pieces.decode([pieces.encode([long])[0][:15]]) == [outputs[1]]
    assert copy.truncated == 2
    (record,) = caplog.records
    assert "2 of 4 lines were longer than 16 tokens" in record.getMessage()


def test_an_error_in_the_source_still_reports_the_cut_lines(pieces, caplog):
    def windows():
        yield ["dogs " * 40]
        raise RuntimeError("gone")

    with caplog.at_level(python_logging.WARNING, logger="absl"), pytest.raises(RuntimeError, match="gone"):
        list(translator(pieces, boundaries=(8,)).translate_windows(windows()))
    assert "1 of 1 lines" in caplog.records[0].getMessage()


@pytest.mark.parametrize(("boundaries", "tokens"), [((), 10), ((0, 4), 10), ((4,), 0)])
def test_settings_that_allow_no_batch(pieces, boundaries, tokens):
    with pytest.raises(ValueError, match="no batch"):
        translator(pieces, boundaries=boundaries, batch_tokens=tokens)


def test_one_line():
    assert one_line("a\r\nb\x85c") == "a b c"
    assert one_line("a|b\u00a0c") == "a|b\u00a0c"


class Candidates(Copy):
    """Two candidates a line: the source, and the source without its first token."""

    decoding = search.Settings(num_candidates=2)

    def infer(self, features):
        inputs = features["inputs"]
        both = tf.stack([inputs, tf.pad(inputs[:, 1:], [[0, 0], [0, 1]])], axis=1)
        scores = tf.stack([tf.zeros([tf.shape(inputs)[0]]), -tf.ones([tf.shape(inputs)[0]])], axis=1)
        return {"outputs": inputs, "candidates": both, "scores": scores, "calls": tf.constant(1)}


@pytest.mark.parametrize("compiled", [False, True])
def test_candidates_with_their_scores(pieces, compiled):
    model = Candidates()
    model.decoding = search.Settings(num_candidates=2, compile=compiled)
    found = translator(pieces, model).candidates(["the old dogs", " ", "a red book"])
    assert found[1] == []
    assert [score for score, _ in found[0]] == [0.0, -1.0]
    assert found[0][0][1] == "the old dogs"
    assert found[2][0][1] == "a red book"
    assert found[2][0][1].endswith(found[2][1][1])


def test_lines_that_are_cut_are_told_of_with_candidates_too(pieces, caplog):
    own = translator(pieces, Candidates())
    for window in own.telling_of_cuts([["the old dogs", "dogs " * 500]]):
        assert len(own.candidates(window)) == 2
    assert "1 of 2 lines were longer than 64 tokens" in caplog.text


def test_a_compiled_batch_is_no_larger_than_allowed_when_it_is_padded_to_a_power_of_two():
    model = Candidates()
    model.decoding = search.Settings(num_candidates=10)
    assert rows_by_boundary(model, (24, 48), 4096) == {24: 17, 48: 8}
    model.decoding = search.Settings(num_candidates=10, compile=True)
    assert rows_by_boundary(model, (24, 48), 4096) == {24: 16, 48: 8}


@pytest.fixture
def compiled(pieces):
    """A translator that compiles inference, and a list of the shapes that its model is traced for."""
    model, traced = Candidates(), []
    model.decoding = search.Settings(compile=True)
    infer = model.infer
    model.infer = lambda features: (traced.append(features["inputs"].shape), infer(features))[1]
    return translator(pieces, model, boundaries=(8,), batch_tokens=128), traced


def test_compiled_inference_meets_few_shapes(compiled):
    lines, traced = compiled
    for count in (1, 3, 4, 2, 3):
        assert list(lines.translate(["the old"] * count)) == ["the old"] * count
    assert [tuple(shape) for shape in traced] == [(1, 8), (4, 8), (2, 8)]


def test_shapes_are_translated_uncompiled_where_no_more_can_be_compiled(compiled, monkeypatch, caplog):
    lines, traced = compiled
    assert list(lines.translate(["the old"])) == ["the old"]
    monkeypatch.setattr(fusion, "room_to_compile", lambda: False)
    with caplog.at_level(python_logging.WARNING):
        for count in (1, 3, 2):
            assert list(lines.translate(["the old"] * count)) == ["the old"] * count
    assert [tuple(shape) for shape in traced] == [(1, 8), (None, None)]
    assert "decode.compile" in caplog.text
