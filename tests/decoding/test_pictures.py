import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2t_vqem.context import Training
from t2t_vqem.decoding import pictures
from t2t_vqem.errors import UserError
from t2t_vqem.models.latent_prior import LatentPrior
from t2t_vqem.models.vqvae import VQVAE

SHAPE, CLASSES = (8, 8, 3), 3


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    sizes = {"codebooks": 2, "code_dim": 4, "residual_units": 1, "dim": 8, "top_dim": 8}
    model = VQVAE(SHAPE, CLASSES, num_codes=8, likelihood="gaussian", class_conditional=True, **sizes)
    model.build_weights()
    model.classes.assign(tf.random.stateless_normal(model.classes.shape, [1, 2]))
    noise = np.random.default_rng(0).integers(0, 256, [8, *SHAPE])
    batch = {"inputs": tf.zeros([8], tf.int32), "targets": tf.constant(noise, tf.uint8)}
    for step in range(4):
        output = model(batch, training=Training(0, tf.constant(step), tf.range(8), 8))
        model.bottleneck.m_step(output.statistics["codes"])
    return model


@pytest.fixture(scope="module")
def prior(model):
    keras.utils.set_random_seed(2)
    prior = LatentPrior(model.code_shape, 8, CLASSES, dim=8, filter_size=8, heads=2, layers=1, slot_dim=8)
    prior.build_weights()
    return prior


def write(folder, count, shape=SHAPE):
    folder.mkdir()
    made = np.random.default_rng(1).integers(0, 256, [count, *shape]).astype(np.uint8)
    for number, pixels in enumerate(made):
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return made


def test_a_folder_is_rebuilt_in_batches_in_the_order_of_its_names(model, tmp_path):
    made = write(tmp_path / "in", pictures.BATCH + 3)
    found = pictures.paths(str(tmp_path / "in"))
    rebuilt = list(pictures.rebuilt(model, pictures.read(found, SHAPE)))
    assert [picture.name for picture in rebuilt] == [f"{n:03}" for n in range(len(made))]
    direct = model.infer({"inputs": tf.zeros([len(made)], tf.int32), "targets": tf.constant(made)})
    outputs = np.stack([picture.pixels for picture in rebuilt])
    assert np.abs(outputs.astype(int) - direct["outputs"].numpy().astype(int)).max() <= 1


def test_one_file_is_a_folder_of_one(tmp_path):
    write(tmp_path / "in", 1)
    assert pictures.paths(str(tmp_path / "in" / "000.png")) == [str(tmp_path / "in" / "000.png")]


def test_samples_depend_on_seed_and_number_alone(model, prior):
    many = np.stack(list(pictures.samples(model, prior, 34, num_classes=CLASSES)))
    few = np.stack(list(pictures.samples(model, prior, 3, num_classes=CLASSES)))
    other = np.stack(list(pictures.samples(model, prior, 3, num_classes=CLASSES, seed=1)))
    assert many.shape == (34, *SHAPE)
    assert many.dtype == np.uint8
    np.testing.assert_array_equal(many[:3], few)
    assert (few != other).any()


def test_classes_take_turns(model, prior):
    """At temperature 0 the prior, which knows no classes, always draws the same; the decoder knows them."""
    drawn = np.stack(list(pictures.samples(model, prior, 6, num_classes=CLASSES, temperature=0.0)))
    np.testing.assert_array_equal(drawn[:3], drawn[3:])
    assert (drawn[0] != drawn[1]).any()
    assert (drawn[1] != drawn[2]).any()


def _nothing(folder):
    folder.mkdir()


def _text(folder):
    write(folder, 2)
    (folder / "two.txt").write_text("no picture")


def _other_size(folder):
    write(folder, 1, (8, 9, 3))


def _inner(folder):
    write(folder, 1)
    (folder / "inner").mkdir()


def _twice(folder):
    write(folder, 1)
    for name in ("000.bmp", "000.more.png"):  # the second stands between the two
        Image.fromarray(np.zeros(SHAPE, np.uint8)).save(folder / name)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: None, 'no folder or picture ".*in"'),
        (_nothing, "in is empty"),
        (_text, "two.txt is no picture in PNG"),
        (_other_size, "000.png is 8 x 9 pixels where 8 x 8 are wanted"),
        (_inner, "inner is a folder"),
        (_twice, "000.png has the same name"),
    ],
)
def test_what_is_no_folder_of_such_pictures_is_named(make, told, tmp_path):
    make(tmp_path / "in")
    with pytest.raises(UserError, match=told):
        list(pictures.read(pictures.paths(str(tmp_path / "in")), SHAPE))
