"""One global batch gives one update: on one device, on two, and in accumulated micro-batches."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.training.moving_average import MovingAverage
from t2t_vqem.training.optimizer import Adam, schedule
from t2t_vqem.training.step import TrainStep


def make(strategy=None, *, bottleneck="soft_em", dropout=0.1, compile=False, clip_norm=1.0, **settings):
    strategy = strategy or tf.distribute.get_strategy()
    keras.utils.set_random_seed(5)
    with strategy.scope():
        model = registry.models.get("latent_nat")(
            30,
            bottleneck=bottleneck,
            num_codes=8,
            num_compress_steps=1,
            dim=8,
            filter_size=16,
            heads=2,
            encoder_layers=1,
            predictor_layers=1,
            decoder_layers=1,
            dropout=dropout,
            reveal_steps=4,
        )
        model.build_weights()
        model.bottleneck.settings = CodebookSettings(warmup_steps=2)
        variables = [variable.value for variable in model.trainable_variables]
        optimizer = Adam(schedule(1e-2, 2, "constant", 10), variables)
        settings |= {"seed": 1, "clip_norm": clip_norm, "compile": compile}
        return TrainStep(model, optimizer, strategy, average=MovingAverage(variables, 0.25), **settings)


def batches(calls=2, steps=2, rows=8, length=6):
    draw = np.random.default_rng(0)
    for _ in range(calls):
        ids = draw.integers(3, 30, [steps, rows, length])
        for i, j in np.ndindex(steps, rows):
            end = draw.integers(1, length)
            ids[i, j, end], ids[i, j, end + 1 :] = 1, 0
        yield {"inputs": tf.constant(ids, tf.int32), "targets": tf.constant(ids[:, ::-1], tf.int32)}


def run(step):
    """Returns what five steps did: the first moments after the first, and in the end terms and variables."""
    step(next(batches(steps=1)))
    moments = [moment.numpy() for moment in step.optimizer.first]
    for features in batches():
        terms = step(features)
    variables = {variable.path: variable.numpy() for variable in step.model.variables}
    averages = {f"average of {i}": variable.numpy() for i, variable in enumerate(step.average.averages)}
    return moments, terms, variables | averages


def moved_by_a_try(step):
    """Tries a batch with a step that has taken none; returns the steps since, and what variables were and are."""
    before = [variable.numpy() for variable in step.model.variables]
    step.try_batch(next(batches()))
    after = [variable.numpy() for variable in step.model.variables]
    return int(step.step.numpy()), before, after


@pytest.fixture(scope="module")
def one_device():
    """A step on one device, what `moved_by_a_try` says of it, and then `run`."""
    step = make()
    return step, moved_by_a_try(step), run(step)


@pytest.fixture(scope="module")
def two_devices():
    """The same of a step on two devices, in accumulated micro-batches."""
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    step = make(tf.distribute.MirroredStrategy(devices), micro_batches=2)
    return step, moved_by_a_try(step), run(step)


@pytest.fixture(scope="module")
def learnt():
    """How far each weight moved in the first step, without dropout, and the losses of the steps that follow."""
    step = make(dropout=0.0)
    before = [v.numpy() for v in step.model.trainable_variables]
    step(next(batches(steps=1)))
    assert int(step.step) == 1
    after = [v.numpy() for v in step.model.trainable_variables]
    moved = np.concatenate([np.ravel(b - a) for a, b in zip(before, after, strict=True)])
    terms = [step(features)["nll"] for _ in range(30) for features in batches()]
    return moved, [total / weight for total, weight in terms]


@pytest.mark.parametrize("kind", ["two devices and micro-batches", "XLA"])
def test_the_same_global_batch_gives_the_same_weights_averages_and_codebook(kind, one_device, request):
    """Dropout, sampled codes, revealed tokens and births included: they belong to the rows."""
    found = run(make(compile=True)) if kind == "XLA" else request.getfixturevalue("two_devices")[2]
    moments, terms, variables = found
    expected_moments, expected_terms, expected = one_device[2]
    # A first moment is (1 - beta1) x the clipped gradient, so this compares the gradients themselves.
    for moment, other in zip(moments, expected_moments, strict=True):
        np.testing.assert_allclose(moment, other, rtol=1e-3, atol=1e-6)
    # Adam divides by the gradient's size: a rounding difference in a gradient of nearly 0 grows.
    for (path, value), other in zip(variables.items(), expected.values(), strict=True):
        np.testing.assert_allclose(value, other, atol=2e-3, rtol=1e-3, err_msg=path)
    for name, (total, weight) in terms.items():
        if name not in ("gradient_norm", "tokens"):
            np.testing.assert_allclose(total, expected_terms[name][0], rtol=2e-3, atol=1e-3, err_msg=name)
            np.testing.assert_allclose(weight, expected_terms[name][1], rtol=1e-5, err_msg=name)


def test_replicas_hold_the_same_values(two_devices):
    step, _, _ = two_devices
    assert int(step.step.numpy()) == 5
    for variable in step.model.variables:
        left, right = step.strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(left, right, err_msg=variable.path)


def test_the_first_update_is_adams(learnt):
    """After one step Adam moves each weight by the learning rate, against the gradient's sign."""
    moved, _ = learnt
    sizes = np.abs(moved[moved != 0.0])
    assert np.median(sizes) == pytest.approx(0.5e-2, rel=1e-3)  # half of the peak: warm-up of two steps


def test_clipping_is_by_the_global_norm_of_the_mean_gradient():
    free, clipped = make(clip_norm=0.0), make(clip_norm=1e-12)
    features = next(batches(steps=1))
    assert free(features)["gradient_norm"][0] == pytest.approx(clipped(features)["gradient_norm"][0])
    first = clipped.optimizer.first
    norm = float(tf.linalg.global_norm(first)) / 0.1  # the first moment is (1 - beta1) x gradient
    assert norm == pytest.approx(1e-12, rel=1e-3)


@pytest.mark.parametrize("kind", ["one_device", "two_devices"])
def test_trying_a_batch_moves_nothing(kind, request):
    step, (taken, before, after), _ = request.getfixturevalue(kind)
    for old, new, variable in zip(before, after, step.model.variables, strict=True):
        np.testing.assert_array_equal(old, new, err_msg=variable.path)
    assert taken == 0


def test_rows_that_cannot_be_shared_are_refused():
    with pytest.raises(ValueError, match="do not split"):
        make(micro_batches=3)(next(batches()))


def test_it_learns(learnt):
    _, losses = learnt
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("bottleneck", ["soft_em", "simvq"])  # simvq's gradient calls such a function too
def test_a_step_that_xla_compiles_holds_no_function_compiled_by_itself(bottleneck):
    step = make(bottleneck=bottleneck, compile=True)
    ids = tf.fill([4, 6], 1)
    batch = {"inputs": ids, "targets": ids, "rows": tf.range(4)}
    graph = step._compute.get_concrete_function(batch, step.step).graph
    nested = [
        function for function in graph.as_graph_def().library.function if "_XlaMustCompile" in function.attr
    ]
    assert not [function.signature.name for function in nested if function.attr["_XlaMustCompile"].b]
