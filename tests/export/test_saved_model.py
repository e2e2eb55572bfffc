"""The graph from strings to strings, beside the decoder and Python's own notion of lines."""

import pytest
import tensorflow as tf

from t2t_vqem import ngrams, registry, search
from t2t_vqem.decoding import translator
from t2t_vqem.errors import UserError
from t2t_vqem.export import exporter, saved_model
from t2t_vqem.prefix_search import LanguageModel

LINES = [
    "A man rides a red bicycle .",
    "dogs",
    "",
    " \u00a0\t",
    "\u2028",
    "Ein Lehrer gibt dem Kind ein rotes Buch !",
    "🙂 東京 <s> </s> \u0301",
    "one\u2028two\r\nthree\n",
    "NUL\0inside",
    "snow " * 30,
    "the snow",
]


@pytest.mark.parametrize("name", registry.models.names())
def test_an_export_of_every_translation_model_gives_the_decoders_text(make_run, tmp_path, name):
    if getattr(registry.models.get(name), "content", "text") != "text":
        pytest.skip(f"{name} is no translation model")
    run = make_run(name)
    saved_model.SavedModel().write(run, run.model, str(tmp_path))
    serve = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    windows = [LINES, LINES[:1], LINES[2:4], LINES[4:], []]
    expected = exporter.decode(run, run.model, windows)
    for window, texts in zip(windows, expected, strict=True):
        found = serve(text=tf.constant(window, tf.string))
        assert [text.decode() for text in found["translation"].numpy()] == texts
        assert found["score"].shape == [len(window)]
    assert len(set(expected[0])) > 3
    if name == "latent_nat":  # what only training reads is left out
        saved = tf.train.load_checkpoint(
            str(tmp_path / "variables" / "variables")
        ).get_variable_to_shape_map()
        assert len(saved) < len(run.model.weights) - len(run.model.compressor.weights) + 2


def test_decode_settings_are_part_of_it(make_run):
    run = make_run("transformer")
    greedy = exporter.decode(run, run.model, [LINES])
    run.model.decoding = search.Settings(beam_size=3)
    service = saved_model.service(run.model, run.vocabulary, boundaries=(6, 12, 20), batch_tokens=40)
    found = [text.decode() for text in service.translate(tf.constant(LINES))["translation"].numpy()]
    assert [found] == exporter.decode(run, run.model, [LINES]) != greedy


def test_ngrams_are_part_of_it(make_run, tmp_path):
    run = make_run("nat_ctc")
    plain = exporter.decode(run, run.model, [LINES])
    text = run.vocabulary.encode(["A red snow .", "gives the dogs a Lehrer"])
    run.model.language_model = LanguageModel(ngrams.count(text, run.vocabulary.size, run.vocabulary.hash))
    run.model.decoding = search.Settings(lm_weight=3.0, blank_penalty=1.0)
    saved_model.SavedModel().write(run, run.model, str(tmp_path))
    serve = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    found = [text.decode() for text in serve(text=tf.constant(LINES))["translation"].numpy()]
    assert [found] == exporter.decode(run, run.model, [LINES]) != plain


def test_the_score_is_the_log_probability_of_the_translation(make_run):
    run = make_run("transformer")
    service = saved_model.service(run.model, run.vocabulary, boundaries=(12,), batch_tokens=40)
    (ids,) = run.vocabulary.encode([LINES[0]])
    inputs = tf.constant([[*ids[:11], 1]])
    expected = run.model.infer({"inputs": inputs})["scores"][0, 0]
    scores = service.translate(tf.constant([LINES[0], ""]))["score"]
    assert abs(scores[0] - expected) < 1e-4
    assert scores[0] < -1
    assert scores[1] == 0


def test_lines_and_blanks_are_pythons():
    characters = [chr(code) for code in range(0x3100) if code] + ["\ufeff", "🙂"]
    texts = [*characters, *(f"a{c}b" for c in characters), *(f"a{c}{c}" for c in characters)]
    texts += ["", "\n", "\r\n", "\n\r", "a\r\nb\r", "a\n\nb\n\n", " \r\n\u3000\t", "a\0\n"]
    found = saved_model.one_line(tf.constant(texts)).numpy()
    assert [text.decode() for text in found] == [translator.one_line(text) for text in texts]
    blank = tf.strings.regex_full_match(texts, saved_model._BLANK).numpy()
    assert list(blank) == [not text.strip() for text in texts]


def test_an_export_that_needs_this_process_is_refused(make_run, tmp_path):
    run = make_run("transformer")
    infer = run.model.infer

    def through_python(features):
        found = infer(features)
        outputs = tf.py_function(lambda ids: ids, [found["outputs"]], tf.int32)
        return found | {"outputs": tf.ensure_shape(outputs, [None, None])}

    run.model.infer = through_python
    with pytest.raises(UserError, match="without this package"):
        exporter.export(run, str(tmp_path / "out"), saved_model.SavedModel())
    assert list(tmp_path.iterdir()) == []
