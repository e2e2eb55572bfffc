"""What the page on a codebook shows where codes stand in pictures."""

from collections.abc import Mapping
from typing import Any

LIKENESS = "likeness"
HEADS = ("mean patch", "some of its patches")
ABOUT = (
    "Likeness: cosine of the code's mean patches in two halves of the split. A code of several slots, or one that sees "
    "further than its patch, shows only part of what it stands for here."
)
FIND = "find a code, a slot"
SWAP_HEADS = ("picture", "from its codes", "with one swapped")
ABOUT_SWAPS = (
    "Pictures decoded from their codes, and again with one code replaced by the most frequent other one."
)


def position(values: Mapping[str, Any]) -> str:
    """Returns what a position of a `codebook_report.Report` is."""
    height, width = values["pixels_per_code"]
    return f"a position has {height} x {width} pixels"


def swap(told: Mapping[str, Any]) -> list[str]:
    """Returns the cells under SWAP_HEADS, as HTML."""
    return [_picture(told[kind], kind, "whole") for kind in ("source", "before", "after")]


def cells(code: Mapping[str, Any]) -> list[str]:
    """Returns the cells under HEADS, as HTML."""
    return [_picture(code[kind], kind) for kind in ("mean", "patches")]


def _picture(png: str, alternative: str, kind: str = "patch") -> str:
    return f'<img class="{kind}" alt="{alternative}" src="data:image/png;base64,{png}">'
