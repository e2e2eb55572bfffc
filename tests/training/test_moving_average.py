"""The moving average against its closed form, and in the place of the weights."""

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.training.moving_average import MovingAverage


def strategy(replicas):
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    return tf.distribute.MirroredStrategy(devices) if replicas == 2 else tf.distribute.get_strategy()


@pytest.mark.parametrize("replicas", [1, 2])
def test_it_follows_the_weights_and_stands_in_for_them(replicas):
    made = strategy(replicas)
    with made.scope():
        weights = tf.Variable([1.0, -2.0])
        average = MovingAverage([weights], 0.25)

        @tf.function
        def update(step):
            average.update(made, step)

        expected = weights.numpy()
        for step, value in enumerate([[3.0, 0.1], [5.0, 0.7], [-1.0, 0.3], [2.0, 2.0]]):
            weights.assign(value)
            update(tf.constant(step, tf.int64))
            decay = min(0.25, (1 + step) / (10 + step))  # 0.1, 0.18, then 0.25
            expected = decay * expected + (1 - decay) * np.array(value)
    np.testing.assert_allclose(average.averages[0], expected, rtol=1e-6)

    own, averaged = weights.numpy(), average.averages[0].numpy()

    def copies():
        return [copy.numpy().tolist() for copy in made.experimental_local_results(weights)]

    def evaluate(error):
        with average.in_place():
            assert copies() == [averaged.tolist()] * replicas
            raise error

    for error in (KeyboardInterrupt, SystemExit):  # outside the scope, as evaluation is
        with pytest.raises(error):
            evaluate(error)
        assert copies() == [own.tolist()] * replicas
    np.testing.assert_array_equal(average.averages[0], averaged)


def test_a_swap_that_fails_half_way_is_undone():
    weights = [tf.Variable([1.0]), tf.Variable([2.0])]
    average = MovingAverage(weights, 0.9)
    for variable in average.averages:
        variable.assign([7.0])
    average.averages[1] = tf.Variable([7.0, 8.0])  # does not fit
    with pytest.raises(ValueError, match="shape"), average.in_place():
        raise AssertionError("went in")
    assert [float(variable[0]) for variable in weights] == [1.0, 2.0]


def test_it_starts_again_at_the_weights():
    weights = tf.Variable([1.0])
    average = MovingAverage([weights], 0.9)
    weights.assign([4.0])
    average.restart()
    assert float(average.averages[0][0]) == 4.0
