import sys

import gin
import numpy as np
import pytest

from t2t_vqem import registry
from t2t_vqem.errors import UserError
from t2t_vqem.registry import Registry


@pytest.fixture
def widgets(request):
    # gin never forgets a configurable: each test has a kind, and so a gin module, of its own.
    return Registry(request.node.name.replace("[", "_").replace("]", ""), {})


def test_get_configures_a_class_and_the_decorator_leaves_it_untouched(widgets):
    @widgets.register("plain_widget")
    class Widget:
        def __init__(self, size=1, *, colour="red"):
            self.size, self.colour = size, colour

    gin.parse_config("plain_widget.size = 7")
    made = widgets.get("plain_widget")(colour="blue")
    assert type(made) is Widget
    assert (made.size, made.colour) == (7, "blue")
    assert Widget().size == 1
    text = gin.operative_config_str()
    assert "plain_widget.size = 7" in text
    assert "colour" not in text  # the caller decided it


def test_functions_can_be_registered(widgets):
    @widgets.register("make_widget")
    def make(size=2):
        return ["widget"] * size

    gin.parse_config("make_widget.size = 3")
    assert widgets.get("make_widget")() == ["widget"] * 3
    assert make() == ["widget"] * 2


def test_keras_layers_can_be_registered(widgets):
    keras = pytest.importorskip("keras")

    @widgets.register("scale_layer")
    class Scale(keras.layers.Layer):
        def __init__(self, factor=1.0, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def call(self, x):
            return x * self.factor

    gin.parse_config("scale_layer.factor = 3.0")
    layer = widgets.get("scale_layer")(name="mine")
    assert isinstance(layer, Scale)
    assert type(layer).__name__ == "Scale"
    assert layer.name == "mine"
    assert float(layer(np.array([2.0]))[0]) == 6.0
    assert layer.get_config()["factor"] == 3.0
    with pytest.raises(ValueError, match="facto"):  # **kwargs would take it
        gin.parse_config("scale_layer.facto = 3.0")


def test_a_subclass_that_hands_on_kwargs_keeps_its_parents_parameters(widgets):
    @widgets.register("parent_widget")
    class Parent:
        def __init__(self, size=1):
            self.size = size

    @widgets.register("child_widget")
    class Child(Parent):
        def __init__(self, colour="red", **kwargs):
            super().__init__(**kwargs)
            self.colour = colour

    gin.parse_config("child_widget.size = 5")
    assert widgets.get("child_widget")().size == 5
    with pytest.raises(ValueError, match="siez"):
        gin.parse_config("child_widget.siez = 5")


def test_a_class_without_a_name_gets_the_registered_one(widgets):
    @widgets.register("first_name")
    class First:
        name: str

    @widgets.register("second_name")
    class Second(First):
        pass

    @widgets.register("third_name")
    class Third(First):
        name = "own"

    assert (First.name, Second.name, Third.name) == ("first_name", "second_name", "own")


def test_unknown_names_the_nearest():
    with pytest.raises(UserError, match=r'unknown problem "toy_ened" \(did you mean toy_ende or '):
        registry.problems.get("toy_ened")
    with pytest.raises(UserError, match=r'unknown bottleneck "zzz" \(known: .*soft_em'):
        registry.bottlenecks.get("zzz")


def test_duplicates_are_refused(widgets):
    widgets.register("twice")(lambda: 1)
    with pytest.raises(UserError, match='"twice" is registered already'):
        widgets.register("twice")(lambda: 2)
    with pytest.raises(UserError, match='problem named "wmt_ende" is registered already'):
        registry.problems.register("wmt_ende")(lambda: 3)  # a builtin, imported or not
    with pytest.raises(UserError, match="not an identifier"):
        widgets.register("two words")(lambda: 4)


def test_names_imports_nothing():
    assert "latent_nat" in registry.models.names()
    lazy = Registry("lazy", {"nowhere": "t2t_vqem.no_such_module"})
    assert lazy.names() == ["nowhere"]
    with pytest.raises(ModuleNotFoundError):
        lazy.load_all()


def test_every_builtin_registers_its_name():
    for known in (registry.problems, registry.models, registry.bottlenecks):
        known.load_all()
        for name in known.names():
            assert callable(known.get(name))


def _write(folder, **modules):
    folder.mkdir(exist_ok=True)
    for stem, text in modules.items():
        (folder / f"{stem}.py").write_text(text)
    return str(folder)


REGISTER = """
from t2t_vqem import registry

@registry.problems.register("{name}")
class Mine:
    value = {value}
"""


def test_usr_dir_imports_every_module_and_siblings_relatively(tmp_path):
    path = _write(
        tmp_path / "my-code",
        one="from .helper import VALUE\n" + REGISTER.format(name="usr_one", value="VALUE"),
        helper="VALUE = 5\n",
        test_one="raise RuntimeError('a test is not code to load')\n",
        setup="raise RuntimeError('nor is this')\n",
    )
    registry.load_usr_dir(path)
    registry.load_usr_dir(path + "/")  # the same: nothing is registered twice
    assert registry.problems.get("usr_one")().value == 5
    assert registry.problems.get("usr_one").name == "usr_one"


def test_usr_dir_may_be_a_package_or_a_file(tmp_path):
    path = _write(
        tmp_path / "pack", __init__="from . import inner\n", inner=REGISTER.format(name="usr_two", value=2)
    )
    registry.load_usr_dir(path)
    assert registry.problems.get("usr_two")().value == 2
    file = tmp_path / "single.py"
    file.write_text(REGISTER.format(name="usr_three", value=3))
    registry.load_usr_dir(str(file))
    assert registry.problems.get("usr_three")().value == 3
    assert "usr_three" in registry.problems.names()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import t2t_vqem\n\nundefined_name\n", r"NameError: .*broken\.py, line 3"),
        ("def f(:\n", r"SyntaxError: .*broken\.py, line 1"),
        ("import no_such_module_at_all\n", "ModuleNotFoundError"),
        (REGISTER.format(name="toy_ende", value=1), '"toy_ende" is registered already'),
    ],
)
def test_failing_user_code_is_named(tmp_path, code, message):
    path = _write(tmp_path / "usr", broken=code)
    before = set(sys.modules)
    with pytest.raises(UserError, match=message) as caught:
        registry.load_usr_dir(path)
    assert "\n" not in str(caught.value)
    assert not [name for name in set(sys.modules) - before if name.endswith(".broken")]


def test_a_missing_usr_dir_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        registry.load_usr_dir(str(tmp_path / "nowhere"))
    registry.load_usr_dir(None)
