"""Quality against latency, as a picture."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

_LOG_RATIO = 3.0  # of the slowest run to the fastest, from where the axis of latency is logarithmic
_DISTANCES = (9, 18, 30, 45, 65, 90)  # points from a run to its label; the nearest free place is taken
_ANGLES = (0, 90, 270, 180, 45, 315, 135, 225)  # degrees
_NEAR = 18  # points, from where on a line joins the two
_MARKER = 11  # points that a label keeps off another run's marker

Place = tuple[float, float]


def quality_against_latency(report: Mapping[str, Any], machine: str) -> bytes:
    """Returns a PNG of BLEU against the median latency of a sentence, for the runs that have both.

    Args:
      report: what `comparison.compare` returned, with such a run in it.
      machine: what the times were taken on, for the title.
    """
    rows = [row for row in report["runs"] if "bleu" in row and "latency_p50_ms" in row]
    figure = Figure(figsize=(8.0, 5.5), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    labels, colours = [], {}
    for row in rows:
        place = row["latency_p50_ms"], row["bleu"]
        colour = colours.setdefault(row["model"], f"C{len(colours)}")
        if row["name"] == report["reference"]:
            axes.axvline(place[0], color="0.8", linestyle="--", linewidth=1, zorder=1)
            axes.axhline(place[1], color="0.8", linestyle="--", linewidth=1, zorder=1)
            axes.plot(*place, "*", markersize=15, color=colour)
            labels.append((f"{row['name']} (reference)", place))
        else:
            axes.plot(*place, "o", markersize=7, color=colour)
            labels.append((f"{row['name']} ({row['speed_up']:.1f}×)", place))
    keys = [Line2D([], [], marker="o", linestyle="", color=colour) for colour in colours.values()]
    figure.legend(keys, colours, loc="outside lower center", ncols=len(keys), frameon=False)
    axes.set_title(f"{report['split']}, {report['sentences']} sentences; {machine}", fontsize=9)
    axes.set_ylabel("BLEU (sacreBLEU)")
    axes.set_xlabel("median latency of one sentence, text in and text out, ms  (in brackets: speed-up)")
    _scale(axes, [row["latency_p50_ms"] for row in rows])
    canvas.draw()  # fixes the layout, which the labels are placed in
    figure.set_layout_engine("none")
    _label(axes, labels)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _scale(axes: Axes, latencies: Sequence[float]) -> None:
    axes.margins(x=0.15, y=0.15)
    axes.grid(color="0.93", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    if max(latencies) / min(latencies) >= _LOG_RATIO:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def _label(axes: Axes, labels: Sequence[tuple[str, Place]]) -> None:
    """Writes each text near its place, where it covers least of what is there; a line leads to those afar."""
    pixels = axes.figure.dpi / 72.0
    points = [axes.transData.transform(place) for _, place in labels]
    half = _MARKER * pixels / 2
    taken = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in points]
    style = {"textcoords": "offset points", "fontsize": 9, "va": "center", "ha": "center", "zorder": 3}
    style["bbox"] = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    for (text, place), point in zip(labels, points, strict=True):
        probe = axes.annotate(text, place, xytext=(0, 0), **style)
        size = probe.get_window_extent()
        probe.remove()
        best = None
        for distance in _DISTANCES:
            for angle in _ANGLES:
                x, y = _beside(size.width / pixels, size.height / pixels, distance, angle)
                corner = point[0] + x * pixels - size.width / 2, point[1] + y * pixels - size.height / 2
                box = Bbox.from_bounds(*corner, size.width, size.height)
                outside = size.width * size.height - _shared(box, axes.bbox)
                covered = round(outside + sum(_shared(box, other) for other in taken))
                if best is None or covered < best[0]:
                    best = covered, (x, y), distance, box
        _, offset, distance, box = best
        taken.append(box)
        line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.7, "shrinkA": 1, "shrinkB": 4}
        axes.annotate(text, place, xytext=offset, arrowprops=line if distance > _NEAR else None, **style)


def _beside(width: float, height: float, distance: float, angle: float) -> Place:
    """Returns the offset, in points, of the centre of a text whose edge is `distance` away at `angle`."""
    x, y = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return x * distance + round(x) * width / 2, y * distance + round(y) * height / 2


def _shared(a: Bbox, b: Bbox) -> float:
    """Returns the area that two boxes share."""
    both = Bbox.intersection(a, b)
    return 0.0 if both is None else both.width * both.height
