"""Pictures through a file, and what a file is refused for."""

import math

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.compression import coding
from t2t_vqem.compression.codec import ROWS, Codec
from t2t_vqem.compression.container import unpack
from t2t_vqem.decoding.pictures import Picture
from t2t_vqem.decoding.prior import Prior
from t2t_vqem.errors import UserError

COUNT = ROWS + 9


@pytest.fixture(scope="module")
def pictures():
    noise = np.random.default_rng(1).integers(0, 256, [COUNT, 8, 12, 3]).astype(np.uint8)
    return [Picture(f"{number:03}", pixels) for number, pixels in enumerate(noise)]


@pytest.fixture(scope="module")
def priors(image_model, make_prior):
    made = {
        name: Prior(make_prior(name, image_model.code_shape), f"{name}@9")
        for name in ("latent_prior", "pixelcnn")
    }
    return made | {"uniform": None}


@pytest.mark.parametrize("name", ["latent_prior", "pixelcnn", "uniform"])
def test_a_file_gives_what_the_model_makes_of_the_pictures(image_model, pictures, priors, name):
    container, figures = Codec(image_model, "vqvae@7", priors[name]).encode(pictures, COUNT)
    again = unpack(container.pack(), "file")
    found = list(Codec(image_model, "vqvae@7", priors[name]).decode(again, "file"))
    assert [picture.name for picture in found] == [picture.name for picture in pictures]
    originals = np.stack([picture.pixels for picture in pictures])
    codes = image_model.encode(tf.constant(originals))
    expected = image_model.decode(codes).numpy()
    decoded = np.stack([picture.pixels for picture in found])
    assert (
        np.abs(decoded.astype(int) - expected.astype(int)).max() <= 1
    )  # batches of other sizes round otherwise
    assert figures["ratio"] == pytest.approx(1, abs=0.01)
    assert figures["bits_per_pixel"] == pytest.approx(figures["bound_bits_per_pixel"], rel=0.01)
    assert figures["uniform_bits_per_pixel"] == 4 * 12 / (8 * 12)
    assert figures["bits_per_pixel"] * COUNT * 8 * 12 == 8 * figures["payload_bytes"]
    assert (
        figures["payload_bytes"] + figures["header_bytes"] == figures["file_bytes"] == len(container.pack())
    )
    psnr = tf.reduce_mean(tf.image.psnr(originals, decoded, 255))
    assert figures["psnr"] == pytest.approx(float(psnr), abs=1e-3)
    if priors[name]:
        nats = tf.reduce_sum(priors[name].nats({"inputs": tf.zeros([COUNT], tf.int32), "targets": codes}))
        bits = float(nats) / math.log(2) / (COUNT * 8 * 12)
        assert figures["bound_bits_per_pixel"] == pytest.approx(bits, rel=1e-3)


def test_one_picture_is_coded_alone(image_model, pictures, priors):
    container, _ = Codec(image_model, "vqvae@7", priors["latent_prior"]).encode(pictures[:1], 1)
    assert container.rows == 1
    (found,) = Codec(image_model, "vqvae@7", priors["latent_prior"]).decode(container, "file")
    assert found.name == "000"


def test_a_picture_that_comes_back_exactly_has_no_psnr(image_model, pictures, monkeypatch):
    monkeypatch.setattr(Codec, "_decoded", lambda self, codes: tf.constant(pictures[0].pixels[None]))
    assert Codec(image_model, "vqvae@7").encode(pictures[:1], 1)[1]["psnr"] is None


def test_files_of_other_models_are_refused(image_model, make_prior, pictures, priors):
    plain, _ = Codec(image_model, "vqvae@7").encode(pictures[:2], 2)
    coded, _ = Codec(image_model, "vqvae@7", priors["pixelcnn"]).encode(pictures[:2], 2)

    def told(container, prior=None):
        with pytest.raises(UserError) as raised:
            list(Codec(image_model, "vqvae@8", prior).decode(container, "f.vqc"))
        return str(raised.value)

    assert told(coded) == "f.vqc was written with the prior pixelcnn@9; give it by --prior_model_dir"
    assert told(plain, priors["pixelcnn"]) == "f.vqc was written without a prior; leave --prior_model_dir out"
    assert "with another prior: pixelcnn@9 with" in told(coded, priors["latent_prior"])
    one_weight = Prior(make_prior("pixelcnn", image_model.code_shape), "pixelcnn@9")
    one_weight.model.head.bias[0, 0].assign(one_weight.model.head.bias[0, 0] + 1e-6)
    assert "with another prior: pixelcnn@9 with" in told(coded, one_weight)
    weight = image_model.to_codes.bias
    kept = weight.numpy()
    try:
        weight.assign(kept + 1e-6)
        assert "with another image model: vqvae@7 with" in told(plain)
        assert "this is vqvae@8 with" in told(coded, priors["pixelcnn"])
    finally:
        weight.assign(kept)
    assert "with another image model" in told(plain._replace(num_codes=8))


def test_other_probabilities_are_named_as_the_cause(image_model, pictures, priors, monkeypatch):
    """As if the reader's processor summed in another order."""
    codec = Codec(image_model, "vqvae@7", priors["latent_prior"])
    container, _ = codec.encode(pictures[:9], 9)
    choose = coding._Walk._choose
    monkeypatch.setattr(
        coding._Walk,
        "_choose",
        lambda self, logits, number: choose(self, logits * np.float32(1.0001), number),
    )
    with pytest.raises(UserError, match="another processor or with another TensorFlow"):
        list(codec.decode(container, "file"))


def test_a_prior_with_latents_of_its_own_is_refused(image_model, make_prior):
    prior = make_prior("pixelcnn", image_model.code_shape)
    prior.side_nats = 3.0  # as a code_vqvae has them
    with pytest.raises(UserError, match="code_vqvae@1 predicts codes from latents of its own"):
        Codec(image_model, "vqvae@7", Prior(prior, "code_vqvae@1"))


def test_a_prior_that_computes_no_numbers_is_refused(image_model, make_prior, pictures):
    prior = make_prior("latent_prior", image_model.code_shape, sharpness=math.nan)
    with pytest.raises(UserError, match="latent_prior@1 computes no finite probabilities"):
        Codec(image_model, "vqvae@7", Prior(prior, "latent_prior@1")).encode(pictures[:1], 1)
