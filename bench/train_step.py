"""Tokens per second of the training step by variant, all variants taking turns in one run.

    bin/_run bench.train_step --output=docs/results/train_step.json

Variants: XLA over the whole step or not, float32 or bfloat16, hard or soft EM, and batch shapes. Each lives in a
process of its own (together some 20 GB); all are built first and then take turns, so that a noisy machine slows all
of them alike. The figures are medians. "share" is the part of the machine's matrix-product rate in the same type,
measured in the same turns, that the step's products make up. A row whose compilation takes longer than --patience
seconds is reported as such.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time

DIM, FILTER, HEADS, LAYERS, VOCAB, CODES, COMPRESS = 256, 1024, 4, 3, 4000, 256, 2
SHAPES = ((170, 12), (85, 24), (42, 48))  # about 2,048 padded tokens of one side
VARIANTS = [
    (compile, dtype, bottleneck, SHAPES[1])
    for compile in (False, True)
    for dtype in ("float32", "bfloat16")
    for bottleneck in ("hard_em", "soft_em")
]
VARIANTS += [(False, "bfloat16", "soft_em", shape) for shape in (SHAPES[0], SHAPES[2])]


def multiply_adds(rows: int, length: int) -> float:
    """Multiply-adds of the products of one forward pass: dense layers and attention, without the bottleneck."""
    tokens, latents = rows * length, rows * length / 2**COMPRESS

    def stack(positions: float, keys: float, cross: bool) -> float:
        attention = 4 * DIM * DIM + 2 * keys / rows * DIM
        crossing = (2 * DIM * DIM + 2 * length * DIM + 2 * DIM * DIM * tokens / positions) if cross else 0
        return LAYERS * positions * (attention + crossing + 2 * DIM * FILTER)

    convolutions = sum(tokens / 2**i * (9 + 1) * DIM * DIM for i in range(COMPRESS))
    widening = sum(latents * 2**i * (9 + 2) * DIM * DIM for i in range(COMPRESS))
    stacks = stack(tokens, tokens, False) + stack(latents, latents, True) + stack(tokens, tokens, True)
    ends = tokens * DIM * VOCAB + latents * DIM * (CODES + 1) + 2 * latents * DIM * DIM
    return stacks + convolutions + widening + ends


def worker(pipe, variant) -> None:
    """Builds one variant and times a step whenever it is asked to."""
    compile, dtype, bottleneck, (rows, length) = variant
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import numpy as np
    import tensorflow as tf

    from t2t_vqem import registry
    from t2t_vqem.training import strategy
    from t2t_vqem.training.optimizer import Adam, schedule
    from t2t_vqem.training.step import TrainStep

    with strategy.dtype_policy(dtype):
        model = registry.models.get("latent_nat")(
            VOCAB,
            bottleneck=bottleneck,
            num_codes=CODES,
            num_compress_steps=COMPRESS,
            dim=DIM,
            filter_size=FILTER,
            heads=HEADS,
            encoder_layers=LAYERS,
            predictor_layers=LAYERS,
            decoder_layers=LAYERS,
        )
        model.build_weights()
    variables = [variable.value for variable in model.trainable_variables]
    optimizer = Adam(schedule(1e-3, 100, "constant", 1000), variables)
    step = TrainStep(model, optimizer, tf.distribute.get_strategy(), seed=0, compile=compile)
    draw = np.random.default_rng(0)
    ids = draw.integers(3, VOCAB, [1, rows, length])
    lengths = draw.integers(int(0.7 * length), length + 1, [rows])  # as full as Multi30k's buckets
    for row, end in enumerate(lengths):
        ids[0, row, end - 1], ids[0, row, end:] = 1, 0
    features = {"inputs": tf.constant(ids, tf.int32), "targets": tf.constant(ids, tf.int32)}
    start = time.perf_counter()
    step(features)
    pipe.send((time.perf_counter() - start, int(lengths.sum())))
    kind = tf.bfloat16 if dtype == "bfloat16" else tf.float32
    left, right = (tf.cast(tf.random.normal([2048, 2048]), kind) for _ in range(2))
    product = tf.function(tf.matmul)
    product(left, right)
    while pipe.recv():
        start = time.perf_counter()
        product(left, right)
        middle = time.perf_counter()
        step(features)
        pipe.send((time.perf_counter() - middle, 2048**3 / (middle - start)))


def measure(turns: int, patience: float) -> list[dict]:
    """Returns one row of figures a variant."""
    spawn = multiprocessing.get_context("spawn")
    alive, rows = [], []
    for variant in VARIANTS:
        here, there = spawn.Pipe()
        process = spawn.Process(target=worker, args=(there, variant), daemon=True)
        process.start()
        if here.poll(patience):
            compiled, real = here.recv()
            alive.append((variant, here, process, compiled, real, [], []))
        else:
            process.kill()
            rows.append(describe(variant) | {"first_call_seconds": f"more than {patience:.0f}"})
        print(describe(variant), "ready" if alive and alive[-1][0] == variant else "gave up", flush=True)
    for _ in range(turns):
        for _, pipe, _, _, _, seconds, rates in alive:
            pipe.send(True)
            taken, rate = pipe.recv()
            seconds.append(taken)
            rates.append(rate)
    for variant, pipe, process, compiled, real, seconds, rates in alive:
        pipe.send(False)
        process.join()
        taken, (batch, length) = statistics.median(seconds), variant[3]
        rows.append(
            describe(variant)
            | {
                "padded_tokens_per_second": batch * length / taken,
                "tokens_per_second": real / taken,
                "share_of_matmul_rate": 3 * multiply_adds(batch, length) / taken / statistics.median(rates),
                "matmul_gflops": 2 * statistics.median(rates) / 1e9,
                "first_call_seconds": compiled,
            }
        )
    return rows


def describe(variant) -> dict:
    compile, dtype, bottleneck, shape = variant
    return {"xla": compile, "dtype": dtype, "bottleneck": bottleneck, "batch": list(shape)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=int, default=9, help="timed steps of each variant")
    parser.add_argument("--patience", type=float, default=300, help="seconds for the first call")
    parser.add_argument("--output", help="a JSON file for the rows")
    options = parser.parse_args()
    rows = measure(options.turns, options.patience)
    fastest = max(row.get("padded_tokens_per_second", 0.0) for row in rows)
    print(
        f"\n{'XLA':5} {'type':9} {'bottleneck':10} {'batch':9} {'padded/s':>9} {'real/s':>7} {'ratio':>6} {'share':>6}"
    )
    for row in rows:
        name = (
            f"{row['xla']!s:5} {row['dtype']:9} {row['bottleneck']:10} {'x'.join(map(str, row['batch'])):9}"
        )
        if "tokens_per_second" not in row:
            print(f"{name} first call took {row['first_call_seconds']} s")
            continue
        padded = row["padded_tokens_per_second"]
        print(
            f"{name} {padded:9.0f} {row['tokens_per_second']:7.0f} {padded / fastest:6.2f} "
            f"{row['share_of_matmul_rate']:6.2f}"
        )
    if options.output:
        from t2t_vqem import files

        machine = f"{platform.machine()}, {os.cpu_count()} cores"
        report = {"command": "bench/train_step.py", "turns": options.turns, "machine": machine, "rows": rows}
        files.write_atomic(options.output, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
