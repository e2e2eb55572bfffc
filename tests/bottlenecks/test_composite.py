"""Product and residual beside a direct computation with their parts."""

import gin
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.bottlenecks import composite
from t2t_vqem.bottlenecks.composite import Product, Residual
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.context import Training
from t2t_vqem.errors import UserError

ROWS, CODES, DIM = 12, 7, 6
SETTINGS = CodebookSettings(norm=None, revival_threshold=0.0, warmup_steps=0, beta=0.5)
X = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)


def place(levels, scale=1.0):
    """Gives each bottleneck codes of its own; returns these."""
    books = []
    for number, level in enumerate(levels):
        book = level.codebook
        means = np.random.default_rng(5 + number).normal(size=book.means.shape).astype(np.float32)
        means *= scale**number
        book.means.assign(means)
        book.counts.assign(np.ones(CODES))
        book.sums.assign(means)
        book.updates.assign(1e6)
        books.append(means)
    return books


def nearest(x, means):
    return np.square(x[:, None].astype(np.float64) - means[None]).sum(-1).argmin(-1)


def training():
    return Training(3, tf.constant(10**6), tf.range(ROWS), ROWS)


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_a_product_quantises_each_slice_by_itself(slices):
    product = Product(CODES, DIM, SETTINGS, base="hard_em", slices=slices)
    books = place(product.levels)
    parts = np.split(X, slices, axis=1)
    codes = np.stack([nearest(part, book) for part, book in zip(parts, books, strict=True)], axis=1)
    expected = np.concatenate([book[code] for book, code in zip(books, codes.T, strict=True)], axis=1)
    output = product.e_step(X, None, training())
    np.testing.assert_array_equal(output.codes, codes)
    np.testing.assert_array_equal(output.samples, codes[:, :, None])
    np.testing.assert_allclose(output.quantized, expected, atol=1e-5)
    np.testing.assert_allclose(product.embed(codes), expected, atol=1e-5)
    np.testing.assert_allclose(output.loss.sum, 0.5 * np.square(X - expected).mean(1).sum(), rtol=1e-4)

    product.m_step(output.statistics)
    for part, book, code, level in zip(parts, books, codes.T, product.levels, strict=True):
        counts = np.bincount(code, minlength=CODES)
        sums = np.stack([part[code == k].sum(0) for k in range(CODES)])
        moved = (0.99 * book + 0.01 * sums) / (0.99 + 0.01 * counts)[:, None]
        np.testing.assert_allclose(level.codebook.means, moved, rtol=1e-3, atol=1e-4)


def test_a_projected_product_quantises_slices_of_the_projection():
    product = Product(CODES, DIM, SETTINGS, base="hard_em", projected=True)
    books = place(product.levels)
    projected = X @ product.project_in.kernel.numpy()
    for number, part in enumerate(np.split(projected, 2, axis=1)):
        np.testing.assert_array_equal(product.e_step(X, None).codes[:, number], nearest(part, books[number]))


def test_a_residual_quantises_what_is_left_and_adds_up():
    residual = Residual(CODES, DIM, SETTINGS, depth=3)
    books = place(residual.levels, scale=0.5)
    rest, codes = X.copy(), []
    for book in books:
        codes.append(nearest(rest, book))
        rest = rest - book[codes[-1]]
    output = residual.e_step(X, None, training())
    np.testing.assert_array_equal(output.codes, np.stack(codes, axis=1))
    np.testing.assert_allclose(output.quantized, X - rest, atol=1e-5)
    np.testing.assert_allclose(residual.embed(output.codes), X - rest, atol=1e-5)
    sums = np.cumsum(residual.parts(output.codes), axis=1)
    np.testing.assert_allclose(sums[:, 0], books[0][codes[0]], atol=1e-5)
    error = (np.square(rest).sum(1) / np.square(X).sum(1)).mean()
    np.testing.assert_allclose(output.metrics["quantization_error"].mean, error, rtol=1e-4)


def test_the_gradient_passes_a_residual_once():
    residual = Residual(CODES, DIM, CodebookSettings(norm=None, warmup_steps=0, beta=0.0), depth=3)
    place(residual.levels)
    x, upstream = tf.constant(X), np.random.default_rng(9).normal(size=X.shape).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(residual.e_step(x, None, training()).quantized * upstream)
    np.testing.assert_allclose(tape.gradient(total, x), upstream, atol=1e-6)


def test_a_residual_is_scaled_once():
    residual = Residual(CODES, DIM, CodebookSettings(norm=9.0), depth=2)  # nothing is born: encodings pass
    passed = residual.levels[0].e_step(residual.e_step(X, None).quantized, None).quantized
    np.testing.assert_allclose(tf.reduce_sum(passed**2, -1), np.full(ROWS, 9.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("cls", "parameters", "message"),
    [
        (Product, {"slices": 4}, "slices = 4.*divisor"),
        (Product, {"slices": 0}, "slices = 0"),
        (Product, {"projected": 1}, "projected = 1"),
        (Product, {"base": "product"}, "product.base = 'product'"),
        (Product, {"base": "softem"}, 'unknown bottleneck "softem".*soft_em'),
        (Residual, {"depth": 0}, "depth = 0"),
        (Residual, {"depth": 1.5}, "depth = 1.5"),
        (Residual, {"settings": CodebookSettings(cosine=True)}, "cosine = True"),
    ],
)
def test_errors_name_the_parameter(cls, parameters, message):
    with pytest.raises(UserError, match=message):
        cls(CODES, DIM, **parameters)


def test_composites_that_contain_each_other_are_refused():
    import gin

    with gin.unlock_config():
        gin.bind_parameter("residual.base", "product")
        gin.bind_parameter("product.base", "residual")
    with pytest.raises(UserError, match=r"residual\.base = 'product'"):
        registry.bottlenecks.get("product")(CODES, DIM)


@pytest.mark.parametrize("binding", ["product.base = 'hard_em'", "product.slices = 3"])
def test_a_product_that_a_model_makes_is_not_bound_otherwise(binding):
    gin.parse_config(binding)
    with pytest.raises(UserError, match=f"{binding.split()[0]} is bound"):
        composite.sliced("fsq", 256, 4, 8)
    assert not isinstance(composite.sliced("fsq", 256, 1, 8), composite.Product)
