"""How fast models decode: greedy with a cache, latents, and CTranslate2 beside them, taking turns in one run.

    bin/_run bench.decode --source_dir=DATA --output=docs/results/decode.json

Random weights, float32, two threads. Sizes: "base" (width 512, filter 2048, 8 heads, 6 + 6 layers, 32,000 pieces;
K = 4096, n_c = 3; sentences of newstest2014) and "multi30k" (the size of gin/multi30k.gin and of its test_2016_flickr;
"few codes" are those of gin/multi30k_few_codes.gin). Every output is as long as its reference, since random weights
never end by themselves; with CTC that is the length of what the latents stand for, and its places are the source's.
Own models run compiled, ids to ids, padded to the smallest bucket. At batch 32 sentences of like length stand
together, and all of them are as long as their references are on average. The figures are medians over sentences (or
batches) and turns, beside the ratio to own greedy. In the JSON stands how fast one large product of matrices is, alone:
what decoders that work on many tokens at once come up against. CTranslate2's rows need that package (see
requirements-dev.txt).
DATA holds the folders newstest/ and multi30k/ of .en and .de files, gzipped or not. The rows of a size and batch are
written when it is done.
"""

import argparse
import concurrent.futures
import itertools
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

BATCHES = (1, 32)
SIZES = {
    "base": {
        "vocabulary": 32_000,
        "stack": {"dim": 512, "filter_size": 2048, "heads": 8},
        "layers": 6,
        # Of predictor and decoder; the third has as many in all as greedy's decoder.
        "latent_layers": ((6, 6), (2, 6), (2, 4), (2, 2)),
        "boundaries": {1: (16, 24, 32, 48), 32: (16, 20, 24, 28, 32, 36, 40, 48)},
        "latents": {"latent": {"num_codes": 4096, "num_compress_steps": 3}},
        "train": [f"newstest/newstest{year}" for year in (2009, 2010, 2011, 2012)],  # of the vocabulary
        "test": "newstest/newstest2014-deen",
    },
    "multi30k": {
        "vocabulary": 4000,
        "stack": {"dim": 256, "filter_size": 1024, "heads": 4},
        "layers": 3,
        "latent_layers": ((3, 3), (2, 3), (2, 1)),
        "boundaries": {1: (12, 16, 20, 32), 32: (12, 16, 20, 24, 32)},
        "latents": {
            "latent": {"num_codes": 256, "num_compress_steps": 2},
            "few codes": {
                "num_codes": 32,
                "num_compress_steps": 3,
                "ctc_places": 2,
                "ctc_from_source": True,
                "reveal": 0.0,
            },
        },
        "train": ["multi30k/train"],
        "test": "multi30k/test_2016_flickr",
    },
}
Decode = Callable[[Sequence[Sequence[int]], int], object]


def sentences(data: str, size: dict, count: int) -> list[tuple[list[int], int]]:
    """Returns (ids of the source, length of the reference) of `count` test sentences, evenly by length."""
    from t2t_vqem.problems import vocabulary
    from t2t_vqem.problems.text_files import find, read_pairs

    def pairs(stem: str) -> list[tuple[str, str]]:
        folder, name = os.path.split(os.path.join(data, stem))
        return list(read_pairs(*(find(folder, f"{name}.{side}") for side in ("en", "de"))))

    text = [line for stem in size["train"] for pair in pairs(stem) for line in pair]
    pieces = vocabulary.Vocabulary(vocabulary.train(text, size["vocabulary"]))
    sources, references = zip(*pairs(size["test"]), strict=True)
    both = zip(pieces.encode(sources), pieces.encode(references), strict=True)
    longest = size["boundaries"][1][-1]
    kept = sorted(((s, len(r)) for s, r in both if len(s) <= longest), key=lambda pair: len(pair[0]))
    return [kept[(2 * i + 1) * len(kept) // (2 * count)] for i in range(count)]


def own(model, rows: int, boundaries: Sequence[int]) -> Decode:
    """Returns a function that decodes with a compiled `infer`; one program a bucket."""
    import numpy as np
    import tensorflow as tf

    from t2t_vqem import fusion

    def decode(inputs, length):
        def most_tokens(mask, group=1):  # the outputs' lengths are given
            most = tf.cast(tf.math.ceil(length / group), tf.int32)
            return tf.fill([rows], most), math.ceil((2 * inputs.shape[1] + 10) / group)

        model.most_tokens = most_tokens
        with fusion.compiled_around(True):
            found = model.infer({"inputs": inputs})
        return found["outputs"], found["calls"]

    def least(length: int) -> int:  # calls of an output that did not end before
        return 1 if model.registered_name == "nat_ctc" else math.ceil(length / getattr(model, "group", 1))

    compiled = tf.function(decode, jit_compile=True, autograph=False)

    def run(batch: Sequence[Sequence[int]], length: int) -> object:
        boundary = next(b for b in boundaries if len(batch[-1]) <= b)
        inputs = np.zeros([rows, boundary], np.int32)
        for row, ids in enumerate(batch):
            inputs[row, : len(ids)] = ids
        outputs, calls = (x.numpy() for x in compiled(tf.constant(inputs), tf.constant(float(length))))
        if calls < least(length):
            raise RuntimeError(f"an output ended before its {length} tokens: the times would mean nothing")
        return outputs

    return run


def models(size: dict) -> dict:
    """Returns the own models by name, with random weights."""
    from t2t_vqem import registry

    stack, layers, vocabulary = size["stack"], size["layers"], size["vocabulary"]
    made = {
        "greedy": registry.models.get("transformer")(
            vocabulary, encoder_layers=layers, decoder_layers=layers, **stack
        ),
        "nat_ctc": registry.models.get("nat_ctc")(
            vocabulary, encoder_layers=layers, decoder_layers=layers, **stack
        ),
    }
    latent_nat = registry.models.get("latent_nat")
    for predictor, decoder in size["latent_layers"]:
        for name, latents in size["latents"].items():
            made[f"{name}, predictor of {predictor}, decoder of {decoder}"] = latent_nat(
                vocabulary,
                encoder_layers=layers,
                predictor_layers=predictor,
                decoder_layers=decoder,
                **stack,
                **latents,
            )
    for model in made.values():
        model.build_weights()
    return made


def peers(model, size: dict, folder: str) -> dict[str, Decode]:
    """Returns CTranslate2 with the weights of `model`, in its variants, or nothing where it is not installed."""
    try:
        import ctranslate2
    except ImportError:
        return {}
    from t2t_vqem.export import ctranslate2_model

    names = ["<pad>", "</s>", "<unk>", *(f"p{i}" for i in range(3, size["vocabulary"]))]
    ctranslate2_model.save(model, names, folder, longest=size["boundaries"][1][-1])

    def variant(compute_type: str, beam_size: int) -> Decode:
        translator = ctranslate2.Translator(folder, device="cpu", compute_type=compute_type, intra_threads=2)

        def run(batch: Sequence[Sequence[int]], length: int) -> object:
            return translator.translate_batch(
                [[names[i] for i in ids[:-1]] for ids in batch],
                beam_size=beam_size,
                min_decoding_length=length,
                max_decoding_length=length,
            )

        return run

    return {
        "CTranslate2 greedy": variant("float32", 1),
        "CTranslate2 beam 4": variant("float32", 4),
        "CTranslate2 greedy, int8": variant("int8", 1),
    }


def measure(
    decoders: dict[str, Decode], batches: Sequence[tuple[list[list[int]], int]], turns: int
) -> dict[str, float]:
    """Returns milliseconds a batch by name; every batch is run once by each before the clock starts."""
    from t2t_vqem import fusion

    for name, decode in decoders.items():
        start = time.perf_counter()
        for batch in batches:
            if not fusion.room_to_compile():
                raise RuntimeError(
                    "too many programs for one process; fewer boundaries or decoders are needed"
                )
            decode(*batch)
        print(f"  {name}: ready after {time.perf_counter() - start:.0f} s", flush=True)
    taken = {name: [] for name in decoders}
    for turn in range(turns):
        for batch in batches:
            names = list(decoders)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                start = time.perf_counter()
                decoders[name](*batch)
                taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(times) for name, times in taken.items()}


def product_rate(turns: int) -> float:
    """Returns the GFLOP/s of a compiled product of float32 matrices, [1024, 512] and [512, 2048], the median."""
    import tensorflow as tf

    left, right = tf.random.normal([1024, 512]), tf.random.normal([512, 2048])
    product = tf.function(tf.matmul, jit_compile=True)
    product(left, right)
    taken = []
    for _ in range(20 * turns):
        start = time.perf_counter()
        product(left, right).numpy()
        taken.append(time.perf_counter() - start)
    return 2 * 1024 * 512 * 2048 / statistics.median(taken) / 1e9


def timed(source_dir: str, name: str, batch: int, number: int, turns: int) -> list[dict]:
    """Returns the rows of a size and batch: of `number` sentences one at a time, or of 128 in batches.

    To be called in a process of its own, for which alone there is `fusion.room_to_compile`.
    """
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(2)
    size = SIZES[name]
    if batch == 1:
        batches = [([ids], length) for ids, length in sentences(source_dir, size, number)]
    else:
        pool = sentences(source_dir, size, batch * 4)
        groups = [pool[i : i + batch] for i in range(0, len(pool), batch)]
        batches = [([ids for ids, _ in g], round(statistics.mean(n for _, n in g))) for g in groups]
    print(f"{name}, batch {batch}", flush=True)
    made = models(size)
    with tempfile.TemporaryDirectory() as folder:
        decoders = {key: own(model, batch, size["boundaries"][batch]) for key, model in made.items()}
        times = measure(decoders | peers(made["greedy"], size, folder), batches, turns)
    rate = product_rate(turns)
    print(f"  one product by itself: {rate:.0f} GFLOP/s", flush=True)
    found = []
    for key, milliseconds in times.items():
        speedup = times["greedy"] / milliseconds
        print(f"  {key:40} {milliseconds:9.1f} ms  {speedup:5.2f} x", flush=True)
        row = {"size": name, "batch": batch, "decoder": key}
        found.append(row | {"milliseconds": milliseconds, "speedup": speedup, "product_gflops": rate})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--source_dir", required=True, help="the folder of newstest/ and multi30k/")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="which of them")
    parser.add_argument(
        "--batches", nargs="+", type=int, choices=BATCHES, default=list(BATCHES), help="which of them"
    )
    parser.add_argument("--sentences", type=int, default=16, help="sentences at batch 1")
    parser.add_argument("--turns", type=int, default=7, help="times that each is decoded under the clock")
    parser.add_argument("--output", help="a JSON file for the rows")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from t2t_vqem import files
    from t2t_vqem.training import record

    found, spawn = [], multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as processes:
        for name, batch in itertools.product(options.sizes, options.batches):
            told = (options.source_dir, name, batch, options.sentences, options.turns)
            found += processes.submit(timed, *told).result()
            if options.output:
                report = {
                    "command": "bench/decode.py",
                    "sentences": options.sentences,
                    "turns": options.turns,
                    "machine": record.machine(),
                    "rows": found,
                }
                files.write_atomic(options.output, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
