"""The levers of latent_nat one at a time, each with two seeds, beside the distilled soft EM row of bench/table1.py.

    bin/_run bench.levers --data_dir=data --runs=runs/levers

The data hold multi30k_ende_distill, which bin/distiller makes of a teacher. Runs that are finished are not made again,
and one that was stopped goes on; --only names levers. After each of them it writes docs/results/levers.json, val alone:
levers are chosen there.
"""

import argparse
import pathlib

from bench import results, runs, table1

SEEDS = (0, 1)
STEPS = 750
BASE = table1.ROWS["latent_nat, soft EM, m = 10, distilled"]
LEVERS = {
    "none": {},
    "reveal = 0": {"latent_nat.reveal": 0.0},
    "dropout = 0.2": {"latent_nat.dropout": 0.2},
    "compressor_attends": {"latent_nat.compressor_attends": True},
    "target_masking = 0.2": {"latent_nat.target_masking": 0.2},
    "ema_decay = 0.995": {"train.ema_decay": 0.995},
}


def train(name: str, seed: int, options: argparse.Namespace) -> pathlib.Path:
    """Makes what is missing of one run and of its evaluation on val; returns its folder."""
    run = runs.folder(options.runs, name, seed)
    runs.train(
        run,
        BASE.bindings | LEVERS[name],
        problem="multi30k_ende_distill",
        model=BASE.model,
        gin_file=BASE.gin_file,
        seed=seed,
        data_dir=options.data_dir,
        train_steps=STEPS,
    )
    if not runs.evaluated(run, "val"):
        runs.command("evaluator", model_dir=run, data_dir=options.data_dir, split="val")
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data_dir", default="data", help="where the generated data lie")
    parser.add_argument("--runs", type=pathlib.Path, required=True, help="the folder of the runs")
    parser.add_argument(
        "--only", nargs="+", choices=LEVERS, default=list(LEVERS), metavar="LEVER", help="; ".join(LEVERS)
    )
    options = parser.parse_args()
    for name in options.only:
        for seed in SEEDS:
            row = results.row(f"{name}; seed {seed}", train(name, seed, options))
            results.add(results.DOCS / "results" / "levers.json", row)


if __name__ == "__main__":
    main()
