"""The figures of arXiv 1805.11063's Table 1, and which rows of bench/table1.py stand beside them."""

from bench import runs

_SOFT = "latent_nat, soft EM, m = 10, distilled"
_PRIOR = f"{_SOFT}, CTC from the source, guessed, few codes, prior"
_N_GRAMS = "blank_penalty=2.0, lm_weight=0.3"
_TEN = f"{_N_GRAMS}, ctc_candidates=10"
_RERANKED = f"reranked by {runs.RERANKER}_0"
# A system, its BLEU on newstest2014 (WMT'14 En-De), and the row and search of bench/table1.py.
TABLE_1 = (
    ("Transformer, beam of 4", 28.1, runs.RERANKER, "beam_size=4"),
    ("Transformer, greedy", 27.0, runs.RERANKER, "greedy"),
    (None, None, "transformer, 6 and 1 layers", "greedy"),
    ("NAT, distilled (Gu et al.)", 17.7, "nat, distilled", "greedy"),
    ("the same, 10 reranked", 18.7, "nat, distilled", f"num_candidates=10, {_RERANKED}"),
    ("hard EM, n_c = 3", 21.4, "latent_nat, hard EM", "greedy"),
    ("soft EM, m = 5, n_c = 3", 22.4, "latent_nat, soft EM, m = 5", "greedy"),
    ("hard EM, distilled, n_c = 3", 26.4, "latent_nat, hard EM, distilled", "greedy"),
    ("soft EM, m = 10, distilled, n_c = 3", 26.7, _SOFT, "greedy"),
    (None, None, f"{_SOFT}, n_c = 3", "greedy"),
    ("soft EM, m = 10, distilled, n_c = 4", 25.4, f"{_SOFT}, n_c = 4", "greedy"),
    (None, None, "nat_ctc, distilled", "blank_penalty=0.5"),
    (None, None, "nat_ctc, distilled", _N_GRAMS),
    (None, None, "nat_ctc, distilled", f"{_TEN}, {_RERANKED}"),
    (None, None, _PRIOR, "blank_penalty=0.5"),
    (None, None, _PRIOR, f"beam_size=5, {_N_GRAMS}, pool=True"),
    (None, None, _PRIOR, f"beam_size=5, {_TEN}, pool=True, {_RERANKED}"),
)
