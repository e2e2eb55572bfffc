"""Checkpoints: everything that exact resume needs, in one, and clear words where one does not fit.

`tf.train.Checkpoint(model=layer)` passes over the lists and dicts of layers that a Keras 3 layer holds, and
says nothing. So a checkpoint here holds a nested dict of variables by attribute path, which `state` makes.
"""

import contextlib
import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from absl import logging

from t2t_vqem import files
from t2t_vqem.errors import UserError
from t2t_vqem.training.moving_average import MovingAverage

BEST_DIR, BEST_FILE = "best", "best.json"
_AVERAGE = "average"  # the root of the moving average's variables in a checkpoint
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_GROUPS = (keras.layers.Layer, tf.Module, keras.random.SeedGenerator)
# Attributes in which Keras and TensorFlow list again what the others hold.
_INTERNAL = ("_layers", "_trainable_variables", "_non_trainable_variables", "_self_")


def state(**roots: keras.layers.Layer | tf.Module) -> dict[str, Any]:
    """Returns the variables of each root as nested dicts of tf.Variable, by attribute name and list index.

    A variable that several attributes hold is there once, under the first.

    Raises RuntimeError if a root has a variable that no attribute leads to: it would be lost.
    """
    seen: set[int] = set()
    tree = {name: _variables(root, seen) or {} for name, root in roots.items()}
    for name, root in roots.items():
        for variable in root.variables:
            if id(_plain(variable)) not in seen:
                raise RuntimeError(f"{name}: no attribute leads to the variable {variable.name}")
    return tree


def _plain(variable: Any) -> Any:
    return variable.value if isinstance(variable, keras.Variable) else variable


def _variables(value: Any, seen: set[int]) -> Any:
    """Returns the variable, a dict of what is below `value`, or None where there is nothing new."""
    value = _plain(value)
    if id(value) in seen:
        return None
    if isinstance(value, tf.Variable):
        seen.add(id(value))
        return value
    if isinstance(value, _GROUPS):
        children = {name: child for name, child in vars(value).items() if not name.startswith(_INTERNAL)}
    elif isinstance(value, Mapping):
        children = {str(key): child for key, child in value.items()}
    elif isinstance(value, list | tuple):
        children = {str(index): child for index, child in enumerate(value)}
    else:
        return None
    seen.add(id(value))
    found = {name.replace("/", "_"): _variables(child, seen) for name, child in children.items()}
    return {name: child for name, child in found.items() if child is not None} or None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, tf.Variable]:
    flat = {}
    for name, child in tree.items():
        path = f"{prefix}/{name}" if prefix else name
        flat.update(_flat(child, path) if isinstance(child, dict) else {path: child})
    return flat


def kept(model_dir: str) -> dict[int, str]:
    """Returns the paths of the whole checkpoints by step, ascending; the index of one is written last."""
    names = glob.glob(os.path.join(glob.escape(model_dir), "ckpt-*.index"))
    whole = {int(m[1]): name for name in names if (m := re.search(r"ckpt-(\d+)\.index$", name))}
    return {step: whole[step].removesuffix(".index") for step in sorted(whole)}


def latest(model_dir: str) -> str | None:
    """Returns the path of the newest whole checkpoint, or None where there is none.

    Where TensorFlow's own note of the newest is lost or names one that is not whole, the newest that is
    whole serves.
    """
    path = tf.train.latest_checkpoint(model_dir)
    if path and os.path.exists(f"{path}.index"):
        return path
    return next(reversed(kept(model_dir).values()), None)


class Best(NamedTuple):
    """The best checkpoint kept so far; it holds a model's weights like any other, whatever they are.

    Attributes:
      metric, value: by which it was chosen; None where it is the only one.
      weights: what they are: "raw"; "ema", the moving average of training; "average", of checkpoints.
    """

    step: int
    metric: str | None
    value: float | None
    weights: str = "raw"


def read_best(model_dir: str) -> Best | None:
    """Returns what `best/best.json` says, or None where no best checkpoint is kept."""
    path = os.path.join(model_dir, BEST_DIR, BEST_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            return Best(**json.load(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); remove the folder {BEST_DIR}") from error


def keep_best(model_dir: str, model: keras.layers.Layer, best: Best) -> None:
    """Keeps the weights of `model` as the best; whatever happens meanwhile, one whole best stays there."""
    folder = os.path.join(model_dir, BEST_DIR)
    name = f"ckpt-{best.step}"
    step = tf.Variable(best.step, dtype=tf.int64)
    path = os.path.join(folder, name)
    with _writing(path):
        tf.train.Checkpoint(**state(model=model), step=step).write(path)
    files.write_atomic(os.path.join(folder, BEST_FILE), json.dumps(best._asdict()) + "\n")
    for path in glob.glob(os.path.join(glob.escape(folder), "ckpt-*")):
        if os.path.basename(path).split(".")[0] != name and os.path.isfile(path):
            os.unlink(path)


def digest(path: str) -> str:
    """Returns a hash of a checkpoint's files, which tells its weights from any others."""
    found = hashlib.sha256()
    folder, name = os.path.split(path)
    for file_name in sorted(entry for entry in os.listdir(folder) if entry.startswith(f"{name}.")):
        with open(os.path.join(folder, file_name), "rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def find(model_dir: str, which: str | int = "best") -> str:
    """Returns the path of a checkpoint: "best" (the latest where none is kept), "latest", or a step's.

    Raises:
      UserError: there is none; the text names the steps there are.
    """
    best = read_best(model_dir)
    best_path = os.path.join(model_dir, BEST_DIR, f"ckpt-{best.step}") if best else None
    if which == "best" and best_path:
        if not os.path.exists(f"{best_path}.index"):
            raise UserError(
                f"{best_path}, the best checkpoint, is missing; --checkpoint=latest takes another"
            )
        return best_path
    if which in ("best", "latest"):
        if path := latest(model_dir):
            return path
        if best:
            raise UserError(f'"{model_dir}" holds no checkpoint but the best; leave out --checkpoint')
        raise UserError(f'no checkpoint in "{model_dir}"; train a model there first')
    path = os.path.join(model_dir, f"ckpt-{which}")
    if os.path.exists(f"{path}.index"):
        return path
    if best and str(best.step) == str(which):
        return best_path
    steps = [str(step) for step in kept(model_dir)]
    steps += [f"{best.step} (the best)"] if best else []
    there = f"there are those of steps {', '.join(steps)}" if steps else "there is none at all"
    raise UserError(f'no checkpoint of step {which} in "{model_dir}"; {there}')


def restore_weights(path: str, model: keras.layers.Layer) -> int:
    """Gives `model` the weights of a checkpoint and returns its step.

    Raises:
      UserError: it is damaged, or of another configuration.
    """
    return _restore(path, state(model=model))


def _restore(path: str, tree: Mapping[str, Any]) -> int:
    """Restores exactly the variables of `tree`, after a check of every name and shape."""
    with _reading(path):
        reader = tf.train.load_checkpoint(path)
        saved = reader.get_variable_to_shape_map()
        flat = _flat(tree)
        for name, variable in flat.items():
            shape = saved.get(name + _VALUE)
            if shape is None:
                raise _other(path, f"this model's variable {name} {variable.shape} is not in it")
            if list(shape) != variable.shape.as_list():
                raise _other(path, f"{name} has shape {tuple(shape)} there and {tuple(variable.shape)} here")
        for key in sorted(saved):
            name = key.removesuffix(_VALUE)
            if key.endswith(_VALUE) and name.split("/")[0] in tree and name not in flat:
                raise _other(path, f"its variable {name} {tuple(saved[key])} is not in this model")
        tf.train.Checkpoint(**tree).read(path).expect_partial().assert_existing_objects_matched()
        return int(reader.get_tensor("step" + _VALUE))


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Says in one sentence that a checkpoint is damaged."""
    try:
        yield
    except (tf.errors.OpError, ValueError, RuntimeError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the checkpoint {path} cannot be read; it may be damaged: {reason}") from error


def _holds_average(path: str) -> bool:
    with _reading(path):
        names = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    return any(name.startswith(f"{_AVERAGE}/") for name in names)


def _other(path: str, difference: str) -> UserError:
    return UserError(
        f"the checkpoint {path} is of another configuration: {difference}; give the configuration it was "
        "trained with, or another --model_dir"
    )


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    """Says in one sentence why a checkpoint cannot be written, and keeps TensorFlow's saver from chatting."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(min(verbosity, logging.WARNING))
    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"cannot write the checkpoint {path}: {reason}; make room or choose another --model_dir"
        ) from error
    finally:
        logging.set_verbosity(verbosity)


class Checkpoints:
    """Saves and restores a training: model, optimizer, moving average, step, and the place in the data.

    A checkpoint is `ckpt-STEP`. Without a moving average it is as it was before there was such a thing.

    With several workers the chief saves all of it in `model_dir`, every other worker its own place in the
    data in `model_dir/worker-INDEX`, and before the chief does, so that what the chief has saved all have.
    """

    def __init__(
        self,
        model_dir: str,
        *,
        model: keras.layers.Layer,
        optimizer: tf.Module,
        average: MovingAverage | None = None,
        step: tf.Variable,
        data: str,
        keep: int,
        pipeline: tuple[int, int] = (0, 1),
    ):
        """`data` names the sequence of batches: a place in another means nothing. `keep`: how many stay."""
        self._model_dir = model_dir
        self._step = step
        averages = {} if average is None else {_AVERAGE: average}
        self._tree = {**state(model=model, optimizer=optimizer, **averages), "step": step}
        self._average = average
        self._data = tf.Variable(data, trainable=False)
        self._keep = keep
        self._worker, self._workers = pipeline
        self._own_dir = os.path.join(model_dir, f"worker-{self._worker}") if self._worker else model_dir

    def restore(self) -> bool:
        """Restores the latest checkpoint's variables; returns whether there was one.

        A moving average that the checkpoint does not hold starts at the weights restored; one that it holds
        and this training does not keep is left behind. The log says so.

        Raises:
          UserError: it is damaged, or of another configuration.
        """
        path = latest(self._model_dir)
        if path is None:
            return False
        saved = _holds_average(path)
        if saved or self._average is None:
            _restore(path, self._tree)
        else:
            _restore(path, {root: tree for root, tree in self._tree.items() if root != _AVERAGE})
            self._average.restart()
            logging.warning("%s holds no moving average of the weights: it starts at its weights", path)
        if saved and self._average is None:
            logging.warning(
                "the moving average of the weights in %s goes no further (train.ema_decay = 0)", path
            )
        return True

    def restore_position(self, iterator: tf.data.Iterator) -> bool:
        """Moves `iterator` to where it was at the step restored, and returns True.

        Returns False where the batches are no longer the same; make a new iterator then, it may be spoilt.
        """
        path = os.path.join(self._own_dir, f"ckpt-{int(self._step.numpy())}")
        try:
            saved = tf.train.load_checkpoint(path).get_tensor("data" + _VALUE).decode()
            if saved != self._data.numpy().decode():
                return False
            tf.train.Checkpoint(iterator=iterator).restore(path).expect_partial()
        except (tf.errors.OpError, ValueError, RuntimeError, LookupError) as error:
            logging.warning("no data position in %s: %s", path, " ".join(str(error).split())[:200])
            return False
        return True

    def track(self, iterator: tf.data.Iterator) -> None:
        """Saves the place of `iterator` from now on."""
        tree = {"step": self._step} if self._worker else self._tree
        checkpoint = tf.train.Checkpoint(**tree, data=self._data, iterator=iterator)
        keep = self._keep + bool(self._worker)  # a worker may be one save ahead of the chief
        self._manager = tf.train.CheckpointManager(checkpoint, self._own_dir, keep)

    def save(self) -> None:
        """Saves; the previous checkpoint stays usable until this one is whole.

        Raises:
          UserError: the disk is full or cannot be written; the text names the path.
        """
        step = int(self._step.numpy())
        with _writing(os.path.join(self._own_dir, f"ckpt-{step}")):
            self._manager.save(checkpoint_number=step)
