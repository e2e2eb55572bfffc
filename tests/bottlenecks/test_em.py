"""E-step and M-step of hard and soft EM against closed forms."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.bottlenecks.em import HardEM, SoftEM
from t2t_vqem.bottlenecks.posterior import sample
from t2t_vqem.bottlenecks.settings import CodebookSettings as Settings
from t2t_vqem.context import Draws, Training
from t2t_vqem.errors import UserError

DIM = 8
ROWS, LENGTH = 8, 5


def training(step=10**6, *, seed=3, rows=range(ROWS), global_rows=ROWS):
    return Training(seed, tf.constant(step), tf.constant(list(rows)), global_rows)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def place(bottleneck, means, count=1.0):
    """Gives `bottleneck` born codes at `means` [codes, dim], each with `count` positions a step."""
    book = bottleneck.codebook
    book.means.assign(means)
    book.counts.assign(np.full(len(means), count, np.float32))
    book.sums.assign(count * np.asarray(means))
    return bottleneck


def posterior(x, means, temperature=1.0):
    distances = np.square(x[:, None, :].astype(np.float64) - means[None]).sum(-1) / temperature
    weights = np.exp(distances.min(-1, keepdims=True) - distances)
    return weights / weights.sum(-1, keepdims=True)


def state(bottleneck):
    return [weight.numpy() for weight in bottleneck.weights]


def test_codes_are_drawn_at_the_temperature_of_evaluation():
    means, points = normal(6, DIM, seed=1), normal(1, DIM)
    settings = Settings(norm=None, temperature=50.0, final_temperature=5.0, anneal_steps=100)
    soft, many = place(SoftEM(6, DIM, settings), means), 20_000
    drawn = soft.draw(np.tile(points, [many, 1]), Draws(0, tf.constant(0), tf.range(many)))
    expected = posterior(points, means, temperature=5.0)[0]
    np.testing.assert_allclose(np.bincount(drawn.codes[:, 0], minlength=6) / many, expected, atol=0.01)
    np.testing.assert_allclose(drawn.entropy, -np.sum(expected * np.log(expected)), rtol=1e-4)


def test_before_a_code_is_born_none_is_drawn():
    drawn = SoftEM(6, DIM).draw(normal(ROWS, DIM), training())
    assert not np.any(drawn.codes)
    assert not np.any(drawn.entropy)


def test_hard_em_without_memory_is_one_step_of_k_means():
    points = normal(ROWS, LENGTH, DIM)
    means = normal(6, DIM, seed=1)
    means[4] = 100.0  # no point is near: k-means leaves an empty cluster where it is
    bottleneck = place(
        HardEM(6, DIM, Settings(norm=None, decay=0.0, revival_threshold=0.0, warmup_steps=0)), means
    )
    output = bottleneck.e_step(points, None, training())
    bottleneck.m_step(output.statistics)

    flat = points.reshape(-1, DIM)
    nearest = np.square(flat[:, None] - means[None]).sum(-1).argmin(-1)
    expected = [flat[nearest == k].mean(0) if (nearest == k).any() else means[k] for k in range(6)]
    np.testing.assert_array_equal(output.codes.numpy().reshape(-1), nearest)
    np.testing.assert_allclose(bottleneck.embed(tf.range(6)[:, None]), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.quantized, means[nearest].reshape(points.shape), atol=1e-5)


def test_soft_statistics_approach_the_posterior_as_one_over_the_root_of_m():
    points, means = normal(ROWS, LENGTH, DIM) * 0.7, normal(16, DIM, seed=1) * 0.7
    flat = points.reshape(-1, DIM).astype(np.float64)
    exact = posterior(flat, means)
    assert np.exp(-(exact * np.log(exact)).sum(-1)).mean() > 3  # truly soft, else this shows nothing
    spread = exact * (1 - exact)  # variance of one draw
    errors = {}
    for m in (1, 16, 256, 4096):
        bottleneck = place(SoftEM(16, DIM, Settings(norm=None, warmup_steps=0), num_samples=m), means)
        statistics = bottleneck.e_step(points, None, training()).statistics
        counts = (statistics["counts"] - exact.sum(0)) / np.sqrt(spread.sum(0) / m)
        sums = (statistics["sums"] - exact.T @ flat) / np.sqrt(spread.T @ flat**2 / m)
        for deviation in (counts.numpy(), sums.numpy()):
            assert np.abs(deviation).max() < 4.5, m  # in standard deviations
            assert 0.4 < np.square(deviation).mean() < 2.0, m
        errors[m] = np.abs(statistics["counts"] - exact.sum(0)).mean()
    assert 64 / 2 < errors[1] / errors[4096] < 64 * 2  # the root of 4096


def test_soft_quantized_is_the_mean_of_the_samples():
    means = normal(16, DIM, seed=1)
    bottleneck = place(SoftEM(16, DIM, Settings(norm=None, warmup_steps=0), num_samples=4), means)
    output = bottleneck.e_step(normal(ROWS, LENGTH, DIM), None, training())
    assert output.samples.shape == (ROWS, LENGTH, 1, 4)
    np.testing.assert_allclose(output.quantized, means[output.samples.numpy()[..., 0, :]].mean(-2), atol=1e-5)


def test_soft_em_of_low_temperature_is_hard_em():
    points, means = normal(ROWS, LENGTH, DIM), normal(16, DIM, seed=1)
    hard = place(HardEM(16, DIM, Settings(warmup_steps=0)), means).e_step(points, None, training())
    soft = place(SoftEM(16, DIM, Settings(temperature=1e-4, warmup_steps=0)), means).e_step(
        points, None, training()
    )
    np.testing.assert_array_equal(soft.samples, tf.repeat(hard.samples, 10, axis=-1))
    for name, value in hard.statistics.items():
        if not name.startswith("candidate"):
            np.testing.assert_allclose(soft.statistics[name], value, rtol=1e-5, atol=1e-5)


def test_hard_and_soft_differ_in_num_samples_alone():
    hard, soft = (dict(inspect.signature(cls).parameters) for cls in (HardEM, SoftEM))
    del soft["num_samples"]
    assert hard == soft


@pytest.mark.parametrize("cls", [HardEM, SoftEM])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_effective_codes_are_the_exponential_of_the_posteriors_entropy(cls, temperature):
    points, means = normal(ROWS, LENGTH, DIM) * 0.5, normal(16, DIM, seed=1) * 0.5
    mask = np.arange(LENGTH) < 3 + np.zeros((ROWS, 1))
    bottleneck = place(cls(16, DIM, Settings(norm=None, temperature=temperature)), means)
    exact = posterior(points[mask], means, temperature)
    expected = np.exp(-(exact * np.log(exact)).sum(-1))
    for context in (None, training()):
        term = bottleneck.e_step(points, mask, context).metrics["effective_codes"]
        assert float(term.weight) == mask.sum()
        np.testing.assert_allclose(term.mean, expected.mean(), rtol=1e-4)


@pytest.mark.parametrize("cls", [HardEM, SoftEM])
def test_gradient_is_straight_through_plus_commitment(cls):
    points, means, upstream = (
        tf.constant(normal(ROWS, LENGTH, DIM)),
        normal(16, DIM, seed=1),
        normal(ROWS, LENGTH, DIM, seed=2),
    )
    mask = np.arange(LENGTH) < 3 + np.zeros((ROWS, 1))
    bottleneck = place(cls(16, DIM, Settings(norm=None, beta=0.5, warmup_steps=0)), means)
    with tf.GradientTape() as tape:
        tape.watch(points)
        output = bottleneck.e_step(points, mask, training())
        total = tf.reduce_sum(output.quantized * upstream) + output.loss.sum
    difference = (points - output.quantized).numpy() * mask[..., None]
    expected = upstream * mask[..., None] + 0.5 * 2 / DIM * difference
    np.testing.assert_allclose(tape.gradient(total, points), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.loss.sum, 0.5 * np.square(difference).mean(-1).sum(), rtol=1e-4)
    assert float(output.loss.weight) == mask.sum()


def test_norm_sets_the_squared_norm_and_forgets_the_scale():
    points = tf.constant(normal(ROWS, LENGTH, DIM))
    bottleneck = SoftEM(16, DIM, Settings(norm=9.0))  # nothing born: encodings pass through
    passed = bottleneck.e_step(points, None).quantized
    np.testing.assert_allclose(tf.reduce_sum(passed**2, -1), np.full((ROWS, LENGTH), 9.0), rtol=1e-5)
    np.testing.assert_allclose(passed, bottleneck.e_step(50.0 * points, None).quantized, rtol=1e-5)
    place(bottleneck, normal(16, DIM, seed=1))
    with tf.GradientTape() as tape:
        tape.watch(points)
        output = bottleneck.e_step(points, None, training())
        total = tf.reduce_sum(output.quantized * normal(ROWS, LENGTH, DIM, seed=2)) + output.loss.sum
    gradient = tape.gradient(total, points)
    assert np.abs(gradient).max() > 0.1
    np.testing.assert_allclose(tf.reduce_sum(gradient * points, -1), np.zeros((ROWS, LENGTH)), atol=1e-4)


@pytest.mark.parametrize("cls", [HardEM, SoftEM])
def test_evaluation_is_the_argmin(cls):
    points, means = normal(ROWS, LENGTH, DIM), normal(16, DIM, seed=1)
    bottleneck = place(cls(16, DIM, Settings(norm=None)), means)  # its warm-up is no concern of evaluation
    before = state(bottleneck)
    output = bottleneck.e_step(points, None)
    nearest = np.square(points[..., None, :] - means).sum(-1).argmin(-1)
    np.testing.assert_array_equal(output.codes, nearest[..., None])
    np.testing.assert_array_equal(output.samples, nearest[..., None, None])
    np.testing.assert_allclose(output.quantized, means[nearest], atol=1e-5)
    assert output.statistics == {}
    assert all(np.array_equal(a, b) for a, b in zip(before, state(bottleneck), strict=True))


@pytest.mark.parametrize("cls", [HardEM, SoftEM])
def test_codes_are_born_from_data(cls):
    points = normal(ROWS, LENGTH, DIM)
    mask = np.arange(LENGTH) < 3 + np.zeros((ROWS, 1))
    bottleneck = cls(16, DIM, Settings(norm=None, warmup_steps=0))
    first = bottleneck.e_step(points, mask, training(0))
    np.testing.assert_allclose(first.quantized, points * mask[..., None])
    assert not np.any(first.codes)
    assert not np.any(first.statistics["counts"])
    assert float(first.metrics["effective_codes"].weight) == 0.0
    bottleneck.m_step(first.statistics)
    born = bottleneck.codebook.born().numpy()
    assert 2 <= born.sum() < 16
    distances = np.square(bottleneck.codebook.means.numpy()[born][:, None] - points[mask][None]).sum(-1)
    np.testing.assert_allclose(distances.min(-1), np.zeros(born.sum()), atol=1e-9)  # each is an encoding
    np.testing.assert_allclose(bottleneck.codebook.counts.numpy()[born], np.full(born.sum(), mask.sum() / 16))
    second = bottleneck.e_step(points, mask, training(1))
    assert born[second.samples.numpy()[mask]].all()  # an unborn code is never chosen
    for step in range(1, 12):
        bottleneck.m_step(bottleneck.e_step(points, mask, training(step)).statistics)
    assert bottleneck.codebook.born().numpy().all()


def test_a_codebook_follows_encodings_that_move():
    means = 3.0 * normal(4, DIM, seed=1)
    bottleneck = place(
        HardEM(4, DIM, Settings(norm=None, revival_threshold=0.0, warmup_steps=0)), means, count=10.0
    )
    for step in range(100):
        points = means[np.arange(ROWS * LENGTH) % 4].reshape(ROWS, LENGTH, DIM) * (1 + 0.05 * step)
        output = bottleneck.e_step(points + 0.1 * normal(*points.shape, seed=step), None, training(step))
        bottleneck.m_step(output.statistics)
    error = output.metrics["quantization_error"].mean
    assert float(error) < 0.05, float(error)  # decay .99 from the start would lag by half of the way


@pytest.mark.parametrize("cls", [HardEM, SoftEM])
def test_during_the_warm_up_the_decoder_reads_the_encodings_and_the_codebook_learns(cls):
    points = normal(ROWS, LENGTH, DIM)
    bottleneck = place(cls(16, DIM, Settings(norm=None, warmup_steps=100)), normal(16, DIM, seed=1))
    warm, done = (bottleneck.e_step(points, None, training(step)) for step in (99, 100))
    np.testing.assert_array_equal(warm.quantized, points)
    assert float(warm.loss.sum) == 0.0
    assert float(warm.loss.weight) == ROWS * LENGTH
    assert np.isclose(tf.reduce_sum(warm.statistics["counts"]), ROWS * LENGTH)
    assert float(done.loss.sum) > 0.0
    assert np.abs(done.quantized - points).max() > 0.1
    assert np.abs(bottleneck.e_step(points, None).quantized - points).max() > 0.1


def test_draws_depend_on_seed_and_step_alone():
    points = normal(ROWS, LENGTH, DIM)
    bottleneck = place(SoftEM(16, DIM, Settings(warmup_steps=0)), normal(16, DIM, seed=1))
    first, again, other_step, other_seed = (
        bottleneck.e_step(points, None, training(step, seed=seed)).samples.numpy()
        for seed, step in ((1, 5), (1, 5), (1, 6), (2, 5))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other_step)
    assert not np.array_equal(first, other_seed)


def test_a_batch_of_padding_does_no_harm():
    bottleneck = place(SoftEM(16, DIM, Settings(warmup_steps=0)), normal(16, DIM, seed=1), count=2.0)
    means = bottleneck.embed(tf.range(16)[:, None]).numpy()
    output = bottleneck.e_step(normal(ROWS, LENGTH, DIM), np.zeros((ROWS, LENGTH), bool), training())
    bottleneck.m_step(output.statistics)
    assert float(output.loss.sum) == 0.0
    assert not np.any(output.quantized)
    np.testing.assert_allclose(bottleneck.embed(tf.range(16)[:, None]), means, rtol=1e-5)


def test_the_quantiser_is_float32_inside_a_bfloat16_model():
    points = tf.cast(normal(ROWS, LENGTH, DIM), tf.bfloat16)
    means = normal(16, DIM, seed=1)

    class Model(keras.layers.Layer):
        def __init__(self):
            super().__init__(dtype="mixed_bfloat16")
            self.bottleneck = place(HardEM(16, DIM, Settings(norm=None, warmup_steps=0)), means)

        def call(self, x):
            return self.bottleneck.e_step(x, None, training())

    exact = place(HardEM(16, DIM, Settings(norm=None, warmup_steps=0)), means).e_step(
        tf.cast(points, tf.float32), None, training()
    )
    output = Model()(points)
    assert output.quantized.dtype == tf.bfloat16
    np.testing.assert_array_equal(output.codes, exact.codes)
    for name, value in output.statistics.items():
        assert value.dtype == tf.float32
        np.testing.assert_array_equal(value, exact.statistics[name])
    np.testing.assert_array_equal(output.quantized, tf.cast(exact.quantized, tf.bfloat16))


@pytest.mark.parametrize("num_codes", [2, 7, 64, 513, 1500])
@pytest.mark.parametrize("jit", [False, True])
def test_samples_follow_their_distribution(num_codes, jit):
    generator = np.random.default_rng(num_codes)
    weights = np.exp(1.5 * generator.normal(size=(4, num_codes))).astype(np.float32)
    weights[1, ::2] = 0.0
    weights[2] *= 1e-20  # the weights need not add to 1
    m = 40_000
    draws = generator.uniform(2**-24, 1 - 2**-24, size=(4, m)).astype(np.float32)
    samples = tf.function(sample, jit_compile=jit)(weights, draws).numpy()
    for row in range(4):
        expected = weights[row].astype(np.float64) / weights[row].sum(dtype=np.float64) * m
        counts = np.bincount(samples[row], minlength=num_codes)
        assert not counts[weights[row] == 0].any()
        frequent = expected > 5
        freedom = max(frequent.sum() - 1, 1)
        chi_square = (np.square(counts - expected) / np.where(frequent, expected, 1.0))[frequent].sum()
        assert chi_square < freedom + 4.5 * np.sqrt(2 * freedom) + 8, (row, chi_square, freedom)


@pytest.mark.parametrize("num_codes", [2, 5, 512, 1000, 40_000])
def test_samples_always_have_weight(num_codes):
    draws = np.array([2.0**-24, 0.1, 0.5, 1 - 2.0**-24], np.float32)
    samplers = [tf.function(sample, jit_compile=jit) for jit in (False, True)]
    for positive in ([0], [num_codes - 1], [0, num_codes - 1], [num_codes // 2]):
        for scale in (1e-26, 1.0, 3e30):
            weights = np.zeros((1, num_codes), np.float32)
            weights[0, positive] = scale
            for sampler in samplers:
                samples = sampler(tf.constant(weights), tf.constant(draws[None])).numpy()
                assert set(samples.ravel()) <= set(positive)
                assert set(samples.ravel()[[0, 3]]) == {positive[0], positive[-1]}
    tiny = np.full((1, num_codes), 1e-26, np.float32)  # below the rounding of the largest
    tiny[0, 1] = 1.0
    assert (sample(tiny, draws[None]).numpy() == 1).all()


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("num_codes", 1),
        ("dim", 0),
        ("num_samples", 0),
        ("temperature", 0.0),
        ("temperature", "warm"),
        ("final_temperature", -1.0),
        ("anneal_steps", -1),
        ("decay", 1.0),
        ("decay", -0.1),
        ("beta", -0.1),
        ("entropy_weight", -0.1),
        ("revival_threshold", 1.0),
        ("revival_threshold", -0.1),
        ("norm", 0.0),
        ("norm", "x"),
        ("code_dim", 0),
        ("cosine", 1),
        ("init", "kmeans"),
        ("estimator", "ste"),
        ("warmup_steps", -1),
    ],
)
def test_errors_name_the_parameter(parameter, value):
    own = parameter in ("num_codes", "dim", "num_samples")
    make, arguments = (SoftEM, {"num_codes": 16, "dim": DIM}) if own else (Settings, {})
    with pytest.raises(UserError, match=f"{parameter} = {value!r}"):
        make(**arguments | {parameter: value})


def test_cosine_codes_need_a_norm():
    with pytest.raises(UserError, match="norm = None"):
        Settings(norm=None, cosine=True)


def test_cosine_takes_the_code_of_the_least_angle_and_keeps_codes_on_the_sphere():
    points, means = normal(ROWS, LENGTH, DIM), normal(16, DIM, seed=1)
    means *= np.sqrt(4.0) / np.linalg.norm(means, axis=1, keepdims=True)
    settings = Settings(norm=4.0, cosine=True, decay=0.5, revival_threshold=0.0, warmup_steps=0)
    bottleneck = place(HardEM(16, DIM, settings), means)
    output = bottleneck.e_step(points, None, training())
    np.testing.assert_array_equal(output.codes[..., 0], (points @ means.T).argmax(-1))
    bottleneck.m_step(output.statistics)
    moved = bottleneck.codebook.means.numpy()
    np.testing.assert_allclose(np.square(moved).sum(1), np.full(16, 4.0), rtol=1e-4)
    assert np.abs(moved - means).max() > 0.1


def test_codes_of_few_dimensions_are_found_and_averaged_there():
    bottleneck = HardEM(16, DIM, Settings(norm=None, code_dim=2, warmup_steps=0))
    place(bottleneck, normal(16, 2, seed=1))
    points = normal(ROWS, LENGTH, DIM)
    output = bottleneck.e_step(points, None, training())
    small = points @ bottleneck.project_in.kernel.numpy()
    nearest = np.square(small[..., None, :] - bottleneck.codebook.means.numpy()).sum(-1).argmin(-1)
    np.testing.assert_array_equal(output.codes[..., 0], nearest)
    expected = bottleneck.codebook.means.numpy()[nearest] @ bottleneck.project_out.kernel.numpy()
    np.testing.assert_allclose(output.quantized, expected, atol=1e-5)
    assert output.statistics["sums"].shape == (16, 2)


def test_the_temperature_anneals_by_equal_factors_and_stays():
    settings = Settings(temperature=4.0, final_temperature=0.25, anneal_steps=100)
    found = [float(settings.temperature_at(training(step))) for step in (0, 50, 100, 1000)]
    np.testing.assert_allclose(found, [4.0, 1.0, 0.25, 0.25], rtol=1e-5)
    assert settings.temperature_at(None) == 0.25
    assert Settings(temperature=4.0).temperature_at(training(50)) == 4.0


def test_entropy_regularisation_is_the_entropy_of_the_posterior_against_usage():
    points, means = normal(ROWS, LENGTH, DIM) * 0.5, normal(16, DIM, seed=1) * 0.5
    settings = Settings(norm=None, beta=0.0, entropy_weight=2.0, warmup_steps=0)
    bottleneck = place(HardEM(16, DIM, settings), means)
    hits = np.arange(1.0, 17.0)
    bottleneck.codebook.hits.assign(hits)
    exact = posterior(points.reshape(-1, DIM), means)
    shares = (hits + 0.05 * hits.mean()) / (1.05 * hits.sum())
    expected = 2.0 * (exact * (np.log(shares) - np.log(exact))).sum(-1)
    direction, step = normal(ROWS, LENGTH, DIM, seed=2), 1e-2

    def loss(x):
        return bottleneck.e_step(x, None, training()).loss

    x = tf.constant(points)
    with tf.GradientTape() as tape:
        tape.watch(x)
        found = loss(x)
    np.testing.assert_allclose(found.mean, expected.mean(), rtol=1e-4)
    slope = tf.reduce_sum(tape.gradient(found.sum, x) * direction)
    difference = (loss(points + step * direction).sum - loss(points - step * direction).sum) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-2)


@pytest.mark.parametrize("init", ["data", "k_means", "random", "released"])
def test_the_released_start_leaves_one_code_in_use_and_no_other_does(init):
    """Points of many directions, a frozen encoder, no revival: arXiv 1805.11063's code against the others."""
    settings = Settings(norm=32.0, init=init, decay=0.999, revival_threshold=0.0, warmup_steps=0)
    bottleneck = HardEM(64, DIM, settings)
    keras.utils.set_random_seed(1)
    rows = 64

    @tf.function(autograph=False)
    def learn(step):
        points = tf.random.stateless_normal([rows, LENGTH, DIM], tf.stack([1, step]))
        context = Training(0, step, tf.range(rows), rows)
        output = bottleneck.e_step(points, None, context)
        bottleneck.m_step(output.statistics)
        return output.codes

    used = [len(np.unique(learn(tf.constant(step)))) for step in range(30)]
    assert used[-1] == 1 if init == "released" else used[-1] > 30


def test_k_means_forgets_nothing_but_the_batch_at_first():
    bottleneck = HardEM(4, DIM, Settings(norm=None, init="k_means", revival_threshold=0.0, warmup_steps=0))
    points = 3.0 * normal(4, DIM)[np.arange(ROWS * LENGTH) % 4].reshape(ROWS, LENGTH, DIM)
    points += 0.1 * normal(ROWS, LENGTH, DIM, seed=1)
    for step in range(8):
        output = bottleneck.e_step(points, None, training(step))
        bottleneck.m_step(output.statistics)
    flat, codes = points.reshape(-1, DIM), output.codes.numpy().ravel()
    for code in np.unique(codes):
        mean = flat[codes == code].mean(0)
        np.testing.assert_allclose(bottleneck.codebook.means.numpy()[code], mean, rtol=1e-3, atol=1e-3)
