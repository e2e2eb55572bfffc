"""bin/exporter on a small run of latent_nat whose data are gone."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import config, registry
from t2t_vqem.cli import decoder, exporter
from t2t_vqem.problems import vocabulary
from t2t_vqem.training import checkpoints, runs, strategy
from t2t_vqem.training.train_config import TrainConfig

SMALL = {"dim": 8, "filter_size": 8, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
LATENT = {"num_codes": 6, "num_compress_steps": 1, "predictor_layers": 1}
CORPUS = ["A man rides a red bicycle past two dogs .", "Ein Lehrer gibt dem Kind ein rotes Buch !"]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return make_run(str(tmp_path_factory.mktemp("run")), "latent_nat", LATENT | SMALL)


@pytest.fixture(scope="module")
def teacher_dir(tmp_path_factory):
    return make_run(str(tmp_path_factory.mktemp("teacher")), "transformer", SMALL)


def make_run(folder, name, hparams):
    bindings = [f"{name}.{key} = {value}" for key, value in hparams.items()]
    config.parse([], [*bindings, "train.boundaries = (6, 16)", 'train.dtype = "bfloat16"'])
    pieces = vocabulary.Vocabulary(vocabulary.train(CORPUS * 20, 60))
    with strategy.dtype_policy(TrainConfig().dtype):
        model = registry.models.get(name)(vocab_size=pieces.size)
        model.build_weights()
    for number, variable in enumerate(model.trainable_variables):
        variable.assign(variable * 1.5 + 0.1 * tf.random.stateless_normal(variable.shape, [number, 1]))
    names = {"problem": "toy_ende", "model": name, "data_dir": "gone", "usr_dir": None, "seed": 0}
    metadata = config.RunMetadata(**names, vocabulary_hash=pieces.hash, data_fingerprint="")
    runs.write_run(folder, metadata, pieces)
    checkpoints.keep_best(folder, model, checkpoints.Best(9, "bleu", 1.0))
    return folder


def test_the_export_gives_what_the_decoder_prints(call, model_dir, tmp_path):
    lines = [*CORPUS, "", "🙂", "two dogs " * 20, "a red Buch"]
    (tmp_path / "in").write_text("\n".join(lines), encoding="utf-8")
    flags = [f"--model_dir={model_dir}", "--gin_param=decode.beam_size = 2"]
    done = call(exporter, *flags, f"--output_dir={tmp_path / 'new' / 'out'}")
    assert done.status == 0, done.err
    told = json.loads(done.out.splitlines()[-1])
    assert told.pop("output_dir") == str(tmp_path / "new" / "out")
    assert told == json.loads((tmp_path / "new" / "out" / "export.json").read_text(encoding="utf-8"))
    assert (told["format"], told["step"]) == ("saved_model", 9)
    assert (told["problem"], told["model"]) == ("toy_ende", "latent_nat")
    assert (told["dtype"], told["decode"]["beam_size"]) == ("bfloat16", 2)
    assert told["compared"] == {"lines": 8, "source": "built in", "different": 0}
    assert told["vocabulary_hash"] == config.read_run(model_dir).vocabulary_hash
    serve = tf.saved_model.load(str(tmp_path / "new" / "out")).signatures["serving_default"]
    found = [text.decode() for text in serve(text=tf.constant(lines))["translation"].numpy()]
    decoded = call(decoder, *flags, f"--input={tmp_path / 'in'}")
    assert decoded.out.split("\n")[:-1] == found
    assert len(set(found)) > 3


def test_what_chooses_among_candidates_is_part_of_it(call, model_dir, teacher_dir, tmp_path):
    lines = [*CORPUS, "a red Buch", "two dogs"]
    (tmp_path / "in").write_text("\n".join(lines), encoding="utf-8")
    plain = [f"--model_dir={model_dir}", "--gin_param=decode.beam_size = 3"]
    flags = [*plain, f"--rerank_model_dir={teacher_dir}"]
    done = call(exporter, *flags, f"--output_dir={tmp_path / 'out'}")
    assert done.status == 0, done.err
    told = json.loads(done.out.splitlines()[-1])
    assert told["reranked_by"] == f"{os.path.basename(teacher_dir)}, step 9"
    serve = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    served = serve(text=tf.constant(lines))

    def first_candidates(*how):
        """Returns the scores and texts of the best candidates, one a line."""
        printed = call(decoder, *how, f"--input={tmp_path / 'in'}", "--candidates").out.splitlines()
        best = {number: (score, text) for number, score, text in (line.split("\t") for line in printed[::-1])}
        return zip(*(best[str(number)] for number in range(1, len(lines) + 1)), strict=True)

    scores, texts = first_candidates(*flags)
    assert [text.decode() for text in served["translation"].numpy()] == list(texts)
    np.testing.assert_allclose(served["score"], [float(score) for score in scores], rtol=1e-2)
    own, _ = first_candidates(*plain)
    assert all(score != other for score, other in zip(scores, own, strict=True))  # they are the chooser's


def one_line_error(done, *words):
    assert (done.status, done.out) == (2, "")
    last = done.err.splitlines()[-1]
    assert "error: " in last
    assert "Traceback" not in done.err
    for word in words:
        assert word in last


def test_what_users_do_wrong(call, copy_run, model_dir, teacher_dir, tmp_path):
    run, out = f"--model_dir={model_dir}", f"--output_dir={tmp_path / 'out'}"
    one_line_error(call(exporter, run), "--output_dir is missing")
    one_line_error(call(exporter, run, f"--output_dir={model_dir}"), "no empty folder", "choose another")
    one_line_error(call(exporter, run, out, "--checkpoint=7"), "step 7", "9")
    one_line_error(call(exporter, run, out, "--format=onnx"), "format", "saved_model")
    one_line_error(call(exporter, run, out, "--format=ctranslate2"), "latent_nat", "only transformer")
    one_line_error(
        call(exporter, f"--model_dir={copy_run.model_dir}", out), "cli_copy", "no translation model"
    )
    chosen = f"--rerank_model_dir={teacher_dir}"
    one_line_error(call(exporter, run, out, chosen), "needs candidates", "decode.beam_size")
    teacher = f"--model_dir={teacher_dir}"
    one_line_error(
        call(exporter, teacher, out, chosen, "--format=ctranslate2"),
        "leave out --rerank_model_dir",
    )
    blanks = "--gin_param=decode.blank_penalty = 1"
    one_line_error(call(exporter, teacher, out, blanks, "--format=ctranslate2"), "writes no blanks")
    assert os.listdir(tmp_path) == []
