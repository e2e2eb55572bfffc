"""The rows of arXiv 1805.11063's Table 1, and CTC's, on small data at a size of which many runs fit two CPU cores.

    bin/_run bench.table1 --source_dir=MULTI30K --data_dir=data --runs=runs/table1

Trains every row, hard and soft EM on raw and on distilled text with three seeds, and translates val and both test
splits greedily; then, with seed 0, as the row's searches say. The data hold multi30k_ende_distill, which bin/distiller
makes of a teacher. Runs that are finished are not made again, and one that was stopped goes on; --only names rows.
After each of them it writes docs/results/table1.json. So it does with --problem=tatoeba_ende, which is given another
folder of runs, and docs/results/table1_tatoeba.json; --seeds leaves seeds out.
"""

import argparse
import dataclasses
import pathlib

from bench import results, runs

SEEDS = (0, 1, 2)
SPLITS = {"multi30k_ende": ("val", "test_2016_flickr", "test_2017_flickr"), "tatoeba_ende": ("dev", "test")}
ROWS_FILES = {"multi30k_ende": "table1.json", "tatoeba_ende": "table1_tatoeba.json"}
RERANKER = "transformer"


@dataclasses.dataclass(frozen=True)
class Search:
    """A search besides the greedy one: what of decode it binds, and whether the run of RERANKER chooses."""

    bindings: dict[str, object]
    reranked: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """How a row of the table is trained and searched."""

    model: str
    gin_file: str
    bindings: dict[str, object] = dataclasses.field(default_factory=dict)
    distilled: bool = False
    seeds: tuple[int, ...] = SEEDS[:1]
    searches: tuple[Search, ...] = ()


_BEAM, _FEWER_BLANKS = {"beam_size": 10}, {"blank_penalty": 1.0}
_CTC_SEARCHES = (Search(_FEWER_BLANKS), Search(_BEAM | _FEWER_BLANKS, True))


def _latent(bindings: dict[str, object], searches: tuple[Search, ...] = (), **row: object) -> Row:
    searches = (Search(_BEAM), Search(_BEAM, True), *searches)
    return Row("latent_nat", "table1.gin", bindings, searches=searches, **row)


_HARD = {"latent_nat.bottleneck": "hard_em"}
_SOFT = {"latent_nat.bottleneck": "soft_em"}
_SOFT_10 = _SOFT | {"soft_em.num_samples": 10}
_CTC = _SOFT_10 | {"latent_nat.ctc_places": 2, "latent_nat.reveal": 0.0}
_FROM_SOURCE = _CTC | {"latent_nat.ctc_from_source": True}
ROWS = {
    "latent_nat, hard EM": _latent(_HARD, seeds=SEEDS),
    "latent_nat, soft EM, m = 5": _latent(_SOFT | {"soft_em.num_samples": 5}, seeds=SEEDS),
    "latent_nat, hard EM, distilled": _latent(_HARD, seeds=SEEDS, distilled=True),
    "latent_nat, soft EM, m = 10, distilled": _latent(_SOFT_10, seeds=SEEDS, distilled=True),
    RERANKER: Row("transformer", "table1_transformer.gin", searches=(Search({"beam_size": 4}),)),
    "transformer, 6 and 1 layers": Row(
        "transformer",
        "table1_transformer.gin",
        {"transformer.encoder_layers": 6, "transformer.decoder_layers": 1},
    ),
    "nat, distilled": Row(
        "nat", "table1_nat.gin", distilled=True, searches=(Search({"num_candidates": 10}, True),)
    ),
    "nat_ctc, distilled": Row("nat_ctc", "table1_nat.gin", distilled=True, searches=(Search(_FEWER_BLANKS),)),
    "latent_nat, soft EM, m = 10, distilled, n_c = 3": _latent(
        _SOFT_10 | {"latent_nat.num_compress_steps": 3}, distilled=True
    ),
    "latent_nat, soft EM, m = 10, distilled, n_c = 4": _latent(
        _SOFT_10 | {"latent_nat.num_compress_steps": 4}, distilled=True
    ),
    "latent_nat, soft EM, m = 10, distilled, CTC": _latent(
        _CTC, _CTC_SEARCHES, seeds=SEEDS[:2], distilled=True
    ),
    "latent_nat, soft EM, m = 10, distilled, CTC from the source, guessed": _latent(
        _FROM_SOURCE | {"latent_nat.guessed": 0.5}, _CTC_SEARCHES, seeds=SEEDS[:2], distilled=True
    ),
    "latent_nat, soft EM, m = 10, distilled, CTC from the source, three quarters guessed": _latent(
        _FROM_SOURCE | {"latent_nat.guessed": 0.75}, _CTC_SEARCHES, distilled=True
    ),
}


def train(name: str, seed: int, options: argparse.Namespace) -> pathlib.Path:
    """Makes what is missing of one run and of its greedy translations; returns its folder."""
    row, run = ROWS[name], runs.folder(options.runs, name, seed)
    runs.train(
        run,
        row.bindings,
        problem=f"{options.problem}_distill" if row.distilled else options.problem,
        model=row.model,
        gin_file=row.gin_file,
        seed=seed,
        source_dir=None if row.distilled else options.source_dir,
        data_dir=options.data_dir,
    )
    splits = SPLITS[options.problem]
    if not runs.evaluated(run, splits[-1]):
        runs.command("evaluator", model_dir=run, data_dir=options.data_dir, split=",".join(splits))
    return run


def search(name: str, seed: int, options: argparse.Namespace) -> pathlib.Path:
    """Makes what is missing of the other searches of a run that is trained; returns its folder."""
    run, splits = runs.folder(options.runs, name, seed), SPLITS[options.problem]
    for searched in ROWS[name].searches:
        reranker = train(RERANKER, SEEDS[0], options) if searched.reranked else None
        told = [f"{key}={value}" for key, value in searched.bindings.items()]
        told += [f"reranked by {reranker.name}"] if reranker else []
        if runs.evaluated(run, f"{splits[-1]} ({', '.join(told)})"):
            continue
        words = [f"--gin_param=decode.{key} = {value!r}" for key, value in searched.bindings.items()]
        runs.command(
            "evaluator",
            *words,
            model_dir=run,
            data_dir=options.data_dir,
            rerank_model_dir=reranker,
            split=",".join(splits),
        )
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--problem", choices=SPLITS, default="multi30k_ende", help="the text")
    parser.add_argument("--source_dir", help="its published files")
    parser.add_argument("--data_dir", default="data", help="where the generated data lie")
    parser.add_argument("--runs", type=pathlib.Path, required=True, help="the folder of the runs")
    parser.add_argument(
        "--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help="; ".join(ROWS)
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, choices=SEEDS, default=SEEDS, help="of those rows' seeds"
    )
    options = parser.parse_args()
    rows_file = results.DOCS / "results" / ROWS_FILES[options.problem]
    wanted = [(name, seed) for seed in options.seeds for name in options.only if seed in ROWS[name].seeds]
    for name, seed in wanted:
        results.add(rows_file, results.row(f"{name}; seed {seed}", train(name, seed, options)))
    for name in options.only if SEEDS[0] in options.seeds else []:
        results.add(rows_file, results.row(f"{name}; seed {SEEDS[0]}", search(name, SEEDS[0], options)))


if __name__ == "__main__":
    main()
