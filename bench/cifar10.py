"""Discretisations compared on CIFAR-10: equal models, equal steps, and over the codes of each the same prior.

    bin/_run bench.cifar10 --source_dir=cifar-10-batches-py --data_dir=data --runs=runs/cifar10_comparison

Trains gin/cifar10_comparison.gin with every bottleneck, hard EM and soft EM with three seeds, with and without
revival of dead codes, writes the codes of each (drawn from the posterior where soft EM keeps one), trains
gin/cifar10_comparison_prior.gin on them, and evaluates both on val and test. Runs that are finished are not made again,
and one that was stopped goes on; --only names rows. Then writes docs/results/cifar10.json. With --seeds two processes
share the work, on one machine; each has the cores that taskset gives it.
"""

import argparse
import dataclasses
import pathlib

from bench import results, runs

SEEDS = (0, 1, 2)


@dataclasses.dataclass(frozen=True)
class Row:
    """What a row of the table binds, its seeds, and whether its prior learns codes drawn from the posterior."""

    bindings: dict[str, object]
    seeds: tuple[int, ...] = SEEDS[:1]
    drawn: bool = False


_HARD = {"vqvae.bottleneck": "hard_em"}
_SOFT = {"vqvae.bottleneck": "soft_em", "soft_em.num_samples": 5}
_SOFT_10 = {"vqvae.bottleneck": "soft_em", "soft_em.num_samples": 10}
_TO_NEAREST = {"codebook.final_temperature": 0.05}  # in the end the samples of soft EM are the nearest code
_NO_REVIVAL = {"codebook.revival_threshold": 0.0}
BOTTLENECKS = {
    "hard EM": Row(_HARD, SEEDS),
    "soft EM, m = 5": Row(_SOFT | _TO_NEAREST, SEEDS),
    "soft EM, m = 10": Row(_SOFT_10 | _TO_NEAREST),
    "hard EM, no revival": Row(_HARD | _NO_REVIVAL, SEEDS),
    "soft EM, m = 10, no revival": Row(_SOFT_10 | _TO_NEAREST | _NO_REVIVAL),
    "soft EM, m = 5, T = 1, no revival": Row(_SOFT | _NO_REVIVAL, SEEDS, drawn=True),
    "gradient VQ": Row({"vqvae.bottleneck": "gradient_vq"}),
    # Annealed as in arXiv 1611.01144.
    "Gumbel softmax": Row({"vqvae.bottleneck": "gumbel_softmax", "codebook.final_temperature": 0.5}),
    "FSQ": Row({"vqvae.bottleneck": "fsq"}),
}
ROWS = results.DOCS / "results" / "cifar10.json"


def make(name: str, seed: int, options: argparse.Namespace) -> dict:
    """Makes what is missing of one run, its codes and its prior; returns its row."""
    row, run = BOTTLENECKS[name], runs.folder(options.runs, name, seed)
    prior, data = run.with_name(f"{run.name}_prior"), run.with_name(f"{run.name}_data")
    runs.train(
        run,
        row.bindings,
        problem="cifar10",
        model="vqvae",
        gin_file="cifar10_comparison.gin",
        seed=seed,
        source_dir=options.source_dir,
        data_dir=options.data_dir,
    )
    if runs.evaluated(run, "test (prior*"):
        return results.row(f"{name}; seed {seed}", run, prior)
    data.mkdir(exist_ok=True)  # the pictures are every run's, the codes its own
    pictures = data / "cifar10"
    if not pictures.is_symlink():
        pictures.symlink_to((options.data_dir / "cifar10").resolve())
    runs.command("encoder", *(["--drawn"] if row.drawn else []), model_dir=run, data_dir=data)
    runs.train(
        prior,
        {},
        problem="cifar10_codes",
        model="latent_prior",
        gin_file="cifar10_comparison_prior.gin",
        seed=seed,
        data_dir=data,
    )
    runs.command("evaluator", model_dir=run, prior_model_dir=prior, split="val,test")
    return results.row(f"{name}; seed {seed}", run, prior)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--source_dir", help="the published files of CIFAR-10")
    parser.add_argument("--data_dir", type=pathlib.Path, default="data", help="where the generated data lie")
    parser.add_argument("--runs", type=pathlib.Path, required=True, help="the folder of the runs")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=BOTTLENECKS,
        default=list(BOTTLENECKS),
        metavar="ROW",
        help="; ".join(BOTTLENECKS),
    )
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=SEEDS)
    options = parser.parse_args()
    for seed in options.seeds:
        for name in options.only:
            if seed in BOTTLENECKS[name].seeds:
                results.add(ROWS, make(name, seed, options))


if __name__ == "__main__":
    main()
