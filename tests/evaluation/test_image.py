import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import picture_file
from t2t_vqem.context import Draws, Training
from t2t_vqem.decoding.prior import Prior
from t2t_vqem.errors import UserError
from t2t_vqem.evaluation import picture_grid
from t2t_vqem.evaluation.image import ImageEvaluator
from t2t_vqem.models.latent_prior import LatentPrior
from t2t_vqem.models.vqvae import VQVAE
from t2t_vqem.problems.image import ImageProblem

SHAPE, CLASSES = (16, 24, 3), 3
PICTURES = {"train": 8, "val": 7, "test": 5}


class Tiles(ImageProblem):
    """Pictures of 4 x 4 tiles, each of one colour of eight."""

    name = "tiles"
    image_shape, num_classes = SHAPE, CLASSES

    def samples(self, split):
        draw = np.random.default_rng(len(split))
        for number in range(PICTURES[split]):
            colours = draw.integers(0, 2, [4, 6, 3]) * 200 + 20
            yield np.repeat(np.repeat(colours, 4, axis=0), 4, axis=1).astype(np.uint8), number % CLASSES


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("data"))
    Tiles().generate(folder, workers=1)
    return folder


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    sizes = {"codebooks": 2, "code_dim": 4, "residual_units": 1, "dim": 8, "top_dim": 8}
    model = VQVAE(SHAPE, CLASSES, num_codes=8, likelihood="gaussian", **sizes)
    model.build_weights()
    pictures = np.stack([picture for picture, _ in Tiles().samples("train")])
    batch = {"inputs": tf.zeros([8], tf.int32), "targets": tf.constant(pictures)}
    for step in range(4):
        output = model(batch, training=Training(0, tf.constant(step), tf.range(8), 8))
        model.bottleneck.m_step(output.statistics["codes"])
    return model


def evaluator(data_dir, split="val", rows=4, **options):
    return ImageEvaluator(Tiles(), data_dir, split, batch_tokens=rows * math.prod(SHAPE), **options)


def test_the_figures_are_those_of_a_direct_computation(data_dir, model):
    """The last batch is filled with rows that must not count."""
    values = evaluator(data_dir).evaluate(model, 0)
    pictures, labels = zip(*Tiles().samples("val"), strict=True)
    batch = {"inputs": tf.constant(labels), "targets": tf.constant(np.stack(pictures))}
    found, numbers = model.infer(batch), math.prod(SHAPE)
    bits = float(tf.reduce_mean(found["nats"])) / numbers / math.log(2)
    assert values["reconstruction_bits_per_dim"] == pytest.approx(bits, rel=1e-4)
    assert values["prior_bits_per_dim"] == pytest.approx(4 * 6 * 2 * 3 / numbers)  # log2 of 8 codes is 3
    assert values["bits_per_dim"] == pytest.approx(bits + values["prior_bits_per_dim"], rel=1e-4)
    assert values["nll"] == pytest.approx(bits * math.log(2), rel=1e-4)
    error = np.square(np.stack(pictures) - found["outputs"].numpy().astype(float)).mean(axis=(1, 2, 3))
    assert values["psnr"] == pytest.approx(np.mean(10 * np.log10(255**2 / error)), rel=1e-4)
    assert values["ssim"] == pytest.approx(float(tf.reduce_mean(tf.image.ssim(*map(tf.constant, (
        np.stack(pictures), found["outputs"].numpy()
    )), 255))), rel=1e-4)  # fmt: skip
    counts = np.stack([np.bincount(slot, minlength=8) for slot in found["codes"].numpy().reshape(-1, 2).T])
    np.testing.assert_array_equal(values["code_histogram"], counts)
    assert values["bits_per_dim_signature"] == "upper bound|dims:1152|codes:48|K:8|prior:uniform"
    drawn = model.draw(batch["targets"], Draws(0, tf.constant(0), tf.range(7)))
    assert not np.array_equal(drawn.codes, found["codes"])
    nats = float(tf.reduce_mean(model.nats(batch, drawn.codes)))
    entropy = float(tf.reduce_sum(drawn.entropy)) / 7
    assert values["drawn_bits_per_dim"] == pytest.approx(
        (nats + 48 * math.log(8) - entropy) / numbers / math.log(2), rel=1e-4
    )
    assert values["code_entropy_bits_per_dim"] == pytest.approx(entropy / numbers / math.log(2), rel=1e-4)


def test_a_prior_takes_the_place_of_the_uniform_one(data_dir, model):
    keras.utils.set_random_seed(2)
    prior = LatentPrior(model.code_shape, 8, CLASSES, dim=8, filter_size=8, heads=2, layers=1, slot_dim=8)
    prior.build_weights()
    values = evaluator(data_dir, "test").evaluate_with_prior(model, Prior(prior, "mine@3"))
    pictures, labels = zip(*Tiles().samples("test"), strict=True)
    codes = model.encode(tf.constant(np.stack(pictures)))
    nats = float(tf.reduce_sum(prior.code_nll({"inputs": tf.constant(labels), "targets": codes}))) / 5
    assert values["prior_bits_per_dim"] == pytest.approx(nats / math.prod(SHAPE) / math.log(2), rel=1e-4)
    assert values["bits_per_dim_signature"].endswith("prior:mine@3")
    assert values["samples"].shape == (3 * 32 + 2, 8 * 48 + 7, 3)


def test_a_part_of_the_split_is_spread_over_it(data_dir, model):
    few = evaluator(data_dir, rows=2, max_examples=3).evaluate(model, 0)
    assert few["latents"] == 3 * 4 * 6
    chosen = [picture for picture, _ in Tiles().samples("val")][0:7:2][:3]
    pictures = np.stack([list(Tiles().samples("val"))[i][0] for i in (0, 2, 4)])
    np.testing.assert_array_equal(np.stack(chosen), pictures)
    batch = {"inputs": tf.zeros([3], tf.int32), "targets": tf.constant(pictures)}
    nats = float(tf.reduce_mean(model.infer(batch)["nats"]))
    assert few["reconstruction_bits_per_dim"] == pytest.approx(
        nats / math.prod(SHAPE) / math.log(2), rel=1e-4
    )


def test_pictures_show_originals_reconstructions_and_patches(data_dir, model):
    values = evaluator(data_dir).evaluate(model, 0)
    pictures = np.stack([picture for picture, _ in Tiles().samples("val")])
    shown = values["reconstructions"]
    assert shown.dtype == np.uint8
    assert shown.shape == (2 * 32 + 1, 7 * 48 + 6, 3)  # seven pictures of twice the size, and gaps
    np.testing.assert_array_equal(shown[:32:2, :48:2], pictures[0])
    np.testing.assert_array_equal(shown[:32:2, 49:97:2], pictures[1])
    np.testing.assert_array_equal(
        shown[33::2, :48:2],
        model.infer({"inputs": tf.zeros([7], tf.int32), "targets": tf.constant(pictures)})["outputs"][0],
    )
    codes = model.encode(tf.constant(pictures)).numpy()[..., 0]
    most = np.argsort(-np.bincount(codes.ravel(), minlength=8), kind="stable")[0]
    tiles = pictures.reshape(7, 4, 4, 6, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    np.testing.assert_array_equal(
        values["patches"][:16:4, :16:4], np.rint(tiles[codes == most].mean(axis=0)).astype(np.uint8)
    )


def test_an_unknown_split_is_refused(data_dir):
    with pytest.raises(UserError, match='no split "vall"'):
        evaluator(data_dir, "vall")


def test_a_grid_of_grey_pictures():
    pictures = np.arange(2 * 3 * 2 * 2, dtype=np.uint8).reshape(2, 3, 2, 2, 1)
    whole = picture_grid.grid(pictures)
    assert whole.shape == (5, 8, 3)
    assert whole[3, 6].tolist() == [pictures[1, 2, 0, 0, 0]] * 3
    assert (whole[2] == 255).all() and (whole[:, 2] == 255).all()  # noqa: PT018
    assert picture_file.png(whole).startswith(b"\x89PNG")
