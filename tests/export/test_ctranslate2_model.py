"""The transformer in CTranslate2's own hands."""

import os

import ctranslate2
import numpy as np
import pytest
import sentencepiece
import tensorflow as tf

from t2t_vqem import search
from t2t_vqem.errors import UserError
from t2t_vqem.export import ctranslate2_model, exporter


@pytest.fixture(scope="module")
def exported(make_run, tmp_path_factory):
    """(run, folder of its export, what the export's manifest says)."""
    run = make_run("transformer")
    run.model.decoding = search.Settings(beam_size=4)
    folder = str(tmp_path_factory.mktemp("export"))
    return run, folder, exporter.export(run, folder, ctranslate2_model.CTranslate2())


def test_it_is_compared_with_greedy_search_in_float32(exported):
    _, folder, manifest = exported
    assert manifest["dtype"] == "float32"
    assert manifest["decode"]["beam_size"] == 1
    assert manifest["compared"]["different"] == 0
    assert manifest["most_target_tokens"] == 2 * 20 + 10
    assert {"model.bin", "config.json", "vocabulary.model", "export.json"} <= set(os.listdir(folder))


def test_it_scores_as_the_model_does(exported):
    run, folder, _ = exported
    pieces = sentencepiece.SentencePieceProcessor(model_file=os.path.join(folder, "vocabulary.model"))
    source, target = "A man rides a red bicycle .", "Ein Lehrer gibt 東京 Öl !"
    translator = ctranslate2.Translator(folder, device="cpu", compute_type="float32", intra_threads=1)
    (scored,) = translator.score_batch(
        [pieces.encode(source, out_type=str)], [pieces.encode(target, out_type=str)]
    )
    ids = [tf.constant(run.vocabulary.encode([text])) for text in (source, target)]
    expected = run.model.score(ids[0], ids[1][:, None])[:, 0]
    assert len(scored.log_probs) == ids[1].shape[1]
    np.testing.assert_allclose(sum(scored.log_probs), expected[0], rtol=1e-4)


def test_only_the_transformer_can_be_exported(make_run, tmp_path):
    with pytest.raises(UserError, match="no model like latent_nat; only transformer"):
        exporter.export(make_run("latent_nat"), str(tmp_path / "out"), ctranslate2_model.CTranslate2())
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(ctranslate2_model, "ctranslate2", None)
    with pytest.raises(UserError, match=r"t2t-vqem\[ctranslate2\]"):
        ctranslate2_model.CTranslate2()
