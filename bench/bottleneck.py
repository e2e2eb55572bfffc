"""Time and peak memory of a bottleneck's step beside two other formulations, all taking turns in one run.

    bin/_run bench.bottleneck --torch_python=PYTHON --output=docs/results/bottleneck.json

A step is forward, backward and M-step at 8,192 positions of 512 numbers, for 2^10 to 2^16 codes, taking the nearest
code or m samples of the posterior, in float32 with two threads. It gives back what is read, the loss and the gradient,
so that none of it is left out. The variants:

  t2t_vqem   hard_em or soft_em of this package, in a graph that XLA does not compile as a whole;
  released   as the code released with arXiv 1805.11063 writes it: a one-hot vector of every sample, whose mean is
             multiplied with the codes, with the encodings, and with the codes once more;
  peer       VectorQuantize of vector-quantize-pytorch with its defaults, or with its stochastic_sample_codes, which
             draw a single sample whatever m is. It needs a Python that has it: python3 -m venv DIRECTORY,
             DIRECTORY/bin/pip install torch vector-quantize-pytorch, --torch_python=DIRECTORY/bin/python;
  product    a single product of the encodings with the codes, which all of them contain.

Each variant of each size lives in a fresh process, and in another for its peak memory: how far the resident set rises
in a step above what it was before, freed memory given back, the most of three. So encodings, codebook and averages are
not in it. What would need more than --memory_gib is not run. Figures are medians over the turns; a size stops after
--seconds, but not before its third turn. Rows of --output that are of other sizes stay: large sizes can have a run of
their own.
"""

import argparse
import ctypes
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

BATCH, LENGTH, DIM, DECAY, BETA = 128, 64, 512, 0.99, 0.25
POSITIONS = BATCH * LENGTH
SCALE = (32 / DIM) ** 0.5  # of encodings and codes: the squared norm 32 that the package scales to
NEAREST = 0  # in the place of m
THREADS = 2
VARIANTS = ("t2t_vqem", "released", "peer", "product")


def matrices(variant: str, samples: int) -> int:
    """Returns how many [positions, codes] float32 matrices a step holds at once, roughly and at most."""
    return {"t2t_vqem": 2, "released": max(samples, 1) + 4, "peer": 9, "product": 1}[variant]


def package(codes: int, samples: int) -> Callable[[], None]:
    tf = tensorflow()
    from t2t_vqem.bottlenecks.em import HardEM, SoftEM
    from t2t_vqem.bottlenecks.settings import CodebookSettings
    from t2t_vqem.context import Training

    settings = CodebookSettings(init="random", decay=DECAY, beta=BETA, warmup_steps=0)
    if samples == NEAREST:
        bottleneck = HardEM(codes, DIM, settings)
    else:
        bottleneck = SoftEM(codes, DIM, settings, num_samples=samples)
    x, upstream = (tf.random.normal([BATCH, LENGTH, DIM], stddev=SCALE) for _ in range(2))
    steps = tf.Variable(0)

    @tf.function(autograph=False)
    def step(x, upstream):
        training = Training(0, steps, tf.range(BATCH), BATCH)
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = bottleneck.e_step(x, None, training)
            loss = output.loss.mean
        bottleneck.m_step(output.statistics)
        steps.assign_add(1)
        gradient = tape.gradient([output.quantized, loss], x, [upstream, tf.ones_like(loss)])
        return output.quantized, loss, gradient

    return lambda: step(x, upstream)


def released(codes: int, samples: int) -> Callable[[], None]:
    """tensor2tensor/models/research/transformer_nat.py: vq_nearest_neighbor, vq_discrete_(un)bottleneck."""
    tf = tensorflow()
    x, upstream = (tf.random.normal([POSITIONS, DIM], stddev=SCALE) for _ in range(2))
    means = tf.Variable(tf.random.normal([codes, DIM], stddev=SCALE))
    averages = tf.Variable(means)
    counts = tf.Variable(tf.fill([codes], POSITIONS / codes))

    @tf.function(autograph=False)
    def step(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            places = tf.stop_gradient(means.read_value())
            squares = tf.reduce_sum(tf.square(x), axis=-1, keepdims=True)
            distances = (
                squares + tf.reduce_sum(tf.square(places), axis=-1) - 2 * tf.matmul(x, places, False, True)
            )
            if samples == NEAREST:
                hot = tf.one_hot(tf.argmax(-distances, axis=-1), codes)
            else:
                hot = tf.reduce_mean(tf.one_hot(tf.random.categorical(-distances, samples), codes), axis=1)
            hot = tf.stop_gradient(hot)
            loss = BETA * tf.reduce_mean(tf.math.squared_difference(x, tf.matmul(hot, places)))
            quantized = x + tf.stop_gradient(tf.matmul(hot, places) - x)
        counts.assign(DECAY * counts + (1 - DECAY) * tf.reduce_sum(hot, axis=0))
        averages.assign(DECAY * averages + (1 - DECAY) * tf.matmul(hot, x, transpose_a=True))
        total = tf.reduce_sum(counts)
        smooth = (counts + 1e-5) / (total + codes * 1e-5) * total
        means.assign(averages / smooth[:, None])
        return quantized, loss, tape.gradient([quantized, loss], x, [upstream, tf.ones_like(loss)])

    return lambda: step(x, upstream)


def peer(codes: int, samples: int) -> Callable[[], None]:
    import torch
    from vector_quantize_pytorch import VectorQuantize

    torch.set_num_threads(THREADS)
    sampled = {} if samples == NEAREST else {"stochastic_sample_codes": True, "sample_codebook_temp": 1.0}
    layer = VectorQuantize(DIM, codes, decay=DECAY, commitment_weight=BETA, **sampled).train()
    with torch.no_grad():
        layer._codebook.embed.normal_(std=SCALE)
        layer._codebook.embed_avg.copy_(layer._codebook.embed)
    x, upstream = (SCALE * torch.randn(BATCH, LENGTH, DIM) for _ in range(2))

    def step():
        encodings = x.detach().requires_grad_(True)
        quantized, _, loss = layer(encodings)
        torch.autograd.backward([quantized, loss.sum()], [upstream, None])
        return quantized, loss, encodings.grad

    return step


def product(codes: int, samples: int) -> Callable[[], None]:
    tf = tensorflow()
    x, places = tf.random.normal([POSITIONS, DIM]), tf.random.normal([codes, DIM])
    step = tf.function(lambda x, places: tf.matmul(x, places, transpose_b=True))
    return lambda: step(x, places)


def tensorflow():
    """Returns TensorFlow, with as many threads as everybody has."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    return tf


def resident(line: str) -> int:
    """Returns "VmRSS" or "VmHWM" of this process in bytes: what is resident, and the most that has been."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(row.split()[1]) * 1024 for row in status if row.startswith(line))


def work(variant: str, codes: int, samples: int, measured: str) -> None:
    """Steps whenever a line comes in, and answers with a line: the step's seconds, or the bytes of its peak."""
    makers = {"t2t_vqem": package, "released": released, "peer": peer, "product": product}
    step = makers[variant](codes, samples)
    step()  # traces, compiles and makes what lasts
    print("ready", flush=True)
    for _ in sys.stdin:
        if measured == "bytes":
            ctypes.CDLL(None).malloc_trim(0)
            with open("/proc/self/clear_refs", "w", encoding="ascii") as refs:
                refs.write("5")  # the highest resident size starts anew
        before, start = resident("VmRSS"), time.perf_counter()
        step()
        seconds = time.perf_counter() - start
        print(seconds if measured == "seconds" else resident("VmHWM") - before, flush=True)


class Worker:
    """A variant of one size in a process of its own, which measures "seconds" or "bytes"."""

    def __init__(self, python: str, variant: str, codes: int, samples: int, measured: str):
        environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "TF_CPP_MIN_LOG_LEVEL": "3"}
        if measured == "bytes":
            # TensorFlow's own allocator never gives memory back, so that no step would rise; the system's is told to
            # give it back at once, so that the peak is what a step holds, not what was left lying around.
            environment |= {"TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
        self.process = subprocess.Popen(
            [python, "-P", __file__, "--worker", variant, str(codes), str(samples), measured],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._answer()  # it is ready: the first steps of two workers shall not overlap

    def _answer(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with status {self.process.wait()}: {self.process.args}")
        return line

    def step(self) -> float:
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(codes: int, samples: int, options: argparse.Namespace) -> dict:
    """Returns the figures of all variants of one size."""
    size = 4 * POSITIONS * codes
    row = {"codes": codes, "samples": samples, "matrix_bytes": size, "turns": 0}
    workers, seconds = {}, {}
    for variant in VARIANTS:
        python = options.torch_python if variant == "peer" else sys.executable
        if python is None:
            continue
        needed = matrices(variant, samples) * size
        if needed > options.memory_gib * 2**30:
            row[variant] = {"does_not_fit": needed}
            continue
        once = Worker(python, variant, codes, samples, "bytes")
        row[variant] = {
            "bytes": max(int(once.step()) for _ in range(3))
        }  # it varies with what runs side by side
        once.close()
        workers[variant] = Worker(python, variant, codes, samples, "seconds")
        seconds[variant] = []
    start = time.perf_counter()
    while row["turns"] < min(3, options.turns) or (
        row["turns"] < options.turns and time.perf_counter() - start < options.seconds
    ):
        for variant, worker in workers.items():
            seconds[variant].append(worker.step())
        row["turns"] += 1
    for variant, worker in workers.items():
        worker.close()
        row[variant]["seconds"] = statistics.median(seconds[variant])
    return row


def cells(row: dict) -> list[str]:
    """Returns a line of the table: seconds, and peak in matrices; then the ratios of the others' to ours."""
    ours, size = row["t2t_vqem"], row["matrix_bytes"]
    samples = "nearest" if row["samples"] == NEAREST else str(row["samples"])
    line = [f"2^{round(math.log2(row['codes']))}", samples]
    for variant in VARIANTS:
        figures = row.get(variant, {})
        if "seconds" in figures:
            line += [f"{figures['seconds']:.2f}", f"{figures['bytes'] / size:.2f}"]
        else:
            line += ["does not fit" if figures else "–", "–"]
    for variant in VARIANTS[1:]:
        seconds = row.get(variant, {}).get("seconds")
        line.append(f"{seconds / ours['seconds']:.2f}" if seconds else "–")
    return line


HEAD = (
    ["codes", "samples"]
    + [title for variant in VARIANTS for title in (f"{variant}, s", "peak")]
    + [f"{variant} / t2t_vqem" for variant in VARIANTS[1:]]
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=int, default=9, help="timed steps of each variant of a size")
    parser.add_argument("--seconds", type=float, default=60, help="after which a size takes no further turns")
    parser.add_argument("--codes", default="10,12,14,16", help="numbers of codes, as powers of 2")
    parser.add_argument("--samples", default="0,1,5,10", help="values of m; 0 is the nearest code")
    parser.add_argument("--memory_gib", type=float, default=24, help="what needs more is not run")
    parser.add_argument("--torch_python", help="a Python with torch and vector-quantize-pytorch")
    parser.add_argument("--output", help="a JSON file for the rows")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        variant, codes, samples, measured = options.worker
        work(variant, int(codes), int(samples), measured)
        return
    from t2t_vqem import files
    from t2t_vqem.training import record

    if options.torch_python is None:
        print("no --torch_python: the figures of vector-quantize-pytorch are left out", file=sys.stderr)
    print(" | ".join(HEAD), flush=True)
    report = {
        "command": "bench/bottleneck.py",
        "memory_gib": options.memory_gib,
        "positions": POSITIONS,
        "dim": DIM,
        "machine": record.machine(),
    }
    rows = {}
    if options.output and os.path.exists(options.output):
        with open(options.output, encoding="utf-8") as file:
            rows = {(row["codes"], row["samples"]): row for row in json.load(file)["rows"]}
    for power in map(int, options.codes.split(",")):
        for samples in map(int, options.samples.split(",")):
            row = measure(2**power, samples, options)
            rows[row["codes"], row["samples"]] = row
            print(" | ".join(cells(row)), flush=True)
            if options.output:  # after each size: the large ones take long
                done = report | {"rows": [rows[size] for size in sorted(rows)]}
                files.write_atomic(options.output, json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main()
