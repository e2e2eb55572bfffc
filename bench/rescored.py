"""What n-grams of the language give a transformer: the ten candidates of its beam, ranked with and without them.

    bin/_run bench.rescored --data_dir=data/table1 --run=runs/table1/transformer_0 \\
        --ngrams=runs/table1/nat_ctc_distilled_0/ngrams.npz

Candidates are ranked by log P(y | x) + weight * log P(y) a token, the second by the n-grams, as where CTC is read with
them; of what both say of a text, encoded again. The first split chooses the weight. Writes docs/results/rescored.json,
or what --output says.
"""

import argparse
import json
import pathlib

from bench import results, runs, table1
from t2t_vqem import config, files
from t2t_vqem.ngrams import NGrams

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5)
CANDIDATES = 10


def ranked(found: list[list[tuple[float, float, int, str]]], weight: float) -> list[str]:
    """Returns the best text of each line, "" where there is none.

    Args:
      found: of each line its candidates: log P(y | x), log P(y), number of tokens, text.
    """

    def rank(candidate: tuple[float, float, int, str]) -> float:
        score, said, tokens, _ = candidate
        return (score + weight * said) / tokens

    return [max(candidates, key=rank)[-1] if candidates else "" for candidates in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", type=pathlib.Path, required=True, help="of transformer, in bench/table1.py")
    parser.add_argument("--ngrams", required=True, help="a file of bin/ngrams, of the same vocabulary")
    parser.add_argument("--data_dir", default="data", help="where the generated data lie")
    parser.add_argument("--output", type=pathlib.Path, default=results.DOCS / "results" / "rescored.json")
    options = parser.parse_args()
    metadata = config.read_run(str(options.run))
    config.parse_run(str(options.run), gin_params=[f"decode.beam_size = {CANDIDATES}"])

    from t2t_vqem.decoding.translator import Translator
    from t2t_vqem.training.runs import open_run

    made = results.row(runs.RERANKER, options.run)
    run, counted = open_run(str(options.run), "best", metadata), NGrams.load(options.ngrams)
    if counted.vocabulary_hash != run.vocabulary.hash:
        parser.error(f"{options.ngrams}: n-grams of another vocabulary than {options.run}'s")
    train = run.train_config
    translator = Translator(
        run.model, run.vocabulary, boundaries=train.boundaries, batch_tokens=train.batch_tokens
    )

    def candidate(score: float, text: str) -> tuple[float, float, int, str]:
        nats, tokens = counted.nats(run.vocabulary.encode([text]))
        return score, -nats, tokens, text

    rows = []
    for split in table1.SPLITS[metadata.problem]:
        sources, references = run.problem.texts(split, options.data_dir)
        found = [[candidate(*pair) for pair in line] for line in translator.candidates(sources)]
        for weight in WEIGHTS:
            scores = run.problem.score(ranked(found, weight), references)
            rows.append({"split": split, "weight": weight, **scores})
            print(f"{split}, weight {weight}: BLEU {scores['bleu']:.2f}", flush=True)
    report = {"command": made["command"], "step": run.step, "ngrams": counted.digest, "rows": rows}
    files.write_atomic(str(options.output), json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
