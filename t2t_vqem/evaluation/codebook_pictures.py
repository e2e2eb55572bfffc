"""How evenly a codebook is used, how stable that is, and how far it moved, as pictures."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

_MOST_NAMED = 8  # curves that a legend can tell apart
_EVEN = {"color": "0.55", "linestyle": "--", "linewidth": 1}
_BINS = 16


def pictures(values: Mapping[str, Any]) -> dict[str, bytes]:
    """Returns PNGs by their captions, from the values of a `codebook_report.Report` that counted something."""
    counts = np.array([slot["counts"] for slot in values["slots"]])
    halves = np.array([slot["half_counts"] for slot in values["slots"]])
    drawn = {
        "Counts by rank: the most frequent code first, against even use": _by_rank,
        "How many codes are used how often; unused ones are left out": _histogram,
        "Share of all positions that the most frequent codes cover": _cumulative,
    }
    found = {caption: _picture(draw, counts) for caption, draw in drawn.items()}
    caption = "Each code in two random halves of the split: on the line where they agree"
    found[caption] = _picture(_halves, halves)
    if values["movement"]:
        caption = "How far codes moved between checkpoints, in root mean square norms of a code"
        found[caption] = _picture(_movement, values["movement"])
    return found


def _picture(draw: Callable[[Axes, Any], None], data: Any) -> bytes:
    figure = Figure(figsize=(5.6, 3.6), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(color="0.93")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes, data)
    if len(axes.get_legend_handles_labels()[1]):
        axes.legend(frameon=False, fontsize=8)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _styles(count: int, kind: str) -> list[dict[str, Any]]:
    """Returns colour and name of each of several curves; one alone, or very many, have no name."""
    colours = [colormaps["viridis"](0.85 * i / max(1, count - 1)) for i in range(count)]
    named = 1 < count <= _MOST_NAMED
    return [
        {"color": "C0" if count == 1 else colours[i], **({"label": f"{kind} {i}"} if named else {})}
        for i in range(count)
    ]


def _of_counts(axis: Axis, most: float, steps: tuple[int, ...] = (1, 2, 5)) -> None:
    """Writes round numbers up to `most` as they are, the zero among them, on a logarithmic axis."""
    decades = 10 ** np.arange(np.ceil(np.log10(most)) + 1)
    axis.set_major_locator(FixedLocator([0, *np.outer(decades, steps).ravel()]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _by_rank(axes: Axes, counts: np.ndarray) -> None:
    ranks = np.arange(1, counts.shape[1] + 1)
    for slot, style in zip(counts, _styles(len(counts), "slot"), strict=True):
        ordered = -np.sort(-slot)
        used = ordered > 0
        axes.plot(ranks[used], ordered[used], linewidth=1.8, **style)
        if len(counts) == 1:
            axes.fill_between(ranks[used], ordered[used], 0.5, color="C0", alpha=0.12, linewidth=0)
    axes.axhline(counts[0].sum() / counts.shape[1], label="even use", **_EVEN)
    axes.set_yscale("log")
    axes.set_ylim(0.8, 1.3 * counts.max())
    _of_counts(axes.yaxis, counts.max())
    axes.set_xlim(0, counts.shape[1])
    axes.set_xlabel("rank of the code")
    axes.set_ylabel("positions with the code")


def _histogram(axes: Axes, counts: np.ndarray) -> None:
    most = max(2, counts.max())
    # Edges between whole numbers, or narrow bins hold no number at all and others two.
    edges = np.unique(np.floor(np.geomspace(1, most + 1, _BINS))) - 0.5
    edges = np.append(edges[edges < most], most + 0.5)
    for slot, style in zip(counts, _styles(len(counts), "slot"), strict=True):
        filled = len(counts) == 1
        axes.hist(slot[slot > 0], edges, histtype="stepfilled" if filled else "step", alpha=0.8, **style)
    axes.axvline(counts[0].sum() / counts.shape[1], label="even use", **_EVEN)
    axes.set_xscale("log")
    axes.set_xlim(0.8, 1.3 * most)
    _of_counts(axes.xaxis, most)
    axes.set_xlabel("positions with the code")
    axes.set_ylabel("codes")


def _cumulative(axes: Axes, counts: np.ndarray) -> None:
    share = np.linspace(0, 1, counts.shape[1] + 1)
    for slot, style in zip(counts, _styles(len(counts), "slot"), strict=True):
        covered = np.concatenate([[0.0], np.cumsum(-np.sort(-slot)) / slot.sum()])
        axes.plot(share, covered, linewidth=1.8, **style)
    axes.plot([0, 1], [0, 1], label="even use", **_EVEN)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("codes, the most frequent first")
    axes.set_ylabel("positions")


def _halves(axes: Axes, halves: np.ndarray) -> None:
    for (first, second), style in zip(halves, _styles(len(halves), "slot"), strict=True):
        axes.scatter(first, second, s=14, alpha=0.5, linewidths=0, **style)
    most = halves.max() * 1.3 + 1
    axes.plot([0, most], [0, most], zorder=0, **_EVEN)
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("function", functions=(np.log1p, np.expm1))  # a logarithm that has a place for 0
        _of_counts(axis, most)
    axes.set_xlim(-0.1, most)
    axes.set_ylim(-0.1, most)
    axes.set_xlabel("positions with the code in one half")
    axes.set_ylabel("in the other")


def _movement(axes: Axes, intervals: list[Mapping[str, Any]]) -> None:
    edges = np.linspace(0, max(np.max(interval["moved"]) for interval in intervals) or 1.0, 3 * _BINS)
    for interval, style in zip(intervals, _styles(len(intervals), ""), strict=True):
        name = f"step {interval['start']} to {interval['end']}"
        axes.hist(
            np.ravel(interval["moved"]), edges, histtype="step", linewidth=1.6, **style | {"label": name}
        )
    axes.set_xlim(left=0)
    axes.set_xlabel("way of the code / norm of a code")
    axes.set_ylabel("codes")
