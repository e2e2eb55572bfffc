"""Small functions are compiled by themselves only where nothing around them is."""

import pytest
import tensorflow as tf

from t2t_vqem import fusion


@fusion.fused
def double(x, times=2.0):
    return x * times


def compiled_calls(graph):
    """The calls in `graph` to functions that XLA compiles by themselves."""
    return [op for op in graph.get_operations() if "XlaMustCompile" in str(op.node_def) and op.type != "NoOp"]


def trace(whole, shape):
    def program(x):
        with fusion.compiled_around(whole):
            return double(x) + double(x, 3.0)

    return tf.function(program, autograph=False).get_concrete_function(tf.TensorSpec(shape)).graph


@pytest.mark.parametrize(
    ("whole", "shape", "calls"), [(False, [3, 2], 2), (True, [3, 2], 0), (False, [None, 2], 0)]
)
def test_is_compiled_alone_where_shapes_are_static_and_nothing_around_is_compiled(whole, shape, calls):
    assert len(compiled_calls(trace(whole, shape))) == calls


@fusion.recomputed
def doubled_twice(x):
    return double(double(x))


@pytest.mark.parametrize("function", [doubled_twice, fusion.fused(doubled_twice)])
def test_what_is_compiled_alone_compiles_all_that_it_calls(function):
    def program(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = function(x)
        return tape.gradient(result, x)

    graph = tf.function(program, autograph=False).get_concrete_function(tf.TensorSpec([2])).graph
    assert len(compiled_calls(graph)) >= 2, "there and back"
    for call in compiled_calls(graph):
        called = graph._get_function(call.get_attr("f").name).graph
        assert not compiled_calls(called)


def test_values_do_not_depend_on_it():
    x = tf.constant([1.0, 2.0])
    with fusion.compiled_around(True):
        inside = double(x)
    assert inside.numpy().tolist() == double(x).numpy().tolist() == [2.0, 4.0]


def test_the_mark_ends_with_the_program_even_when_it_fails():
    with pytest.raises(RuntimeError), fusion.compiled_around(True):
        raise RuntimeError
    assert len(compiled_calls(trace(False, [1]))) == 2


@fusion.recomputed
def wave(scale, x, shift):
    return tf.sin(scale * x + shift), tf.reduce_sum(tf.square(x))


def gradients(x, shift):
    with tf.GradientTape() as tape:
        tape.watch([x, shift])
        first, second = wave(3.0, x, shift)
        total = tf.reduce_sum(first * tf.constant([1.0, -2.0])) + 0.5 * second
    return tape.gradient(total, [x, shift])


def test_a_gradient_that_is_recomputed_is_the_same():
    x, shift = tf.constant([0.3, 0.7]), tf.constant([0.1, 0.2])
    program = tf.function(gradients, autograph=False)
    plain, alone = gradients(x, shift), program(x, shift)
    tf.debugging.assert_near(plain[0], alone[0])
    graph = program.get_concrete_function(x, shift).graph
    assert len(compiled_calls(graph)) == 2, "there and back"
    assert sorted(len(call.outputs) for call in compiled_calls(graph)) == [1, 2], "nothing else is kept"


def test_what_is_recomputed_is_differentiated_for_its_first_tensor():
    for run in (gradients, tf.function(gradients, autograph=False)):
        of_x, of_shift = run(tf.constant([0.3, 0.7]), tf.constant([0.1, 0.2]))
        assert of_x is not None
        assert of_shift is None


@fusion.recomputed(rows=2, kinds=(tf.float32, tf.float32))
def weighed(x, scale, table, power):
    y = tf.sin(x) * scale[:, None]
    return tf.matmul(y, table) ** power, tf.reduce_sum(y, axis=-1)


@pytest.mark.parametrize("count", [3, 8, 13], ids=["one tile", "whole tiles", "a last tile with less"])
def test_rows_that_are_taken_a_few_at_a_time_give_the_same(count, monkeypatch):
    monkeypatch.setattr(fusion, "_TILE", 4 * 2)  # four rows of two numbers
    x, scale, table = (tf.random.stateless_normal(shape, [0, 1]) for shape in ([count, 2], [count], [2, 2]))

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            first, second = weighed(x, scale, table, 2)
            total = tf.reduce_sum(first * x) + tf.reduce_sum(second)
        return first, second, tape.gradient(total, x)

    program = tf.function(run, autograph=False)
    for plain, alone in zip(run(x), program(x), strict=True):
        tf.debugging.assert_near(plain, alone)
    calls = compiled_calls(program.get_concrete_function(x).graph)
    assert len(calls) == 2, "there and back"
    inside = [calls[0].graph._get_function(call.get_attr("f").name).graph for call in calls]
    loops = [any("While" in op.type for op in graph.get_operations()) for graph in inside]
    assert loops == [count > 4] * 2


@pytest.mark.parametrize(("held", "room"), [(79, True), (80, False)])
def test_no_more_is_compiled_where_mappings_run_out(held, room, tmp_path, monkeypatch):
    (tmp_path / "maps").write_text("a mapping\n" * held)
    (tmp_path / "most").write_text("100\n")
    monkeypatch.setattr(fusion, "_MAPPINGS", tmp_path / "maps")
    monkeypatch.setattr(fusion, "_MOST_MAPPINGS", tmp_path / "most")
    assert fusion.room_to_compile() == room


def test_there_is_room_where_the_system_counts_no_mappings(tmp_path, monkeypatch):
    monkeypatch.setattr(fusion, "_MAPPINGS", tmp_path / "nothing")
    assert fusion.room_to_compile()
