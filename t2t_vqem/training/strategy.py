"""Where to train: distribution strategies by name, and what the trainer asks of one."""

import contextlib
import json
import os
from collections.abc import Iterator

import keras
import tensorflow as tf
from absl import logging

from t2t_vqem.errors import UserError, near

NAMES = ("auto", "one", "mirrored", "multi_worker", "tpu")

# Whether `train.compile = "auto"` means XLA on a CPU: the fastest row of bench/train_step.py.
COMPILE_ON_CPU = False


def check_name(name: str) -> None:
    """Raises UserError, naming the nearest, if no strategy is called `name`."""
    if name not in NAMES:
        raise UserError(f'unknown strategy "{name}"{near(name, NAMES)}')


def make(name: str = "auto") -> tf.distribute.Strategy:
    """Returns the strategy of that name; call it before anything else touches TensorFlow's devices.

    "auto" takes what the machine offers: a TPU that the environment names, the workers of TF_CONFIG, all GPUs
    where there are several, else the one device there is. "mirrored" is over all GPUs, or, without any, over
    all logical CPU devices.

    Raises:
      UserError: no such strategy; no TPU answers; `multi_worker` without a usable TF_CONFIG.
    """
    check_name(name)
    if name == "auto":
        name = _auto()
    if name == "tpu":
        strategy = _tpu()
    elif name == "multi_worker":
        strategy = _multi_worker()
    elif name == "mirrored":
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        strategy = tf.distribute.MirroredStrategy([d.name for d in tf.config.list_logical_devices(kind)])
    else:
        strategy = tf.distribute.get_strategy()
    logging.info("strategy %s: %d replica(s)", name, strategy.num_replicas_in_sync)
    return strategy


def _auto() -> str:
    if any(os.environ.get(name) for name in ("TPU_NAME", "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS")):
        return "tpu"
    if sum(len(tasks) for tasks in _cluster().values()) > 1:
        return "multi_worker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one"


def _cluster() -> dict[str, list[str]]:
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
        return {kind: list(cluster.get(kind, [])) for kind in ("chief", "worker")}
    except (ValueError, AttributeError) as error:
        raise UserError(f"the environment variable TF_CONFIG is not a JSON object: {error}") from error


def _tpu() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=os.environ.get("TPU_NAME", "local"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200] or "none is attached to this machine"
        raise UserError(
            f"--strategy=tpu: no TPU answers ({reason}); on a Cloud TPU set TPU_NAME, or use --strategy=one"
        ) from error


def _multi_worker() -> tf.distribute.Strategy:
    if not any(_cluster().values()):
        example = '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
        raise UserError(f"--strategy=multi_worker needs the environment variable TF_CONFIG, e.g. {example}")
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"--strategy=multi_worker: the workers of TF_CONFIG do not meet: {reason}") from error


def pipeline(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Returns (index of this worker, number of workers); the chief is worker 0, a single host (0, 1)."""
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or not resolver.task_type:
        return 0, 1
    cluster = resolver.cluster_spec().as_dict()
    chiefs, workers = (len(cluster.get(kind, [])) for kind in ("chief", "worker"))
    return resolver.task_id + (chiefs if resolver.task_type == "worker" else 0), chiefs + workers


def any_worker(strategy: tf.distribute.Strategy, here: bool) -> bool:
    """Returns whether `here` is true on any worker; all call it, and none returns before all have."""
    if pipeline(strategy)[1] == 1:
        return here
    flags = strategy.experimental_distribute_values_from_function(lambda context: tf.constant(float(here)))
    return bool(strategy.reduce(tf.distribute.ReduceOp.SUM, flags, axis=None) > 0)


def compiles(choice: str | bool, strategy: tf.distribute.Strategy) -> bool:
    """Returns whether XLA should be asked to compile the replica's step; `choice` is `train.compile`."""
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return False  # a TPU compiles the whole of what it runs
    if choice != "auto":
        return bool(choice)
    return bool(tf.config.list_physical_devices("GPU")) or COMPILE_ON_CPU


def compute_dtype(choice: str) -> str:
    """Returns "float32" or "bfloat16"; `choice` is `train.dtype`, "auto" the faster on the device at hand."""
    if choice != "auto":
        return choice
    if tf.config.list_logical_devices("TPU"):
        return "bfloat16"
    if gpus := tf.config.list_physical_devices("GPU"):
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return "bfloat16" if capability >= (8, 0) else "float32"
    # A CPU that multiplies bfloat16 itself is twice as fast with it (bench/train_step.py), any other far slower.
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            native = not {"avx512_bf16", "amx_bf16"}.isdisjoint(file.read().split())
    except OSError:
        native = False
    return "bfloat16" if native else "float32"


class _MixedFloat64(keras.DTypePolicy):
    """Computes in float64 on variables of float32; Keras has no such policy."""

    def _parse_name(self, name: str) -> tuple[str, str]:
        return "float64", "float32"


@contextlib.contextmanager
def dtype_policy(dtype: str) -> Iterator[None]:
    """Layers made inside compute in `dtype`, as `compute_dtype` takes it, or "float64"; variables are float32."""
    before = keras.config.dtype_policy()
    policies = {"bfloat16": "mixed_bfloat16", "float64": _MixedFloat64("mixed_float64")}
    keras.config.set_dtype_policy(policies.get(compute_dtype(dtype), "float32"))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
