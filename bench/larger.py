"""Rows of bench/table1.py at a larger size, 256 wide, three layers, one seed: teacher, students, and raw text.

    bin/_run bench.larger --source_dir=MULTI30K --data_dir=data/larger --runs=runs/larger

Trains gin/multi30k_transformer.gin for 6,000 steps, has it translate its training set, and trains on that what
gin/multi30k_nat_ctc.gin and gin/multi30k_few_codes.gin say, and on the text itself gin/multi30k.gin, 3,000 steps each;
translates val and both test splits greedily and as the rows' searches say. Runs that are finished are not made again,
and one that was stopped goes on; --only names rows. After each run it writes docs/results/larger.json.
"""

from bench import results, table1
from bench.rows import Row, Search, Table, arguments
from bench.runs import RERANKER

ROWS = {
    RERANKER: Row("transformer", "multi30k_transformer.gin", searches=(Search({"beam_size": 4}),)),
    "latent_nat, soft EM, m = 5": Row(
        "latent_nat",
        "multi30k.gin",
        {"latent_nat.bottleneck": "soft_em", "soft_em.num_samples": 5},
        searches=(Search({"beam_size": 10}), Search({"beam_size": 10}, True)),
    ),
    "nat_ctc, distilled": Row(
        "nat_ctc", "multi30k_nat_ctc.gin", distilled=True, searches=table1.NAT_CTC_SEARCHES
    ),
    "latent_nat, few codes, prior, distilled": Row(
        "latent_nat", "multi30k_few_codes.gin", distilled=True, searches=table1.PRIOR_SEARCHES
    ),
}


def main() -> None:
    parser = arguments(__doc__, ROWS)
    parser.add_argument("--source_dir", help="the published files of Multi30k")
    options = parser.parse_args()
    splits = table1.SPLITS["multi30k_ende"]
    table = Table(ROWS, "multi30k_ende", splits, options.runs, options.data_dir, options.source_dir)
    table.make(options.only, options.seeds, options.output or results.DOCS / "results" / "larger.json")


if __name__ == "__main__":
    main()
