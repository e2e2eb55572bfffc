"""Strategies: what the machine has, clear words where it has not, and the same training on several replicas."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.errors import UserError
from t2t_vqem.training import strategy

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch):
    for name in ("TF_CONFIG", "TPU_NAME", "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS"):
        monkeypatch.delenv(name, raising=False)


def test_auto_on_one_device_is_one_replica():
    made = strategy.make("auto")
    assert made.num_replicas_in_sync == 1
    assert strategy.pipeline(made) == (0, 1)
    assert strategy.any_worker(made, True)
    assert not strategy.any_worker(made, False)


def test_no_tpu_is_a_clear_error():
    with pytest.raises(UserError, match="--strategy=tpu: no TPU answers"):
        strategy.make("tpu")


def test_multi_worker_needs_tf_config(monkeypatch):
    with pytest.raises(UserError, match="needs the environment variable TF_CONFIG"):
        strategy.make("multi_worker")
    monkeypatch.setenv("TF_CONFIG", "{")
    with pytest.raises(UserError, match="TF_CONFIG is not a JSON object"):
        strategy.make("auto")


def test_an_unknown_strategy_names_the_nearest():
    with pytest.raises(UserError, match="mirrored"):
        strategy.make("miror")


def test_compile_is_the_users_choice_or_the_device_default(monkeypatch):
    one = strategy.make("one")
    assert strategy.compiles(True, one)
    assert not strategy.compiles(False, one)
    monkeypatch.setattr(strategy, "COMPILE_ON_CPU", True)
    assert strategy.compiles("auto", one)


def test_dtype_policy_is_restored():
    with strategy.dtype_policy("bfloat16"):
        assert keras.layers.Dense(1).compute_dtype == "bfloat16"
        assert keras.layers.Dense(1).variable_dtype == "float32"
    with strategy.dtype_policy("float64"):
        layer = keras.layers.Dense(1)
        assert layer(tf.ones([1, 1])).dtype == tf.float64
        assert layer.kernel.dtype == "float32"
    assert keras.layers.Dense(1).compute_dtype == "float32"


PROGRAM = """
import os, sys
import tensorflow as tf

devices = [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[2])
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
sys.path.insert(0, "tests/training")
from conftest import Scripted, TinyModel, TinyProblem
from t2t_vqem.training import strategy
from t2t_vqem.training.train_config import TrainConfig
from t2t_vqem.training.trainer import Trainer

made = {}
for part in sys.argv[3:]:
    folder, name, steps = part.split(":")
    made[name] = made.get(name) or strategy.make(name)
    config = TrainConfig(
        batch_tokens=64, boundaries=(8,), steps_per_call=2, train_steps=int(steps), warmup_steps=4, eval_every=4,
        save_every=2, log_every=100, dtype="float32", ema_decay=0.5,
    )
    trainer = Trainer(
        TinyProblem(), TinyModel, config, data_dir="", model_dir=os.path.join(sys.argv[1], folder),
        strategy=made[name], evaluators={"val": Scripted([1.0, 2.0, 3.0] * 2)},
    )
    trainer.train_and_evaluate()
    weights = float(sum(tf.reduce_sum(tf.abs(v)) for v in trainer.model.variables))
    print(made[name].num_replicas_in_sync, trainer.step, weights)
"""


def start(folder, devices, *parts, tf_config=None):
    """Starts a process that trains each of `parts`, "FOLDER:STRATEGY:STEPS"."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if tf_config:
        environment["TF_CONFIG"] = json.dumps(tf_config)
    command = [sys.executable, "-c", PROGRAM, str(folder), str(devices), *parts]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, env=environment, text=True, cwd=ROOT)


def finish(process):
    """Returns (replicas, step, sum of the weights' magnitudes) of each part."""
    try:
        out, err = process.communicate(timeout=900)
    finally:
        process.kill()
    assert process.returncode == 0, err[-3000:]
    return [tuple(map(float, line.split())) for line in out.splitlines()]


def saved(path):
    names = [
        name
        for name, _ in tf.train.list_variables(path)
        if name.startswith(("model/", "optimizer/", "average/"))
    ]
    return {name: tf.train.load_variable(path, name) for name in names}


def test_two_replicas_train_as_one_and_read_each_others_checkpoints(tmp_path):
    parts = ["a:one:8", "b:mirrored:4", "b:mirrored:8", "b:one:10"]
    told = finish(start(tmp_path, 2, *parts))
    assert [line[:2] for line in told] == [(1, 8), (2, 4), (2, 8), (1, 10)]
    left, right = saved(str(tmp_path / "a" / "ckpt-8")), saved(str(tmp_path / "b" / "ckpt-8"))
    assert left.keys() == right.keys()
    assert any(name.startswith("average/") for name in left)
    for name, value in left.items():
        np.testing.assert_allclose(value, right[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_two_workers_train_resume_and_save_their_own_place(tmp_path):
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            ports.append(free.getsockname()[1])
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    tasks = [{"cluster": cluster, "task": {"type": "worker", "index": index}} for index in range(2)]
    workers = [start(tmp_path, 1, "run:multi_worker:4", "run:multi_worker:8", tf_config=t) for t in tasks]
    chief, other = [finish(worker) for worker in workers]
    assert chief == other  # weights included
    assert [line[:2] for line in chief] == [(2, 4), (2, 8)]
    assert (tmp_path / "run" / "worker-1" / "ckpt-8.index").exists()
    with open(tmp_path / "run" / "results.json", encoding="utf-8") as file:
        entry = json.load(file)["train"]
    assert [e["step"] for e in entry["evaluations"]] == [4, 8]
    assert entry["total"]["examples"] == 8 * 8
