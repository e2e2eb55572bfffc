"""The rows of arXiv 1805.11063's Table 1, and CTC's, on small data at a size of which many runs fit two CPU cores.

    bin/_run bench.table1 --source_dir=MULTI30K --data_dir=data/table1 --runs=runs/table1

Trains every row, three seeds of hard and soft EM on raw and on distilled text, of nat_ctc and of few codes with the
prior, and translates val and both test splits greedily; then, with the first seed or all, as the row's searches say.
Distilled rows learn from the table's own transformer, whose translations are made first; the folder of the data is the
table's own, for another teacher's are refused. Runs that are finished are not made again, and one that was stopped goes
on; --only names rows, --seeds leaves seeds out. After each run it writes docs/results/table1.json, and with
--problem=tatoeba_ende, which is given another folder of runs, docs/results/table1_tatoeba.json.
"""

from bench import results
from bench.rows import Row, Search, Table, arguments
from bench.runs import RERANKER

SEEDS = (0, 1, 2)
SPLITS = {"multi30k_ende": ("val", "test_2016_flickr", "test_2017_flickr"), "tatoeba_ende": ("dev", "test")}
ROWS_FILES = {"multi30k_ende": "table1.json", "tatoeba_ende": "table1_tatoeba.json"}

_BEAM = {"beam_size": 10}
_FEWER_BLANKS = tuple(Search({"blank_penalty": penalty}) for penalty in (0.5, 1.0))  # val chooses
_N_GRAMS = Search({"blank_penalty": 2.0, "lm_weight": 0.3})  # val chose both
_CTC_ONE_PASS = (*_FEWER_BLANKS, _N_GRAMS)
_TEN_OUTPUTS = tuple(
    Search(search.bindings | {"ctc_candidates": 10}, True) for search in (_FEWER_BLANKS[0], _N_GRAMS)
)
NAT_CTC_SEARCHES = _CTC_ONE_PASS + _TEN_OUTPUTS
_CTC_SEARCHES = _CTC_ONE_PASS + tuple(
    Search(_BEAM | search.bindings, reranked) for search in _CTC_ONE_PASS for reranked in (False, True)
)


def _pooled(latents: dict[str, object], search: Search) -> Search:
    return Search(latents | search.bindings | {"pool": True}, search.reranked)


_FROM_SOURCE_SEARCHES = (  # places of the source can be pooled
    *_CTC_SEARCHES,
    *(_pooled({"beam_size": 5}, search) for search in _CTC_ONE_PASS),
    _pooled({"num_candidates": 10, "temperature": 1.0}, _N_GRAMS),
)
PRIOR_SEARCHES = (
    *_FROM_SOURCE_SEARCHES,
    *_TEN_OUTPUTS,
    *(_pooled({"beam_size": 5}, search) for search in _TEN_OUTPUTS),
)


def _latent(gin_file: str, searches: tuple[Search, ...] = (), **row: object) -> Row:
    return Row("latent_nat", gin_file, searches=(Search(_BEAM), Search(_BEAM, True), *searches), **row)


_ALL_SEEDS = {"distilled": True, "seeds": SEEDS, "search_all": True}
ROWS = {
    "latent_nat, hard EM": _latent("table1_hard_em.gin", seeds=SEEDS),
    "latent_nat, soft EM, m = 5": _latent("table1_soft_em_m5.gin", seeds=SEEDS),
    "latent_nat, hard EM, distilled": _latent("table1_hard_em.gin", seeds=SEEDS, distilled=True),
    "latent_nat, soft EM, m = 10, distilled": _latent("table1_soft_em_m10.gin", seeds=SEEDS, distilled=True),
    RERANKER: Row("transformer", "table1_transformer.gin", searches=(Search({"beam_size": 4}),)),
    "transformer, 6 and 1 layers": Row("transformer", "table1_transformer_6_1.gin"),
    "nat, distilled": Row(
        "nat", "table1_nat.gin", searches=(Search({"num_candidates": 10}, True),), distilled=True
    ),
    "nat_ctc, distilled": Row("nat_ctc", "table1_nat_ctc.gin", searches=NAT_CTC_SEARCHES, **_ALL_SEEDS),
    "latent_nat, soft EM, m = 10, distilled, n_c = 3": _latent("table1_nc3.gin", distilled=True),
    "latent_nat, soft EM, m = 10, distilled, n_c = 4": _latent("table1_nc4.gin", distilled=True),
    "latent_nat, soft EM, m = 10, distilled, CTC": _latent("table1_ctc.gin", _CTC_SEARCHES, distilled=True),
    "latent_nat, soft EM, m = 10, distilled, CTC from the source, guessed": _latent(
        "table1_guessed.gin", _FROM_SOURCE_SEARCHES, distilled=True
    ),
    "latent_nat, soft EM, m = 10, distilled, CTC from the source, guessed, few codes": _latent(
        "table1_few_codes.gin", _FROM_SOURCE_SEARCHES, distilled=True
    ),
    "latent_nat, soft EM, m = 10, distilled, CTC from the source, guessed, few codes, prior": _latent(
        "table1_few_codes_prior.gin", PRIOR_SEARCHES, **_ALL_SEEDS
    ),
    "latent_nat, soft EM, m = 10, distilled, CTC from the source, guessed, few codes, prior thrice": _latent(
        "table1_few_codes_prior_thrice.gin",
        (
            *_CTC_ONE_PASS,
            Search(_BEAM | _N_GRAMS.bindings, True),
            *(_pooled({"beam_size": 5}, search) for search in (_N_GRAMS, *_TEN_OUTPUTS)),
        ),
        **_ALL_SEEDS | {"seeds": SEEDS[:2]},
    ),
}


def main() -> None:
    parser = arguments(__doc__, ROWS)
    parser.add_argument("--problem", choices=SPLITS, default="multi30k_ende", help="the text")
    parser.add_argument("--source_dir", help="its published files")
    options = parser.parse_args()
    table = Table(
        ROWS, options.problem, SPLITS[options.problem], options.runs, options.data_dir, options.source_dir
    )
    output = options.output or results.DOCS / "results" / ROWS_FILES[options.problem]
    table.make(options.only, options.seeds, output)


if __name__ == "__main__":
    main()
