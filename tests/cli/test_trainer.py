"""bin/trainer as a process: what other tests of training, which make a Trainer themselves, pass by."""

import json
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_a_worker_of_several_starts(copy_run, tmp_path):
    """Nothing may touch TensorFlow's devices before the strategy is made."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    cluster = {"cluster": {"worker": [address]}, "task": {"type": "worker", "index": 0}}
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CONFIG": json.dumps(cluster)}
    flags = ["--problem=cli_echo", "--model=nat", "--strategy=multi_worker", "--train_steps=2"]
    flags += [f"--usr_dir={copy_run.root / 'usr'}", f"--data_dir={copy_run.data_dir}"]
    bindings = ["train.boundaries = (8, 24)", "train.batch_tokens = 64", "train.steps_per_call = 1"]
    small = {"dim": 8, "filter_size": 8, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    bindings += [f"nat.{name} = {value}" for name, value in small.items()]
    command = [sys.executable, "-m", "t2t_vqem.cli.trainer", *flags, f"--model_dir={tmp_path / 'run'}"]
    command += [f"--gin_param={binding}" for binding in bindings]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == 2
