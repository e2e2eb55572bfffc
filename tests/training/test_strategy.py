"""Strategies: what the machine has, clear words where it has not, and the same training on several replicas."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.errors import UserError
from t2t_vqem.training import strategy


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
    import keras

    with strategy.dtype_policy("bfloat16"):
        assert keras.layers.Dense(1).compute_dtype == "bfloat16"
        assert keras.layers.Dense(1).variable_dtype == "float32"
    assert keras.layers.Dense(1).compute_dtype == "float32"


PROGRAM = """
import sys
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[3])
)
sys.path.insert(0, "tests/training")
from conftest import Scripted, TinyModel, TinyProblem
from t2t_vqem.training import strategy
from t2t_vqem.training.train_config import TrainConfig
from t2t_vqem.training.trainer import Trainer

made = strategy.make(sys.argv[2])
for steps in sys.argv[4:]:
    config = TrainConfig(batch_tokens=64, boundaries=(8,), steps_per_call=2, train_steps=int(steps), warmup_steps=4,
                         eval_every=4, save_every=2, log_every=100)
    trainer = Trainer(TinyProblem(), TinyModel, config, data_dir="", model_dir=sys.argv[1], strategy=made,
                      evaluators={"val": Scripted([1.0, 2.0, 3.0])})
    trainer.train_and_evaluate()
print("replicas", made.num_replicas_in_sync, "worker", strategy.pipeline(made), "at", trainer.step,
      "weights", float(sum(tf.reduce_sum(tf.abs(v)) for v in trainer.model.variables)))
"""


def start(model_dir, name, *arguments, tf_config=None):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if tf_config:
        environment["TF_CONFIG"] = json.dumps(tf_config)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(model_dir), name, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err[-3000:]
    words = out.split()
    return {"replicas": int(words[1]), "step": int(words[6]), "weights": float(words[8])}


def all_variables(model_dir):
    path = tf.train.latest_checkpoint(str(model_dir))
    return {name: tf.train.load_variable(path, name) for name, _ in tf.train.list_variables(path) if "VALUE" in name}


def test_two_replicas_train_as_one_and_read_each_others_checkpoints(tmp_path):
    one = finish(start(tmp_path / "one", "one", 1, 8))
    two = finish(start(tmp_path / "two", "mirrored", 2, 4))
    assert (one["replicas"], two["replicas"]) == (1, 2)
    finish(start(tmp_path / "two", "mirrored", 2, 8))
    left, right = all_variables(tmp_path / "one"), all_variables(tmp_path / "two")
    assert left.keys() == right.keys()
    for name, value in left.items():
        if not name.startswith(("data", "save_counter")):
            np.testing.assert_allclose(value, right[name], rtol=1e-4, atol=1e-5, err_msg=name)
    finish(start(tmp_path / "two", "one", 1, 10))


def test_two_workers_train_resume_and_save_their_own_place(tmp_path):
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            ports.append(free.getsockname()[1])
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    workers = [
        start(
            tmp_path / "run", "multi_worker", 1, 4, 8,
            tf_config={"cluster": cluster, "task": {"type": "worker", "index": index}},
        )
        for index in range(2)
    ]  # fmt: skip
    chief, other = [finish(worker) for worker in workers]
    assert chief == other
    assert chief["replicas"] == 2
    assert chief["step"] == 8
    assert (tmp_path / "run" / "worker-1" / "ckpt-8.index").exists()
    with open(tmp_path / "run" / "results.json", encoding="utf-8") as file:
        entry = json.load(file)["train"]
    assert [e["step"] for e in entry["evaluations"]] == [4, 8]
    assert entry["total"]["examples"] == 8 * 8
