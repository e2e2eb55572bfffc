"""Figure 3 of arXiv 1805.11063, remade: what collapses a large codebook, its start or the E-step?

    bin/_run bench.figure3 --source_dir=MULTI30K --data_dir=data --runs=runs/figure3

Trains gin/figure3.gin with hard EM and soft EM (m = 5, 10), from the released code's start and from data, with three
seeds each; runs that are finished are not made again, and one that was stopped goes on. Then writes
docs/results/figure3.json and docs/figure3.png: BLEU from true latents, live codes and perplexity on val over training,
means over seeds with their range. --picture draws from the JSON alone.
"""

import argparse
import io
import itertools
import json
import pathlib

from bench import results, runs, tables
from t2t_vqem import files

E_STEPS = {"hard EM": ("hard_em", 1), "soft EM, m = 5": ("soft_em", 5), "soft EM, m = 10": ("soft_em", 10)}
STARTS = ("released", "data")
SEEDS = (0, 1, 2)
PANELS = {
    "reconstruction_bleu": "BLEU from true latents",
    "live_codes": "codes in use on val",
    "codebook_perplexity": "perplexity of the codes on val",
}
COLOURS = {"hard EM": "#2e8b57", "soft EM, m = 5": "#d99a00", "soft EM, m = 10": "#3465a4"}


def picture(rows: list[dict]) -> bytes:
    """Returns a PNG with a panel for each of PANELS."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for (e_step, start), points in tables.over_seeds(rows, key).items():
            steps = sorted(points)
            values = [points[step] for step in steps]
            style = {"color": COLOURS[e_step], "linestyle": "-" if start == "data" else "--"}
            axes.plot(steps, [sum(v) / len(v) for v in values], label=f"{e_step}, {start}", **style)
            lowest, highest = ([f(v) for v in values] for f in (min, max))
            axes.fill_between(steps, lowest, highest, color=COLOURS[e_step], alpha=0.12, linewidth=0)
        axes.set(title=title, xlabel="step")
        if key != "reconstruction_bleu":
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    title = "E-step, start of the codebook"
    figure.legend(handles, labels, loc="outside right center", fontsize=8, title=title, title_fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--source_dir", help="the published files of Multi30k")
    parser.add_argument("--data_dir", default="data", help="where the generated data lie")
    parser.add_argument("--runs", type=pathlib.Path, help="the folder of the runs")
    parser.add_argument("--picture", action="store_true", help="only draw")
    options = parser.parse_args()
    rows_path = results.DOCS / "results" / "figure3.json"
    if not options.picture:
        if options.runs is None:
            parser.error("--runs is missing")
        # Seed by seed, so that a set that was stopped early has whole seeds.
        for seed, e_step, start in itertools.product(SEEDS, E_STEPS, STARTS):
            bottleneck, samples = E_STEPS[e_step]
            run = options.runs / f"{bottleneck}_{samples}_{start}_{seed}"
            bindings = {
                "latent_nat.bottleneck": bottleneck,
                "codebook.init": start,
                "soft_em.num_samples": samples,
            }
            runs.train(
                run,
                bindings,
                problem="multi30k_ende",
                model="latent_nat",
                gin_file="figure3.gin",
                seed=seed,
                source_dir=options.source_dir,
                data_dir=options.data_dir,
            )
            results.add(rows_path, results.row(f"{e_step}; {start}; seed {seed}", run))
    files.write_atomic(str(results.DOCS / "figure3.png"), picture(json.loads(rows_path.read_text())))


if __name__ == "__main__":
    main()
