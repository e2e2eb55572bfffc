"""Collects finished runs into docs/results/*.json and has bench/tables.py make the tables in docs/ of them.

    bin/_run bench.results --add=docs/results/multi30k.json --name="soft EM" RUN_DIRECTORY
    bin/_run bench.results

The first takes a row from a run's own results.json, run.json and config.gin; the second rewrites every table in
docs/results.md and docs/searches.md that stands between <!-- comparison: FILE --> (or curve, table1, summary, paper,
penalties, rescored, train_step, decode, bottleneck, figure3, cifar10) and <!-- end -->. It needs no TensorFlow.
"""

import argparse
import json
import pathlib
import re
import shlex

from bench import tables
from t2t_vqem import config, files
from t2t_vqem.errors import UserError

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = tuple(DOCS / name for name in ("results.md", "searches.md"))
_KEPT = ("problem", "model", "gin_file", "gin_param", "usr_dir", "train_steps", "seed", "strategy")


def row(name: str, run: pathlib.Path, prior: pathlib.Path | None = None) -> dict:
    """Returns what a table says of a run and of its prior, with the commands that made them (folders left out)."""
    results = json.loads((run / config.RESULTS_FILE).read_text())
    metadata = json.loads((run / config.RUN_FILE).read_text())
    train = results["train"]
    flags = [word for word in shlex.split(metadata["command"])[1:] if word.lstrip("-").split("=")[0] in _KEPT]
    evaluations = {
        key.removeprefix("eval/"): value for key, value in results.items() if key.startswith("eval/")
    }
    return {
        "name": name,
        "command": shlex.join(["bin/trainer", *flags]),
        "gin": [word.split("=", 1)[1] for word in flags if word.startswith("--gin_file=")],
        "seed": train["seed"],
        "steps": train["steps"],
        "seconds": train["seconds"],
        "evaluation_seconds": train["evaluation_seconds"],
        "tokens_per_second": train["tokens_per_second"],
        "padded_tokens_per_second": train["padded_tokens_per_second"],
        "machine": train["machine"],
        "best": train["best"],
        "evaluations": evaluations,
        "curve": [
            {key: value for key, value in evaluation.items() if key == "step" or key.endswith("_ema")}
            | {k: v for k, v in next(x for x in evaluation.values() if isinstance(x, dict)).items()}
            for evaluation in train["evaluations"]
        ],
        "versions": train["versions"],
    } | ({"prior": row("prior", prior)} if prior else {})


def add(path: pathlib.Path, new: dict) -> None:
    """Puts a row into a file of rows, in the place of one of the same name."""
    rows = json.loads(path.read_text()) if path.exists() else []
    by_name = {old["name"]: old for old in rows} | {new["name"]: new}
    files.write_atomic(str(path), json.dumps(list(by_name.values()), indent=1, ensure_ascii=False) + "\n")


def rewrite(page: str) -> str:
    """Returns the page with every marked table made anew."""

    def made(match: re.Match) -> str:
        kind, name = match[1], match[2]
        content = tables.MAKERS[kind](json.loads((DOCS / "results" / name).read_text()))
        return f"<!-- {kind}: {name} -->\n{content}\n<!-- end -->"

    return re.sub(r"<!-- (\w+): (\S+) -->\n.*?<!-- end -->", made, page, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--add", type=pathlib.Path, metavar="JSON", help="the file to put a run's row into")
    parser.add_argument("--name", help="what the tables call the run")
    parser.add_argument("--prior", type=pathlib.Path, metavar="RUN", help="the run of its prior, of pictures")
    parser.add_argument("run", nargs="?", type=pathlib.Path, help="the run's directory")
    options = parser.parse_args()
    if options.add:
        try:
            add(options.add, row(options.name or options.run.name, options.run, options.prior))
        except (OSError, KeyError, UserError) as error:
            parser.error(f"{options.run}: no finished and evaluated run ({error})")
    for page in PAGES:
        files.write_atomic(str(page), rewrite(page.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
