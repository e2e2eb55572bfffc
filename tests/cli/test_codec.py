"""bin/codec on runs of its own: pictures there and back, and what it refuses."""

import json
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2t_vqem import config, registry
from t2t_vqem.cli import codec
from t2t_vqem.problems.image import ImageProblem
from t2t_vqem.training import checkpoints, runs
from t2t_vqem.training.train_config import TrainConfig

SHAPE = (8, 8, 3)
MODELS = {
    "vqvae": {"codebooks": 2, "num_codes": 16, "code_dim": 4, "residual_units": 1, "dim": 8, "top_dim": 8},
    "latent_prior": {"dim": 8, "filter_size": 8, "heads": 2, "layers": 1, "slot_layers": 1, "slot_dim": 8},
    "pixelcnn": {"dim": 8, "layers": 1, "slot_layers": 1, "slot_dim": 8},
}


@registry.problems.register("codec_pictures")
class Pictures(ImageProblem):
    image_shape, num_classes = SHAPE, 1

    def samples(self, split):
        return iter(())


def write_run(folder, problem, name, dimensions, seed=0):
    """Makes a run of step 7 whose weights are random, those of priors large."""
    config.parse([], [f"{name}.{key} = {value!r}" for key, value in MODELS[name].items()])
    TrainConfig()  # so that the operative configuration holds it
    model = registry.models.get(name)(**dimensions)
    model.build_weights()
    for number, variable in enumerate(model.trainable_variables):
        drawn = tf.random.stateless_normal(variable.shape, [number, seed])
        variable.assign(variable + drawn * (0.1 if name == "vqvae" else 0.3))
    names = {"problem": problem, "model": name, "data_dir": str(folder / "data"), "usr_dir": None, "seed": 0}
    about = {"vocabulary_hash": None, "data_fingerprint": "none", "dimensions": dimensions}
    runs.write_run(str(folder), config.RunMetadata(**names, **about), None)
    checkpoints.keep_best(str(folder), model, checkpoints.Best(7, "bits_per_dim", 1.0))
    return str(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The flags of an image model and of priors, two runs of one kind among them."""
    root = tmp_path_factory.mktemp("runs")
    of_codes = {"code_shape": [2, 2, 2], "num_codes": 16, "num_classes": 1}
    pictures = {"image_shape": list(SHAPE), "num_classes": 1}
    priors = {"latent_prior": "latent_prior", "pixelcnn": "pixelcnn", "other": "latent_prior"}
    folders = {
        key: write_run(root / key, "codec_pictures_codes", name, of_codes, seed)
        for seed, (key, name) in enumerate(priors.items())
    }
    flags = {key: [f"--prior_model_dir={folder}"] for key, folder in folders.items()} | {"uniform": []}
    for seed, key in enumerate(("model", "other_model")):
        folder = write_run(root / key, "codec_pictures", "vqvae", pictures, seed)
        flags[key] = [f"--model_dir={folder}"]
    return types.SimpleNamespace(**flags)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 256, [70, *SHAPE]).astype(np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def run(call, made, tmp_path):
    """A function (what to do, input, output below tmp_path, flags) -> what bin/codec did."""

    def run(what, source, output, *flags, model=made.model):
        paths = [f"--input={source}", f"--output={tmp_path / output}"]
        return call(codec, what, *model, *paths, *flags, positional="encode|decode")

    return run


def refused(done, *words):
    assert done.status == 2, done.err[-2000:]
    assert "Traceback" not in done.err
    assert done.out == ""
    last = done.err.splitlines()[-1]
    assert "error: " in last
    for word in words:
        assert word in last


@pytest.mark.parametrize("prior", ["latent_prior", "pixelcnn", "uniform"])
def test_pictures_come_back(run, made, pictures, tmp_path, prior):
    done = run("encode", pictures, "new/file.vqc", *getattr(made, prior))
    assert done.status == 0, done.err[-2000:]
    report = json.loads(done.out.splitlines()[-1])
    size = (tmp_path / "new" / "file.vqc").stat().st_size
    assert (report["pictures"], report["pixels"], report["codes"]) == (70, 70 * 64, 70 * 8)
    assert report["file_bytes"] == size == report["payload_bytes"] + report["header_bytes"]
    assert report["bits_per_pixel"] == pytest.approx(report["bound_bits_per_pixel"], rel=0.02)  # of 280 bytes
    done = run("decode", tmp_path / "new" / "file.vqc", "again", *getattr(made, prior))
    assert done.status == 0, done.err[-2000:]
    assert json.loads(done.out.splitlines()[-1])["pictures"] == 70
    found = sorted((tmp_path / "again").iterdir())
    assert [path.name for path in found] == [f"{number:02}.png" for number in range(70)]
    again = np.stack([np.array(Image.open(path)) for path in found]).astype(float)
    originals = np.stack([np.array(Image.open(path)) for path in sorted(pictures.iterdir())])
    psnr = 10 * np.log10(255**2 / np.square(again - originals).mean(axis=(1, 2, 3)))
    assert report["psnr"] == pytest.approx(psnr.mean(), abs=1e-3)


def test_one_picture(run, made, pictures, tmp_path):
    assert run("encode", pictures / "03.png", "one.vqc", *made.pixelcnn).status == 0
    assert run("decode", tmp_path / "one.vqc", "again", *made.pixelcnn).status == 0
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["03.png"]


@pytest.fixture
def file(run, made, pictures, tmp_path):
    assert run("encode", pictures / "03.png", "one.vqc", *made.latent_prior).status == 0
    return tmp_path / "one.vqc"


def test_a_damaged_or_foreign_file_is_refused(run, made, file, tmp_path):
    data = file.read_bytes()

    def told(changed, *words):
        file.write_bytes(changed)
        refused(run("decode", file, "again", *made.latent_prior), *words)
        assert not (tmp_path / "again").exists()

    told(data[:-1], "one.vqc is truncated")
    told(b"", "one.vqc is truncated")
    told(data[:60] + bytes([data[60] ^ 1]) + data[61:], "one.vqc is damaged")
    told(b"a text\n" * 20, "one.vqc was not written by bin/codec encode")
    refused(run("decode", tmp_path / "none.vqc", "again"), "cannot read", "none.vqc", "No such file")
    refused(run("decode", tmp_path, "again"), "cannot read")


def test_other_models_are_refused(run, made, file):
    refused(run("decode", file, "again"), "with the prior latent_prior@7", "--prior_model_dir")
    refused(run("decode", file, "again", *made.other), "with another prior: latent_prior@7")
    refused(run("decode", file, "again", *made.pixelcnn), "with another prior", "this is pixelcnn@7")
    other = run("decode", file, "again", *made.latent_prior, model=made.other_model)
    refused(other, "with another image model: vqvae@7")
    refused(run("decode", file, "again", *made.latent_prior, "--prior_checkpoint=9"), "step 9")


def test_pictures_that_do_not_fit_are_named(run, pictures, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    refused(run("encode", folder, "x.vqc"), "in is empty")
    Image.open(pictures / "00.png").save(folder / "fits.png")
    (folder / "notes.txt").write_text("no picture")
    refused(run("encode", folder, "x.vqc"), "notes.txt is no picture")
    (folder / "notes.txt").unlink()
    Image.new("RGB", (8, 9)).save(folder / "high.png")
    refused(run("encode", folder, "x.vqc"), "high.png is 9 x 8 pixels where 8 x 8 are wanted")
    (folder / "high.png").unlink()
    Image.new("L", (8, 8)).save(folder / "grey.png")
    refused(run("encode", folder, "x.vqc"), "grey.png is grey (1 channel) where RGB is wanted")
    refused(run("encode", tmp_path / "nowhere", "x.vqc"), "no folder or picture")
    assert not (tmp_path / "x.vqc").exists()


def test_flags_that_say_too_little_are_refused(call, run, made, pictures, file, tmp_path):
    for arguments in ([], ["encoed"], ["encode", "decode"]):
        refused(call(codec, *arguments, *made.model, positional="x"), "bin/codec encode or bin/codec decode")
    refused(call(codec, "encode", *made.model, positional="x"), "--input is missing")
    refused(run("encode", pictures, "."), "is a folder; give the name of a file")
    refused(run("encode", pictures, "/dev/null"), "is no ordinary file")
    one = pictures / "00.png"
    refused(run("encode", one, one), "is one of the pictures to encode")
    refused(run("decode", file, "."), "exists and is no empty folder")
    refused(
        run("encode", pictures, "x.vqc", model=[made.pixelcnn[0].replace("prior_", "")]), "works on images"
    )


def test_without_the_package_the_extra_is_named(run, pictures, monkeypatch):
    from t2t_vqem.compression import coding

    monkeypatch.setattr(coding, "constriction", None)
    refused(run("encode", pictures, "x.vqc"), "t2t-vqem[codec]")
