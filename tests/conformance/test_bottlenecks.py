"""Every registered bottleneck through the same checks; a new one joins by one row of BOTTLENECKS."""

import functools

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import fusion, registry
from t2t_vqem.bottlenecks.bottleneck import BottleneckOutput
from t2t_vqem.context import Draws, Training
from t2t_vqem.training import checkpoints
from t2t_vqem.training.codebook_watch import CodebookWatch

DIM, ROWS, LENGTH = 8, 8, 6
# name[, variant] -> (its own parameters, settings of its codebook)
BOTTLENECKS = {
    "hard_em": ({}, {}),
    "hard_em, cosine": ({}, {"cosine": True}),
    "hard_em, low-dimensional": ({}, {"code_dim": 3}),
    "hard_em, rotation": ({}, {"estimator": "rotation"}),
    "hard_em, entropy": ({}, {"entropy_weight": 0.1}),
    "hard_em, released": ({}, {"init": "released", "decay": 0.9}),
    "adaptive_em": ({"adapt_every": 3, "adapt_until": 6}, {}),
    "fsq": ({"levels": (4, 5)}, {}),
    "gradient_vq": ({}, {}),
    "gradient_vq, sgd": ({"optimizer": "sgd"}, {}),
    "gumbel_softmax": ({}, {}),
    "gumbel_softmax, relaxed": ({"hard": False}, {"final_temperature": 0.5, "anneal_steps": 1000}),
    "lfq": ({}, {"entropy_weight": 0.1}),
    "product": ({}, {}),
    "product, of residuals": ({"base": "residual", "slices": 2}, {}),
    "product, projected": ({"base": "hard_em", "projected": True}, {}),
    "residual": ({"depth": 3}, {}),
    "residual, of semhash": ({"base": "semhash"}, {}),
    "semhash": ({}, {}),
    "simvq": ({}, {}),
    "soft_em": ({"num_samples": 4}, {}),
    "soft_em, annealed": ({"num_samples": 4}, {"final_temperature": 0.1, "anneal_steps": 1000}),
    "soft_em, k-means": ({"num_samples": 4}, {"init": "k_means"}),
    "soft_em, random": ({"num_samples": 4}, {"init": "random"}),
}
X = np.random.default_rng(0).normal(size=(ROWS, LENGTH, DIM)).astype(np.float32)
MASK = np.arange(LENGTH) < np.array([6, 5, 4, 3, 2, 6, 1, 6])[:, None]


def make(name):
    """Returns a new bottleneck of 16 codes, in training from its first step."""
    keras.utils.set_random_seed(4)
    own, settings = BOTTLENECKS[name]
    with gin.unlock_config():
        for key, value in ({"warmup_steps": 0} | settings).items():
            gin.bind_parameter(f"codebook.{key}", value)
    return registry.bottlenecks.get(name.split(",")[0])(16, DIM, **own)


def learn(name, steps=8):
    """Returns a bottleneck after some steps of training."""
    bottleneck = make(name)
    for step in range(steps):
        bottleneck.m_step(bottleneck.e_step(X, MASK, context(step)).statistics)
    return bottleneck


@functools.cache
def learnt(name):
    return state(learn(name))


def trained(name):
    """As `learn`, which it calls once for each name."""
    bottleneck = make(name)
    for weight, value in zip(bottleneck.weights, learnt(name), strict=True):
        weight.assign(value)
    return bottleneck


def context(step=100, rows=range(ROWS)):
    return Training(7, tf.constant(step), tf.constant(list(rows)), ROWS)


def state(bottleneck):
    return [keras.ops.convert_to_numpy(weight) for weight in bottleneck.weights]


def assert_equal(first, second, **tolerance):
    tf.nest.assert_same_structure(first, second)
    for a, b in zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True):
        if tolerance:
            np.testing.assert_allclose(a, b, **tolerance)
        else:
            np.testing.assert_array_equal(a, b)


def test_every_registered_bottleneck_is_here():
    assert sorted({name.split(",")[0] for name in BOTTLENECKS}) == registry.bottlenecks.names()


@pytest.fixture(params=sorted(BOTTLENECKS))
def name(request):
    return request.param


@pytest.mark.parametrize(
    ("shape", "masked"), [((ROWS, DIM), False), ((ROWS, 3, 4, DIM), True)], ids=["flat", "field"]
)
def test_shapes(name, shape, masked):
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    mask = np.ones(shape[:-1], bool) if masked else None
    bottleneck = trained(name)
    for training in (None, context()):
        output = bottleneck.e_step(x, mask, training)
        assert isinstance(output, BottleneckOutput)
        assert output.quantized.shape == shape
        assert output.codes.shape == (*shape[:-1], bottleneck.slots)
        assert output.codes.dtype == tf.int32
        assert output.samples.shape[:-1] == (*shape[:-1], bottleneck.slots)
        assert output.samples.dtype == tf.int32
        assert 0 <= np.min(output.samples) <= np.max(output.samples) < bottleneck.num_codes
        assert float(output.loss.weight) == np.prod(shape[:-1])
        assert all(value.dtype == tf.float32 for value in output.statistics.values())
        assert bool(output.statistics) == (training is not None)
    assert bottleneck.embed(output.codes).shape == shape
    usage = bottleneck.usage()
    assert {"perplexity", "live_codes", "counts"} <= set(usage)
    assert usage["counts"].shape == (bottleneck.slots, bottleneck.num_codes)


def test_gradient_reaches_the_encoder(name):
    bottleneck, x = trained(name), tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = bottleneck.e_step(x, MASK, context())
        total = tf.reduce_sum(tf.sin(output.quantized)) + output.loss.sum
    gradient = tape.gradient(total, x).numpy()
    assert np.all(np.abs(gradient[MASK]).sum(-1) > 0)
    assert not np.any(gradient[~MASK])


def test_the_gradient_alone_is_that_of_eager_mode_in_a_graph(name, monkeypatch):
    """Without the statistics, as a step tries a batch; with positions that fall into no even tiles."""
    monkeypatch.setattr(fusion, "_TILE", 100 * DIM)
    bottleneck, length = trained(name), 163
    x = tf.random.stateless_normal([ROWS, length, DIM], [0, 1])
    mask = tf.sequence_mask([length, 1, 40, 162, 100, length, 3, 90], length)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = bottleneck.e_step(x, mask, context())
            total = tf.reduce_sum(tf.sin(output.quantized)) + output.loss.sum
        return tape.gradient(total, x)

    assert_equal(tf.function(gradient, autograph=False)(x), gradient(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("junk", [-3.0, 1e30])
def test_masked_positions_change_nothing(name, junk):
    bottleneck = trained(name)

    def run(x):
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = bottleneck.e_step(x, MASK, context())
            total = tf.reduce_sum(tf.sin(output.quantized)) + output.loss.sum
        return output, tape.gradient(total, x)

    assert_equal(run(X), run(np.where(MASK[..., None], X, np.float32(junk))))


def test_statistics_of_parts_add_to_those_of_the_whole(name):
    bottleneck = trained(name)
    whole = bottleneck.e_step(X, MASK, context())
    parts = [
        bottleneck.e_step(X[rows], MASK[rows], context(rows=rows))
        for rows in (np.arange(0, 4), np.arange(4, 6), np.arange(6, 8))
    ]
    np.testing.assert_array_equal(whole.samples, np.concatenate([part.samples for part in parts]))
    np.testing.assert_allclose(
        whole.quantized, np.concatenate([part.quantized for part in parts]), rtol=1e-5, atol=1e-6
    )
    for field in ("statistics", "loss", "metrics"):
        total = tf.nest.map_structure(lambda *terms: sum(terms), *(getattr(part, field) for part in parts))
        assert_equal(getattr(whole, field), total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_jit_compile(name, training):
    bottleneck = trained(name)

    def run(x, mask):
        return bottleneck.e_step(x, mask, context() if training else None)

    plain, compiled = run(X, MASK), tf.function(run, jit_compile=True)(X, MASK)
    assert_equal(plain, compiled, rtol=1e-4, atol=1e-5)


def test_a_graph_of_unknown_batch_size(name):
    bottleneck = trained(name)
    signature = [tf.TensorSpec([None, None, DIM]), tf.TensorSpec([None, None], tf.bool)]
    graph = tf.function(lambda x, mask: bottleneck.e_step(x, mask), input_signature=signature)
    assert_equal(bottleneck.e_step(X, MASK), graph(X, MASK), rtol=1e-5, atol=1e-5)


def test_bfloat16_input_is_quantised_in_float32(name):
    bottleneck = trained(name)
    x = tf.cast(X, tf.bfloat16)
    output, exact = (bottleneck.e_step(value, MASK, context()) for value in (x, tf.cast(x, tf.float32)))
    assert output.quantized.dtype == tf.bfloat16
    assert all(weight.dtype == "float32" for weight in bottleneck.weights)
    assert_equal(output._replace(quantized=tf.cast(exact.quantized, tf.bfloat16)), output)
    assert_equal(output._replace(quantized=exact.quantized), exact)


def test_checkpoint_round_trip(name, tmp_path):
    bottleneck = trained(name)
    path = tf.train.Checkpoint(**checkpoints.state(bottleneck=bottleneck)).write(str(tmp_path / "checkpoint"))
    other = make(name)
    assert not all(np.array_equal(a, b) for a, b in zip(state(bottleneck), state(other), strict=True))
    tf.train.Checkpoint(**checkpoints.state(bottleneck=other)).read(path).assert_consumed()
    assert_equal(state(bottleneck), state(other))
    assert_equal(bottleneck.e_step(X, MASK, context()), other.e_step(X, MASK, context()))


def test_saved_model(name, tmp_path):
    """As an export holds it: evaluation of any batch, by a graph alone."""
    module = tf.Module()
    module.bottleneck = bottleneck = trained(name)
    signature = [tf.TensorSpec([None, None, DIM]), tf.TensorSpec([None, None], tf.bool)]
    module.quantise = tf.function(
        lambda x, mask: bottleneck.e_step(x, mask)[:2], input_signature=signature, autograph=False
    )
    module.variables_of = [weight.value for weight in bottleneck.weights]  # Keras hides those in lists
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    assert_equal(tuple(loaded.quantise(X, MASK)), bottleneck.e_step(X, MASK)[:2], rtol=1e-5, atol=1e-5)


def test_only_the_m_step_moves_anything(name):
    bottleneck = trained(name)
    before = state(bottleneck)
    bottleneck.e_step(X, MASK)
    statistics = bottleneck.e_step(X, MASK, context()).statistics
    assert_equal(before, state(bottleneck))
    bottleneck.m_step(statistics)
    assert not all(np.array_equal(a, b) for a, b in zip(before, state(bottleneck), strict=True))


def test_evaluation_needs_no_neighbours(name):
    bottleneck = trained(name)
    whole = bottleneck.e_step(X, MASK)
    alone = bottleneck.e_step(X[2:3], MASK[2:3])
    np.testing.assert_array_equal(whole.codes[2:3], alone.codes)


def test_draws_of_codes_belong_to_the_row(name):
    bottleneck = trained(name)

    def draw(x, rows, seed=0):
        return bottleneck.draw(x, Draws(seed, tf.constant(0), tf.constant(rows)))

    whole, rows = draw(X, range(ROWS)), [5, 2]
    assert whole.codes.shape == whole.entropy.shape == (ROWS, LENGTH, bottleneck.slots)
    assert 0 <= np.min(whole.codes) <= np.max(whole.codes) < bottleneck.num_codes
    np.testing.assert_array_equal(draw(X[rows], rows).codes, whole.codes.numpy()[rows])
    if bottleneck.stochastic:
        assert not np.array_equal(whole.codes, draw(X, range(ROWS), seed=1).codes)
    else:
        np.testing.assert_array_equal(whole.codes, bottleneck.e_step(X, None).codes)
        assert not np.any(whole.entropy)


def test_the_entropy_is_that_of_many_draws(name):
    bottleneck, many = trained(name), 20_000
    entropy = tf.reduce_sum(bottleneck.draw(X, Draws(0, tf.constant(0), tf.range(ROWS))).entropy, axis=-1)
    unsure = X[np.unravel_index(np.argmax(entropy), entropy.shape)]
    drawn = bottleneck.draw(np.tile(unsure, [many, 1, 1]), Draws(3, tf.constant(0), tf.range(many)))
    _, counts = np.unique(drawn.codes.numpy().reshape(many, -1), axis=0, return_counts=True)
    told = float(tf.reduce_mean(tf.reduce_sum(drawn.entropy, axis=-1)))
    shares = counts / many
    bias = (len(counts) - 1) / (2 * many)  # of an entropy of counts (Miller 1955)
    assert -np.sum(shares * np.log(shares)) + bias == pytest.approx(told, abs=0.03)
    assert (told > 0.1) == bottleneck.stochastic


def test_a_uniform_prior_is_none_and_a_strong_one_decides(name):
    bottleneck = trained(name)
    uniform = tf.zeros([ROWS, LENGTH, bottleneck.num_codes])
    if not bottleneck.takes_prior:
        with pytest.raises(TypeError, match="log_prior"):
            bottleneck.e_step(X, MASK, context(), log_prior=uniform)
        return
    assert_equal(bottleneck.e_step(X, MASK, context(), uniform), bottleneck.e_step(X, MASK, context()))
    code = int(bottleneck.e_step(X, MASK).codes[0, 0, 0])
    strong = uniform + 1e4 * tf.one_hot(code, bottleneck.num_codes)
    assert np.all(bottleneck.e_step(X, MASK, context(), strong).samples.numpy()[MASK] == code)


def test_training_is_deterministic(name):
    assert_equal(state(learn(name)), learnt(name))


@pytest.mark.parametrize("jit", [False, True])
def test_two_replicas_learn_the_codebook_of_one(name, jit):
    devices = tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        pytest.skip("one logical CPU device; tests/conftest.py makes two")
    strategy = tf.distribute.MirroredStrategy([device.name for device in devices[:2]])
    with strategy.scope():
        bottleneck = make(name)

    @tf.function(jit_compile=jit)
    def compute(x, mask, first, step):
        training = Training(7, step, first[0] + tf.range(ROWS // 2), ROWS)
        return bottleneck.e_step(x, mask, training).statistics

    @tf.function
    def train(xs, masks, firsts, step):
        # A plain function around it: given a compiled one, run() would compile both replicas as one program.
        statistics = strategy.run(lambda *arguments: compute(*arguments), (xs, masks, firsts, step))
        bottleneck.m_step(strategy.reduce("SUM", statistics, axis=None))

    def split(value):
        halves = tf.split(tf.constant(value), 2)
        return strategy.experimental_distribute_values_from_function(
            lambda replica: halves[replica.replica_id_in_sync_group]
        )

    firsts = split(np.array([0, ROWS // 2], np.int32))
    for step in range(8):
        train(split(X), split(MASK), firsts, tf.constant(step))
    one = trained(name)
    for a, b in zip(state(one), state(bottleneck), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for weight in bottleneck.weights:
        replicas = strategy.experimental_local_results(weight.value)
        assert len(replicas) == 2
        np.testing.assert_array_equal(replicas[0], replicas[1])


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_training_can_watch_it(name):
    bottleneck = trained(name)
    watch = CodebookWatch({"latents": bottleneck}, alarm=0.1, quiet_steps=0)
    figures = [watch.look(step)["latents"] for step in (10, 20)]
    assert 0 < float(figures[0]["perplexity_per_code"]) <= 1
    assert figures[1]["movement"] == 0.0
    assert figures[1]["alarm"] in (0.0, 1.0)
