"""The levers of latent_nat one at a time, each with two seeds, beside rows of bench/table1.py in half of its steps.

    bin/_run bench.levers --data_dir=data/table1 --runs=runs/levers

The data hold multi30k_ende_distill, which bench.table1 makes. Runs that are finished are not made again, and one that
was stopped goes on; --only names levers. After each of them it writes docs/results/levers.json, val alone: levers are
chosen there.
"""

from bench import results, table1
from bench.rows import Row, Search, Table, arguments

PLAIN = table1.ROWS["latent_nat, soft EM, m = 10, distilled"]
FEW_CODES = table1.ROWS["latent_nat, soft EM, m = 10, distilled, CTC from the source, guessed, few codes"]


def _lever(base: Row, bindings: dict[str, object] | None = None, searches: tuple[Search, ...] = ()) -> Row:
    return Row(
        base.model,
        base.gin_file,
        base.bindings | (bindings or {}),
        distilled=True,
        seeds=(0, 1),
        searches=searches,
        search_all=True,
        train_steps=750,
    )


_BLANKS_COST_A_NAT = (Search({"blank_penalty": 1.0}),)
LEVERS = {
    "none": _lever(PLAIN),
    "reveal = 0": _lever(PLAIN, {"latent_nat.reveal": 0.0}),
    "dropout = 0.2": _lever(PLAIN, {"latent_nat.dropout": 0.2}),
    "compressor_attends": _lever(PLAIN, {"latent_nat.compressor_attends": True}),
    "target_masking = 0.2": _lever(PLAIN, {"latent_nat.target_masking": 0.2}),
    "ema_decay = 0.995": _lever(PLAIN, {"train.ema_decay": 0.995}),
    "reveal = 0, ctc_places = 2": _lever(
        PLAIN, {"latent_nat.reveal": 0.0, "latent_nat.ctc_places": 2}, _BLANKS_COST_A_NAT
    ),
    "few codes": _lever(FEW_CODES, searches=_BLANKS_COST_A_NAT),
    "few codes, prior_weight = 1": _lever(FEW_CODES, {"latent_nat.prior_weight": 1.0}, _BLANKS_COST_A_NAT),
    "few codes, prior_weight = 1, decoder_layers = 1": _lever(
        FEW_CODES, {"latent_nat.prior_weight": 1.0, "latent_nat.decoder_layers": 1}, _BLANKS_COST_A_NAT
    ),
    "few codes, prior_weight = 3": _lever(FEW_CODES, {"latent_nat.prior_weight": 3.0}, _BLANKS_COST_A_NAT),
    "nat_ctc": _lever(table1.ROWS["nat_ctc, distilled"], searches=_BLANKS_COST_A_NAT),
}


def main() -> None:
    options = arguments(__doc__, LEVERS).parse_args()
    table = Table(LEVERS, "multi30k_ende", ("val",), options.runs, options.data_dir)
    table.make(options.only, options.seeds, options.output or results.DOCS / "results" / "levers.json")


if __name__ == "__main__":
    main()
