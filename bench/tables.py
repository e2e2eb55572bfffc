"""Markdown tables for docs/results.md and searches.md: of rows that bench/results.py collects, and of reports."""

import collections
import re
import statistics
from collections.abc import Iterable, Mapping

from bench import paper_figures, runs

_WITHOUT_TEMPERATURE = ("hard EM", "gradient VQ")  # whose softness is that of a posterior they never use
_GREEDY, _PENALTY = "greedy", "blank_penalty"


def _line(cells: Iterable[str]) -> str:
    """Returns a line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def _head(titles: list[str]) -> list[str]:
    """Returns the first lines of a Markdown table."""
    return [_line(titles), "|" + "---|" * len(titles)]


def _split_and_search(evaluation: str) -> tuple[str, str]:
    """Returns the two of the name that bin/evaluator gives an evaluation, as "val (beam_size=10)"."""
    split, _, search = evaluation.removesuffix(")").partition(" (")
    return split, search or _GREEDY


def _bleu(rows: list[dict]) -> str:
    signatures = {v["bleu_signature"] for e in rows for v in e["evaluations"].values()}
    return f"BLEU: sacreBLEU {', '.join(f'`{signature}`' for signature in sorted(signatures))}."


def _made(rows: list[dict]) -> list[str]:
    """Returns what BLEU is, and of each run the command, time and machine."""
    lines = ["", _bleu(rows), ""]
    for entry in rows:
        machine = f"{entry['machine']['cpu']}, {_cores(entry)}"
        steps = {values["step"] for values in entry["evaluations"].values()}
        lines.append(
            f"- **{entry['name']}**: `{entry['command']}`; seed {entry['seed']}, {entry['steps']} steps in "
            f"{entry['seconds'] / 60:.0f} minutes and {entry['evaluation_seconds'] / 60:.0f} of evaluation on "
            f"{machine} (shared), {entry['tokens_per_second']:.0f} target tokens/s "
            f"({entry['padded_tokens_per_second']:.0f} padded); figures at step {', '.join(map(str, steps))}, "
            f"{', '.join(sorted({values['checkpoint'] for values in entry['evaluations'].values()}))} on val."
        )
    return lines


def comparison(rows: list[dict]) -> str:
    """Returns Markdown: a line for each run and search, with BLEU on each split, then how each run was made."""
    found: dict[tuple[str, str], dict[str, dict]] = {}
    for entry in rows:
        for name, values in entry["evaluations"].items():
            split, search = _split_and_search(name)
            found.setdefault((entry["name"], search), {})[split] = values
    splits = _splits(found)
    details = {"BLEU from true latents": "reconstruction_bleu", "latent accuracy": "latent_accuracy"}
    details |= {"length ratio": "length_ratio", "live codes": "live_codes"}
    head = ["run", "search", *splits, *(f"{title}, {splits[0]}" for title in details)]
    lines = _head(head)
    for (name, searched), by_split in found.items():
        scores = [f"{by_split[split]['bleu']:.2f}" if split in by_split else "–" for split in splits]
        first = by_split.get(splits[0], {})
        cells = [f"{first[key]:.3g}" if key in first else "–" for key in details.values()]
        lines.append(_line([name, searched, *scores, *cells]))
    return "\n".join([*lines, *_made(rows)])


def curve(rows: list[dict]) -> str:
    """Returns Markdown: the development of each run on the split it is selected on."""
    keys = ("bleu", "reconstruction_bleu", "latent_nll", "latent_accuracy", "nll", "codebook_perplexity")
    head = ["run", "step", *keys]
    lines = _head(head)
    shown: list[list[dict]] = []
    for entry in rows:
        if entry["curve"] in shown:  # the same run, evaluated otherwise
            continue
        shown.append(entry["curve"])
        for point in entry["curve"]:
            cells = [f"{point[key]:.2f}" if key in point else "–" for key in keys]
            lines.append(_line([entry["name"], str(point["step"]), *cells]))
    return "\n".join(lines)


def _searched(rows: list[dict]) -> dict[tuple[str, str], dict[str, list[dict]]]:
    """Returns (name, search) -> split -> the figures, one a seed, of rows that are called "name; seed 0"."""
    found = collections.defaultdict(lambda: collections.defaultdict(list))
    for entry in rows:
        name = entry["name"].split("; ")[0]
        for evaluation, values in entry["evaluations"].items():
            split, search = _split_and_search(evaluation)
            found[name, search][split].append(_shown(name, values))
    return found


def _splits(found: Mapping[tuple[str, str], Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(split for by_split in found.values() for split in by_split))


def _write_blanks(found: Mapping[tuple[str, str], object]) -> set[str]:
    """Returns the names of rows some of whose searches have a penalty for blanks: what writes with CTC."""
    return {name for name, searched in found if any(w.startswith(_PENALTY) for w in searched.split(", "))}


def penalties(rows: list[dict]) -> str:
    """Returns Markdown: BLEU and chrF of what writes blanks, with the penalty that the first split prefers.

    Beside them stands the run that distils and reranks. Means over the seeds that were searched so, without the range.
    """
    found = _searched(rows)
    splits = _splits(found)
    choices = collections.defaultdict(dict)
    for (name, searched), by_split in found.items():
        if splits[0] not in by_split:
            continue
        words = searched.split(", ")
        penalty = [word for word in words if word.startswith(_PENALTY)]
        others = ", ".join(word for word in words if word not in penalty)
        choices[name, others or _GREEDY][penalty[0].partition("=")[2] if penalty else "0"] = by_split
    writers = _write_blanks(found)
    lines = _head(["run", "search", f"`{_PENALTY}`", "seeds", *splits, "chrF"])

    def mean(by_split: dict[str, list[dict]], split: str, key: str) -> float:
        return statistics.mean(values[key] for values in by_split[split])

    def cell(by_split: dict[str, list[dict]], split: str, key: str, digits: int) -> str:
        return f"{mean(by_split, split, key):.{digits}f}" if split in by_split else "–"

    for (name, others), by_penalty in choices.items():
        if name not in (*writers, runs.RERANKER):
            continue
        penalty, by_split = max(by_penalty.items(), key=lambda choice: mean(choice[1], splits[0], "bleu"))
        bleu = [cell(by_split, split, "bleu", 2) for split in splits]
        chrf = ", ".join(cell(by_split, split, "chrf", 1) for split in splits)
        told = [penalty if name in writers else "–", str(len(by_split[splits[0]]))]
        lines.append(_line([name, others, *told, *bleu, chrf]))
    return "\n".join(lines)


def table1(rows: list[dict]) -> str:
    """Returns Markdown: each row and search of bench/table1.py, means over the seeds with their range."""
    return _table1(rows, _searched(rows))


def summary(rows: list[dict]) -> str:
    """Returns `table1` without the searches of what writes blanks, but for the greedy one: `penalties` has those."""
    found = _searched(rows)
    writers = _write_blanks(found)
    return _table1(rows, {key: of for key, of in found.items() if key[0] not in writers or key[1] == _GREEDY})


def _table1(rows: list[dict], found: Mapping[tuple[str, str], Mapping[str, list[dict]]]) -> str:
    splits = _splits(found)
    columns = {
        "BLEU from true latents": ("reconstruction_bleu", 1),
        "latent accuracy": ("latent_accuracy", 3),
        "latent nll": ("latent_nll", 2),
        "length ratio": ("length_ratio", 3),
        "codes in use": ("live_codes", 0),
        "effective codes": ("effective_codes", 2),
    }
    head = ["run", "search", "seeds", *splits, *(f"{title}, {splits[0]}" for title in columns)]
    lines = _head(head)
    for (name, searched), by_split in found.items():
        first = by_split[splits[0]]
        cells = [_over_runs(by_split[split], "bleu", 2) for split in splits]
        cells += [_over_runs(first, *column) for column in columns.values()]
        lines.append(_line([name, searched, str(len(first)), *cells]))
    minutes = sorted(entry["seconds"] / 60 for entry in rows)
    steps = sorted({entry["steps"] for entry in rows})
    cores = sorted({_cores(entry) for entry in rows}, reverse=True)
    lines += [
        "",
        f"{_bleu(rows)} {len(rows)} runs of",
        f"{' or '.join(map(str, steps))} steps, {minutes[0]:.0f} to {minutes[-1]:.0f} minutes each on "
        f"{' or '.join(cores)} of {rows[0]['machine']['cpu']} (shared).",
        f"The first: `{rows[0]['command']}`.",
    ]
    return "\n".join(lines)


def paper(rows: list[dict]) -> str:
    """Returns Markdown: the paper's Table 1, and the rows of bench/table1.py beside it, means over their seeds."""
    found = _searched(rows)
    splits = _splits(found)
    lines = _head(["the paper", "newstest2014", "here", "search", "seeds", *splits])
    for system, bleu, name, searched in paper_figures.TABLE_1:
        if (name, searched) not in found:
            raise ValueError(f"no row {name!r} was searched with {searched}")
        by_split = found[name, searched]
        told = [system or "–", str(bleu or "–"), name, searched, str(len(by_split[splits[0]]))]
        means = (statistics.mean(values["bleu"] for values in by_split[split]) for split in splits)
        lines.append(_line([*told, *(f"{mean:.2f}" for mean in means)]))
    return "\n".join(lines)


def over_seeds(rows: list[dict], key: str) -> dict[tuple[str, str], dict[int, list[float]]]:
    """Returns (E-step, start) -> step -> the values of `key`, one a seed, of the runs of bench/figure3.py."""
    found = collections.defaultdict(lambda: collections.defaultdict(list))
    for entry in rows:
        e_step, start, _ = entry["name"].split("; ")
        for point in entry["curve"]:
            found[e_step, start][point["step"]].append(point[key])
    return found


def figure3_table(rows: list[dict]) -> str:
    """Returns Markdown: the runs of bench/figure3.py at some of their steps, means over the seeds with their range."""
    keys = {"BLEU from true latents": "reconstruction_bleu", "codes in use": "live_codes"}
    keys |= {"perplexity": "codebook_perplexity"}
    series = {title: over_seeds(rows, key) for title, key in keys.items()}
    steps = sorted({step for points in next(iter(series.values())).values() for step in points})
    early, middle, last = steps[0], steps[len(steps) // 4], steps[-1]
    shown = [("BLEU from true latents", middle), ("BLEU from true latents", last)]
    shown += [("codes in use", early), ("codes in use", middle), ("codes in use", last), ("perplexity", last)]
    head = ["E-step", "start", "seeds", *(f"{title}, step {step}" for title, step in shown)]
    lines = _head(head)
    for name, points in series["perplexity"].items():
        cells = []
        for title, step in shown:
            values = series[title][name][step]
            digits = 0 if title == "codes in use" else 1
            cells.append(_mean_and_range(values, digits))
        lines.append(_line([*name, str(len(points[last])), *cells]))
    seconds = sorted(entry["seconds"] + entry["evaluation_seconds"] for entry in rows)
    lines.append(
        f"\n{len(rows)} runs of {rows[0]['steps']} steps, {seconds[0] / 60:.0f} to {seconds[-1] / 60:.0f} minutes each "
        f"on {_cores(rows[0])} of {rows[0]['machine']['cpu']} (shared); the first: `{rows[0]['command']}`."
    )
    return "\n".join(lines)


def cifar10_table(rows: list[dict]) -> str:
    """Returns Markdown: the runs of bench/cifar10.py on test, means over the seeds with their range."""
    by_name = collections.defaultdict(list)
    for entry in rows:
        name = entry["name"].split("; ")[0]
        of_test = [v for k, v in entry["evaluations"].items() if k.startswith("test (prior")][-1]
        told = {
            "K": int(re.search(r"K:(\d+)", of_test["bits_per_dim_signature"])[1]),
            "minutes": entry["seconds"] / 60,
            "prior_minutes": entry["prior"]["seconds"] / 60,
        }
        by_name[name].append(told | _shown(name, of_test))
    columns = {
        "K": ("K", 0),
        "reconstruction": ("reconstruction_bits_per_dim", 3),
        "prior": ("prior_bits_per_dim", 3),
        "total": ("bits_per_dim", 3),
        "total, codes drawn": ("drawn_bits_per_dim", 3),
        "their entropy": ("code_entropy_bits_per_dim", 3),
        "PSNR, dB": ("psnr", 2),
        "perplexity": ("codebook_perplexity", 0),
        "codes in use": ("live_codes", 0),
        "effective codes": ("effective_codes", 2),
        "minutes": ("minutes", 1),
        "of the prior": ("prior_minutes", 1),
    }
    head = ["bottleneck", "seeds", *columns]
    lines = _head(head)
    for name, found in by_name.items():
        cells = [_over_runs(found, *column) for column in columns.values()]
        lines.append(_line([name, str(len(found)), *cells]))
    first, prior = rows[0], rows[0]["prior"]
    signature = list(first["evaluations"].values())[-1]["bits_per_dim_signature"]
    lines += [
        "",
        f"Bits per dimension, of the first: `{signature}`.",
        f"Runs of {first['steps']} steps, {len(rows)} of them, each on {_cores(first)}, and their priors of",
        f"{prior['steps']}, each on {_cores(prior)} of {first['machine']['cpu']} (shared).",
        f"The first: `{first['command']}`;",
        f"its prior: `{prior['command']}`.",
    ]
    return "\n".join(lines)


def _shown(name: str, values: dict) -> dict:
    """Returns the figures that say something of a run of this name."""
    hidden = ("effective_codes",) if any(kind in name for kind in _WITHOUT_TEMPERATURE) else ()
    return {key: value for key, value in values.items() if key not in hidden}


def _cores(entry: dict) -> str:
    cores = entry["machine"]["cores"]
    return "one core" if cores == 1 else f"{cores} cores"


def _over_runs(found: list[dict], key: str, digits: int) -> str:
    """Returns `_mean_and_range` of the runs that know the figure `key`."""
    return _mean_and_range([values[key] for values in found if key in values], digits)


def _mean_and_range(values: list[float], digits: int) -> str:
    """Returns the mean of several runs and, where they differ, their range; a dash for none."""
    if not values:
        return "–"
    low, mean, high = (f"{v:.{digits}f}" for v in (min(values), sum(values) / len(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def step_table(report: dict) -> str:
    """Returns Markdown: the variants of bench/train_step.py, the fastest first."""
    timed = [entry for entry in report["rows"] if "tokens_per_second" in entry]
    timed.sort(key=lambda entry: -entry["padded_tokens_per_second"])
    lines = [
        "| XLA | type | bottleneck | batch | padded tokens/s, ratio | real tokens/s, ratio | share of matmul rate |",
        "|---|---|---|---|---|---|---|",
    ]
    fastest, most = timed[0]["padded_tokens_per_second"], max(e["tokens_per_second"] for e in timed)
    for entry in timed:
        lines.append(
            f"| {'yes' if entry['xla'] else 'no'} | {entry['dtype']} | {entry['bottleneck']} | "
            f"{' x '.join(map(str, entry['batch']))} | {entry['padded_tokens_per_second'] / fastest:.2f} | "
            f"{entry['tokens_per_second'] / most:.2f} | {entry['share_of_matmul_rate']:.2f} |"
        )
    for entry in report["rows"]:
        if "tokens_per_second" not in entry:
            variant = f"{entry['dtype']}, {entry['bottleneck']}{', XLA' if entry['xla'] else ''}"
            lines.append(f"\n{variant}: the first call took {entry['first_call_seconds']} s.")
    lines.append(
        f"\nThe ratio 1.00 was {fastest:.0f} padded and {most:.0f} real target tokens/s in this run."
    )
    return "\n".join(lines)


def decode_table(report: dict) -> str:
    """Returns Markdown: the decoders of bench/decode.py, by size and batch."""
    lines = ["| size | batch | decoder | ms a batch | speed, own greedy = 1 |", "|---|---|---|---|---|"]
    for row in report["rows"]:
        lines.append(
            f"| {row['size']} | {row['batch']} | {row['decoder']} | {row['milliseconds']:.1f} | {row['speedup']:.2f} |"
        )
    return "\n".join(lines)


def rescored_table(report: dict) -> str:
    """Returns Markdown: BLEU of the candidates that bench/rescored.py ranks first, by weight and split."""
    splits = list(dict.fromkeys(row["split"] for row in report["rows"]))
    lines = _head(["weight of the n-grams", *splits])
    for weight in dict.fromkeys(row["weight"] for row in report["rows"]):
        scores = {row["split"]: row["bleu"] for row in report["rows"] if row["weight"] == weight}
        lines.append(_line([str(weight), *(f"{scores[split]:.2f}" for split in splits)]))
    told = f"BLEU: sacreBLEU `{report['rows'][0]['bleu_signature']}`; the transformer at step {report['step']}, made by"
    return "\n".join([*lines, "", told, f"`{report['command']}`."])


def bottleneck_table(report: dict) -> str:
    """Returns Markdown: the sizes of bench/bottleneck.py; time in products, peak in [positions, codes] matrices."""
    others = {"released": "released", "peer": "vector-quantize-pytorch"}
    head = ["codes", "samples", "seconds", "in products", "peak"]
    head += [f"{title}: {what}" for title in others.values() for what in ("times as long", "peak")]
    lines = _head(head)
    for row in report["rows"]:
        ours = row["t2t_vqem"]
        cells = [str(row["codes"]), str(row["samples"] or "nearest"), f"{ours['seconds']:.2f}"]
        cells += [
            f"{ours['seconds'] / row['product']['seconds']:.2f}",
            f"{ours['bytes'] / row['matrix_bytes']:.2f}",
        ]
        for variant in others:
            figures = row.get(variant, {})
            if "seconds" in figures:
                cells.append(f"{figures['seconds'] / ours['seconds']:.1f}")
                cells.append(f"{figures['bytes'] / row['matrix_bytes']:.1f}")
            elif figures:
                cells += ["does not fit", f"about {figures['does_not_fit'] / row['matrix_bytes']:.0f}"]
            else:
                cells += ["–", "–"]
        lines.append(_line(cells))
    machine = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    turns = sorted({row["turns"] for row in report["rows"]})
    lines.append(
        f"\n{report['positions']} positions of {report['dim']} numbers; medians of {turns[0]} to {turns[-1]} turns on "
        f"{machine} (shared); what needs more than {report['memory_gib']:g} GiB was not run."
    )
    return "\n".join(lines)


MAKERS = {
    "bottleneck": bottleneck_table,
    "cifar10": cifar10_table,
    "comparison": comparison,
    "curve": curve,
    "train_step": step_table,
    "decode": decode_table,
    "figure3": figure3_table,
    "paper": paper,
    "penalties": penalties,
    "rescored": rescored_table,
    "summary": summary,
    "table1": table1,
}
