"""Rows of a table of translation runs: how they are trained, judged and searched. What is there is not made again."""

import argparse
import dataclasses
import pathlib
from collections.abc import Mapping

from bench import results, runs
from bench.runs import RERANKER
from t2t_vqem import ngrams


@dataclasses.dataclass(frozen=True)
class Search:
    """A search besides the greedy one: what of decode it binds, and whether the run of RERANKER chooses."""

    bindings: dict[str, object]
    reranked: bool = False

    @property
    def name(self) -> str:
        """What bin/evaluator calls it, but for the reranker."""
        return ", ".join(f"{key}={value}" for key, value in self.bindings.items())


@dataclasses.dataclass(frozen=True)
class Row:
    """How a row of the table is trained and searched.

    Attributes:
      distilled: whether it learns from a teacher's translations, which bin/distiller made.
      searches: of its first seed, or of all where `search_all` says so.
      train_steps: None is what the gin file says.
    """

    model: str
    gin_file: str
    bindings: dict[str, object] = dataclasses.field(default_factory=dict)
    distilled: bool = False
    seeds: tuple[int, ...] = (0,)
    searches: tuple[Search, ...] = ()
    search_all: bool = False
    train_steps: int | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows by name on the text of one problem, whose runs lie in one folder.

    Attributes:
      splits: what every run translates.
      source_dir: the text's published files, for rows that are not distilled.
    """

    rows: Mapping[str, Row]
    problem: str
    splits: tuple[str, ...]
    runs: pathlib.Path
    data_dir: str
    source_dir: str | None = None

    def make(self, names: list[str], seeds: tuple[int, ...], output: pathlib.Path) -> None:
        """Makes the named rows' runs of `seeds`, then their searches; writes `output` after each of them.

        Where some of them are distilled and the table has a RERANKER, they learn from its translations, made first.
        """
        if RERANKER in self.rows and any(self.rows[name].distilled for name in names):
            self.distil()
        wanted = [(name, seed) for seed in seeds for name in names if seed in self.rows[name].seeds]
        for name, seed in wanted:
            results.add(output, results.row(f"{name}; seed {seed}", self.train(name, seed)))
        for name, seed in wanted:
            if seed == self.rows[name].seeds[0] or self.rows[name].search_all:
                results.add(output, results.row(f"{name}; seed {seed}", self.search(name, seed)))

    def distil(self) -> None:
        """Has the run of RERANKER translate the text with a beam of four, as far as that is not done.

        Raises:
          CalledProcessError: the data hold another teacher's translations; bin/distiller says so.
        """
        beam = "--gin_param=decode.beam_size = 4"
        runs.command("distiller", beam, model_dir=self.reranker(), data_dir=self.data_dir)

    def reranker(self) -> pathlib.Path:
        """Makes what is missing of the run that distils and reranks; returns its folder."""
        return self.train(RERANKER, self.rows[RERANKER].seeds[0])

    def train(self, name: str, seed: int) -> pathlib.Path:
        """Makes what is missing of one run and of its greedy translations; returns its folder."""
        row, run = self.rows[name], runs.folder(self.runs, name, seed)
        runs.train(
            run,
            row.bindings,
            problem=f"{self.problem}_distill" if row.distilled else self.problem,
            model=row.model,
            gin_file=row.gin_file,
            seed=seed,
            source_dir=None if row.distilled else self.source_dir,
            data_dir=self.data_dir,
            train_steps=row.train_steps,
        )
        if not runs.evaluated(run, self.splits[-1]):
            runs.command("evaluator", model_dir=run, data_dir=self.data_dir, split=",".join(self.splits))
        return run

    def search(self, name: str, seed: int) -> pathlib.Path:
        """Makes what is missing of the other searches of a run that is trained; returns its folder."""
        run = runs.folder(self.runs, name, seed)
        weighed = any("lm_weight" in searched.bindings for searched in self.rows[name].searches)
        if weighed and not (run / ngrams.FILE).exists():
            runs.command("ngrams", model_dir=run, data_dir=self.data_dir)
        for searched in self.rows[name].searches:
            reranker = self.reranker() if searched.reranked else None
            told = searched.name + (f", reranked by {reranker.name}" if reranker else "")
            if runs.evaluated(run, f"{self.splits[-1]} ({told})"):
                continue
            words = [f"--gin_param=decode.{key} = {value!r}" for key, value in searched.bindings.items()]
            runs.command(
                "evaluator",
                *words,
                model_dir=run,
                data_dir=self.data_dir,
                rerank_model_dir=reranker,
                split=",".join(self.splits),
            )
        return run


def arguments(description: str, rows: Mapping[str, Row]) -> argparse.ArgumentParser:
    """Returns a parser of what every table's script is told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data_dir", default="data", help="where the generated data lie")
    parser.add_argument("--runs", type=pathlib.Path, required=True, help="the folder of the runs")
    parser.add_argument(
        "--only", nargs="+", choices=rows, default=list(rows), metavar="ROW", help="; ".join(rows)
    )
    seeds = sorted({seed for row in rows.values() for seed in row.seeds})
    parser.add_argument(
        "--seeds", nargs="+", type=int, choices=seeds, default=seeds, help="of those rows' seeds"
    )
    parser.add_argument(
        "--output", type=pathlib.Path, help="another file of rows than that of the page's table"
    )
    return parser
