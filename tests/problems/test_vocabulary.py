"""The same ids from Python and from the graph, and back to the same text."""

import gzip
import random

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.errors import UserError
from t2t_vqem.problems import toy, vocabulary
from t2t_vqem.problems.vocabulary import EOS_ID, PAD_ID, Vocabulary

ODD = [
    "",
    " ",
    "  two  spaces  ",
    "日本 und x",
    "a\u2581b",
    "<unk> <pad> </s>",
    "\ttab",
    "no\u00a0break",
    "ÄÖÜ ß é e\u0301",
]


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def pieces(request):
    lines = [text for pair in toy.ToyEnDe().samples("val") for text in pair]
    return Vocabulary(vocabulary.train(lines, 220, request.param))


@pytest.fixture(scope="module")
def texts():
    return [text for pair in toy.ToyEnDe().samples("test") for text in pair]


def test_ids_are_those_of_the_contract(pieces, texts):
    assert pieces.pieces([0, 1, 2]) == ["<pad>", "</s>", "<unk>"]
    for ids in pieces.encode([*texts, *ODD]):
        assert ids[-1] == EOS_ID
        assert ids.count(EOS_ID) == 1
        assert PAD_ID not in ids


def test_graph_and_python_tokenise_alike(pieces, texts):
    tokenize = tf.function(pieces.tf_tokenize)
    assert tokenize(tf.constant([*texts, *ODD])).to_list() == pieces.encode([*texts, *ODD])


def test_text_comes_back(pieces, texts):
    assert pieces.decode(pieces.encode(texts)) == texts
    assert pieces.decode(pieces.encode(["Die  Frau "])) == ["Die Frau"]


def test_cased_real_text_comes_back(data_root):
    with gzip.open(data_root / "newstest" / "newstest2013.de.gz", "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n") for line in file]
    pieces = Vocabulary(vocabulary.train(lines, 4000))
    assert pieces.decode(pieces.encode(lines)) == [" ".join(line.split(" ")).strip(" ") for line in lines]


def test_graph_and_python_detokenise_any_ids_alike(pieces):
    rng = random.Random(0)
    ids = np.array([[rng.randrange(pieces.size) for _ in range(9)] for _ in range(500)], np.int32)
    texts = [text.decode() for text in tf.function(pieces.tf_detokenize)(tf.constant(ids)).numpy()]
    assert texts == pieces.decode(ids)


def test_decoding_ends_at_the_first_eos(pieces):
    ids = pieces.encode(["Die Frau."])[0]
    padded = [*ids, *pieces.encode(["Der Mann."])[0], PAD_ID]
    assert pieces.decode([padded]) == ["Die Frau."]
    assert pieces.tf_detokenize(tf.constant([padded])).numpy()[0].decode() == "Die Frau."
    assert pieces.tf_detokenize(tf.ragged.constant([ids, []], dtype=tf.int32)).numpy()[1] == b""


def test_training_is_reproducible():
    lines = [text for pair in toy.ToyEnDe().samples("val") for text in pair]
    assert vocabulary.train(lines, 200) == vocabulary.train(lines, 200)


def test_too_small_a_vocabulary_is_a_user_error():
    with pytest.raises(UserError, match="vocab_size=5 comes of"):
        vocabulary.train(["the quick brown fox"] * 10, 5)


def test_no_model_is_a_user_error(tmp_path):
    path = tmp_path / "vocabulary.model"
    with pytest.raises(UserError, match=r"there is no vocabulary .*; it comes with the data of bin/datagen"):
        Vocabulary.load(str(path))
    path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="not a SentencePiece model"):
        Vocabulary.load(str(path))
