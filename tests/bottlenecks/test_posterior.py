"""The E-step in tiles of positions, and the products with memberships, against the same untiled and dense."""

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import fusion
from t2t_vqem.bottlenecks import membership
from t2t_vqem.bottlenecks import posterior as posteriors
from t2t_vqem.bottlenecks.em import HardEM, SoftEM
from t2t_vqem.bottlenecks.posterior import posterior
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.context import Training

DIM, CODES, M = 8, 30, 5


def normal(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).uniform(2**-24, 1 - 2**-24, size=shape).astype(np.float32)


def how(function, kind, arguments):
    """Calls `function` eagerly, in a graph or compiled by XLA, with the batch size known or not."""
    if kind == "eager":
        return function(*arguments)
    signature = None
    if "unknown" in kind:
        signature = [tf.TensorSpec([None, *np.shape(argument)[1:]], argument.dtype) for argument in arguments]
    return tf.function(function, jit_compile="xla" in kind, input_signature=signature)(*arguments)


KINDS = ["eager", "graph", "graph, unknown", "xla", "xla, unknown"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positions", [1, 7, 8, 23])
def test_tiles_change_nothing(kind, positions, monkeypatch):
    x, places = normal(positions, DIM, scale=0.7), normal(CODES, DIM, seed=1, scale=0.7)
    draws, born = uniform(positions, M), np.arange(CODES) % 4 != 1

    def soft(x, draws):
        return posterior(x, places, born, 0.7, draws)

    def hard(x):
        return posterior(x, places, born, 0.7, None)

    whole = soft(x, draws), hard(x)
    monkeypatch.setattr(posteriors, "TILE", 4)
    tiled = how(soft, kind, [x, draws]), how(hard, kind, [x])
    exact = np.where(born, np.square(x[:, None] - places).sum(-1), np.inf)
    for before, after in zip(whole, tiled, strict=True):
        np.testing.assert_array_equal(after.codes, exact.argmin(-1))
        np.testing.assert_array_equal(after.codes, before.codes)
        np.testing.assert_array_equal(after.samples, before.samples)
        np.testing.assert_allclose(after.effective_codes, before.effective_codes, rtol=1e-5)
        assert born[after.samples.numpy()].all()
    np.testing.assert_array_equal(tiled[1].samples, tiled[1].codes[:, None])
    if "unknown" not in kind:
        assert tiled[0].samples.shape == (positions, M)


@pytest.mark.parametrize("living", [CODES, 1, 0])
def test_the_gap_between_rows_holds_no_code(living, monkeypatch):
    x, places, draws = normal(9, DIM), normal(CODES, DIM, seed=1), uniform(9, M)
    born = np.arange(CODES) < living
    without = posterior(x, places, born, 50.0, draws)
    widths = []
    product = posteriors._negative_distances
    monkeypatch.setattr(posteriors, "_ALIASED", CODES // 2)
    monkeypatch.setattr(
        posteriors, "_negative_distances", lambda *a: widths.append(a[1].shape[0]) or product(*a)
    )
    beside = posterior(x, places, born, 50.0, draws)
    assert widths == [CODES + 64]
    np.testing.assert_array_equal(beside.codes, without.codes)
    np.testing.assert_array_equal(beside.samples, without.samples)
    np.testing.assert_allclose(beside.effective_codes, without.effective_codes, rtol=1e-5)


@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_prior_weighs_the_codes_of_each_position(kind, gap, monkeypatch):
    monkeypatch.setattr(posteriors, "TILE", 4)
    monkeypatch.setattr(posteriors, "_ALIASED", CODES // 2 if gap else 2 * CODES)
    x, places = normal(9, DIM, scale=0.7), normal(CODES, DIM, seed=1, scale=0.7)
    log_prior, draws, born = normal(9, CODES, seed=2, scale=3.0), uniform(9, 4000), np.arange(CODES) % 4 != 1

    def find(x, draws, log_prior):
        return posterior(x, places, born, 0.7, draws, log_prior)

    found = how(find, kind, [x, draws, log_prior])
    distances = np.where(born, np.square(x[:, None] - places).sum(-1), np.inf)
    exact = np.exp(log_prior - distances / 0.7)
    exact /= exact.sum(-1, keepdims=True)
    np.testing.assert_array_equal(found.codes, exact.argmax(-1))
    assert np.any(found.codes != distances.argmin(-1))
    entropy = -np.where(exact > 0, exact * np.log(exact + 1e-30), 0.0).sum(-1)
    np.testing.assert_allclose(found.effective_codes, np.exp(entropy), rtol=1e-3)
    shares = np.mean(found.samples.numpy()[..., None] == np.arange(CODES), axis=1)
    np.testing.assert_allclose(shares, exact, atol=0.03)


def test_an_empty_batch_in_a_graph_of_unknown_size():
    def find(x, draws):
        return posterior(x, normal(CODES, DIM), np.ones(CODES, bool), 1.0, draws)

    found = how(find, "graph, unknown", [normal(0, DIM), uniform(0, M)])
    assert found.samples.shape == (0, M)


@pytest.mark.parametrize("jit", [False, True])
def test_samples_of_tiles_follow_the_posterior(jit, monkeypatch):
    monkeypatch.setattr(posteriors, "TILE", 256)
    kinds, repeats = 3, 4000
    different, places = normal(kinds, DIM, scale=0.6), normal(CODES, DIM, seed=1, scale=0.6)
    born = np.arange(CODES) != 3
    x, draws = np.tile(different, (repeats, 1)), uniform(kinds * repeats, M)
    find = tf.function(lambda x, draws: posterior(x, places, born, 0.5, draws), jit_compile=jit)
    samples = find(x, draws).samples.numpy().reshape(repeats, kinds, M)
    logits = np.where(born, -np.square(different[:, None].astype(np.float64) - places).sum(-1) / 0.5, -np.inf)
    exact = np.exp(logits - logits.max(-1, keepdims=True))
    exact /= exact.sum(-1, keepdims=True)
    assert (np.exp(-np.where(exact > 0, exact * np.log(exact + 1e-300), 0).sum(-1)) > 3).all()  # truly soft
    for kind in range(kinds):
        expected = exact[kind] * repeats * M
        counts = np.bincount(samples[:, kind].ravel(), minlength=CODES)
        frequent = expected > 5
        freedom = frequent.sum() - 1
        chi_square = (np.square(counts - expected)[frequent] / expected[frequent]).sum()
        assert chi_square < freedom + 4.5 * np.sqrt(2 * freedom) + 8, (kind, chi_square, freedom)
        assert counts[3] == 0


def sizes(graph):
    """Yields name, and number of elements of each tensor in `graph` and the functions that it calls."""
    for operation in graph.get_operations():
        for output in operation.outputs:
            if output.shape.is_fully_defined():
                yield f"{operation.name} {output.shape}", output.shape.num_elements()
        for name in operation.node_def.attr.values():
            if name.func.name:
                yield from sizes(graph._get_function(name.func.name).graph)


@pytest.mark.parametrize("make", [HardEM, lambda *given: SoftEM(*given, num_samples=M)])
def test_no_tensor_is_larger_than_the_encodings(make, monkeypatch):
    monkeypatch.setattr(posteriors, "TILE", 50)
    monkeypatch.setattr(fusion, "_TILE", 50 * DIM)
    rows, codes = 1000, 64
    bottleneck = make(codes, DIM, CodebookSettings(init="random", warmup_steps=0))

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = bottleneck.e_step(x, None, Training(0, tf.constant(1), tf.range(rows), rows))
            loss = tf.reduce_sum(tf.sin(output.quantized)) + output.loss.sum
        bottleneck.m_step(output.statistics)
        return tape.gradient(loss, x)

    found = list(sizes(step.get_concrete_function(tf.TensorSpec([rows, DIM])).graph))
    assert any("MatMul" in name for name, _ in found)  # those of the tiles are seen
    assert max(size for _, size in found) == rows * DIM, [name for name, size in found if size > rows * DIM]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("m", [1, M])
def test_products_with_memberships_and_their_gradients(kind, m):
    positions = 11
    samples = np.random.default_rng(0).integers(0, CODES, [positions, m], np.int32)
    places, values = tf.constant(normal(CODES, DIM)), normal(positions, DIM, seed=1)
    dense = np.eye(CODES, dtype=np.float32)[samples].mean(1)

    def run(samples, values):
        with tf.GradientTape() as tape:
            tape.watch(places)
            means = membership.means(samples, places)
            total = tf.reduce_sum(means * values)
        dropped = tf.where(tf.range(tf.shape(samples)[0])[:, None] < 4, -1, samples)
        return means, tape.gradient(total, places), membership.sums(dropped, values, CODES)

    means, gradient, sums = how(run, kind, [samples, values])
    np.testing.assert_allclose(means, dense @ places, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, dense.T @ values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sums, dense[4:].T @ values[4:], rtol=1e-5, atol=1e-6)
