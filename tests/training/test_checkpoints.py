"""Checkpoints: nothing missing, clear words where one does not fit, and never a broken one."""

import os
import resource
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.errors import UserError
from t2t_vqem.training import checkpoints


class Stack(keras.layers.Layer):
    def __init__(self, dim=3, layers=2):
        super().__init__()
        self.blocks = [keras.layers.Dense(dim) for _ in range(layers)]
        self.named = {"last": keras.layers.Dense(dim)}

    def build_weights(self):
        x = tf.ones([1, 3])
        for layer in [*self.blocks, *self.named.values()]:
            x = layer(x)
        return self


def open_checkpoints(model_dir, model, keep=3):
    made = checkpoints.Checkpoints(
        str(model_dir),
        model=model,
        optimizer=tf.Module(),
        step=tf.Variable(0, dtype=tf.int64),
        data="",
        keep=keep,
    )
    made.track(iter(tf.data.Dataset.range(10)))
    return made


def save(model_dir, model, step=5):
    made = open_checkpoints(model_dir, model)
    made._step.assign(step)
    made.save()


def test_layers_in_lists_and_dicts_are_saved(tmp_path):
    model = Stack().build_weights()
    save(tmp_path, model)
    other = Stack().build_weights()
    assert checkpoints.restore_weights(checkpoints.find(str(tmp_path)), other) == 5
    for left, right in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(left, right)
    names = {name for name, _ in tf.train.list_variables(checkpoints.find(str(tmp_path)))}
    assert "model/blocks/1/_kernel/.ATTRIBUTES/VARIABLE_VALUE" in names
    assert "model/named/last/bias/.ATTRIBUTES/VARIABLE_VALUE" in names


def test_a_variable_that_no_attribute_leads_to_is_refused():
    class Hidden(tf.Module):
        variables = (tf.Variable(1.0, name="lost"),)

    with pytest.raises(RuntimeError, match="lost"):
        checkpoints.state(model=Hidden())


@pytest.mark.parametrize(
    ("dim", "layers", "words"),
    [
        (4, 2, r"model/blocks/0/_kernel has shape \(3, 3\) there and \(3, 4\) here"),
        (3, 3, r"this model's variable model/blocks/2/_kernel \(3, 3\) is not in it"),
        (3, 1, r"its variable model/blocks/1/_kernel \(3, 3\) is not in this model"),
    ],
)
def test_another_configuration_names_the_first_variable(tmp_path, dim, layers, words):
    save(tmp_path, Stack().build_weights())
    other = Stack(dim, layers).build_weights()
    before = [v.numpy() for v in other.variables]
    with pytest.raises(UserError, match=words):
        checkpoints.restore_weights(checkpoints.find(str(tmp_path)), other)
    for old, new in zip(before, other.variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_missing_step_names_those_there_are(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in"):
        checkpoints.find(str(tmp_path))
    model = Stack().build_weights()
    save(tmp_path, model)
    checkpoints.keep_best(str(tmp_path), model, checkpoints.Best(4, "bleu", 1.0))
    with pytest.raises(UserError, match=r"step 7 .*there are those of steps 5, 4 \(the best\)"):
        checkpoints.find(str(tmp_path), 7)
    assert checkpoints.find(str(tmp_path), 5) == str(tmp_path / "ckpt-5")
    assert checkpoints.find(str(tmp_path), "4") == str(tmp_path / "best" / "ckpt-4")


@pytest.mark.parametrize("ruin", [lambda b: b[:20], lambda b: b[:-20] + bytes([b[-20] ^ 1]) + b[-19:]])
def test_a_truncated_or_flipped_checkpoint_is_called_damaged(tmp_path, ruin):
    model = Stack().build_weights()
    save(tmp_path, model)
    data = tmp_path / "ckpt-5.data-00000-of-00001"
    data.write_bytes(ruin(data.read_bytes()))
    with pytest.raises(UserError, match="ckpt-5 cannot be read; it may be damaged"):
        checkpoints.restore_weights(checkpoints.find(str(tmp_path)), model)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the checkpoint .*file/run/ckpt-5"):
        save(tmp_path / "file" / "run", Stack().build_weights())


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path):
    model = Stack().build_weights()
    made = open_checkpoints(tmp_path, model, keep=1)
    made._step.assign(1)
    made.save()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))  # every file ends after 50 bytes
    try:
        made._step.assign(2)
        with pytest.raises(UserError, match=r"cannot write the checkpoint .*ckpt-2"):
            made.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoints.restore_weights(checkpoints.find(str(tmp_path)), model) == 1


SAVE_FOR_EVER = """
import itertools, sys
import tensorflow as tf
from t2t_vqem.training import checkpoints
class Big(tf.Module):
    def __init__(self):
        self.table = tf.Variable(tf.zeros([1000, 1000]))
step = tf.Variable(0, dtype=tf.int64)
model = Big()
made = checkpoints.Checkpoints(sys.argv[1], model=model, optimizer=tf.Module(), step=step, data="", keep=1)
made.track(iter(tf.data.Dataset.range(10)))
for number in itertools.count(1):
    step.assign(number)
    model.table.assign(tf.fill([1000, 1000], float(number)))
    made.save()
    checkpoints.keep_best(sys.argv[1], model, checkpoints.Best(number, "bleu", float(number)))
    print(number, flush=True)
"""


class Big(tf.Module):
    def __init__(self):
        self.table = tf.Variable(tf.zeros([1000, 1000]))


def test_kill_9_while_saving_leaves_a_whole_checkpoint(tmp_path):
    command = [sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    for kill in range(3):  # each also begins among the ruins of the one before
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
            for _ in range(3):
                said = int(process.stdout.readline())
            time.sleep(0.003 * (kill + 1))
            process.kill()
        for which in ("latest", "best"):
            model = Big()
            step = checkpoints.restore_weights(checkpoints.find(str(tmp_path), which), model)
            assert step >= said
            np.testing.assert_array_equal(model.table, np.full([1000, 1000], step))
