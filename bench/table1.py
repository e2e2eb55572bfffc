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


def _latent(bindings: dict[str, object], searches: tuple[Search, ...] = (), **row: object) -> Row:
    searches = (Search(_BEAM), Search(_BEAM, True), *searches)
    return Row("latent_nat", "table1.gin", bindings, searches=searches, **row)


_HARD = {"latent_nat.bottleneck": "hard_em"}
_SOFT = {"latent_nat.bottleneck": "soft_em"}
_SOFT_10 = _SOFT | {"soft_em.num_samples": 10}
_CTC = _SOFT_10 | {"latent_nat.ctc_places": 2, "latent_nat.reveal": 0.0}
_GUESSED = _CTC | {"latent_nat.ctc_from_source": True, "latent_nat.guessed": 0.5}
_FEW_CODES = _GUESSED | {"latent_nat.num_codes": 32, "latent_nat.num_compress_steps": 3}
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
    "nat_ctc, distilled": Row(
        "nat_ctc",
        "table1_nat.gin",
        searches=NAT_CTC_SEARCHES,
        seeds=SEEDS,
        search_all=True,
        distilled=True,
    ),
    "latent_nat, soft EM, m = 10, distilled, n_c = 3": _latent(
        _SOFT_10 | {"latent_nat.num_compress_steps": 3}, distilled=True
    ),
    "latent_nat, soft EM, m = 10, distilled, n_c = 4": _latent(
        _SOFT_10 | {"latent_nat.num_compress_steps": 4}, distilled=True
    ),
    "latent_nat, soft EM, m = 10, distilled, CTC": _latent(_CTC, _CTC_SEARCHES, distilled=True),
    "latent_nat, soft EM, m = 10, distilled, CTC from the source, guessed": _latent(
        _GUESSED, _FROM_SOURCE_SEARCHES, distilled=True
    ),
    "latent_nat, soft EM, m = 10, distilled, CTC from the source, guessed, few codes": _latent(
        _FEW_CODES, _FROM_SOURCE_SEARCHES, distilled=True
    ),
    "latent_nat, soft EM, m = 10, distilled, CTC from the source, guessed, few codes, prior": _latent(
        _FEW_CODES | {"latent_nat.prior_weight": 1.0},
        PRIOR_SEARCHES,
        seeds=SEEDS,
        search_all=True,
        distilled=True,
    ),
    "latent_nat, soft EM, m = 10, distilled, CTC from the source, guessed, few codes, prior thrice": _latent(
        _FEW_CODES | {"latent_nat.prior_weight": 3.0},
        (
            *_CTC_ONE_PASS,
            Search(_BEAM | _N_GRAMS.bindings, True),
            *(_pooled({"beam_size": 5}, search) for search in (_N_GRAMS, *_TEN_OUTPUTS)),
        ),
        seeds=SEEDS[:2],
        search_all=True,
        distilled=True,
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
